"""Where Prefect's server listens, and that nobody reaches it from elsewhere without a password."""

from __future__ import annotations

from pathlib import Path

import pytest

from configs.settings import Settings
from tasks.errors import UsageError
from tasks.prefect_settings import Listening, client_environment, reach, server_environment
from tasks.stack import prefect_listening

LOGIN = "admin:a-password-of-24-letters"


def _login_file(folder: Path, text: str = LOGIN, mode: int = 0o600) -> Path:
    path = folder / "prefect.login"
    path.write_text(f"{text}\n")
    path.chmod(mode)
    return path


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.0.0.2"])
def test_loopback_takes_no_password(host: str) -> None:
    """What only this machine reaches asks for none unless told to."""
    assert prefect_listening(Settings(prefect_host=host)) == Listening(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "10.0.0.7", "::", "prefect.internal"])
def test_any_other_address_takes_one(tmp_path: Path, host: str) -> None:
    """Without a file it is refused; with one the server asks for what stands in it."""
    with pytest.raises(UsageError, match="without a password"):
        prefect_listening(Settings(prefect_host=host))
    there = Settings(prefect_host=host, prefect_port=4200, prefect_auth_file=_login_file(tmp_path))
    assert prefect_listening(there) == Listening(host, 4200, LOGIN)


@pytest.mark.parametrize(
    ("text", "mode", "said"),
    [(LOGIN, 0o644, "Others than its owner"), ("admin:short", 0o600, "12 characters"), ("secret", 0o600, "12 char")],
)
def test_a_file_that_others_read_or_that_holds_no_password_is_refused(
    tmp_path: Path, text: str, mode: int, said: str
) -> None:
    """The error says what to correct and never what the file holds."""
    with pytest.raises(UsageError, match=said) as refused:
        prefect_listening(Settings(prefect_auth_file=_login_file(tmp_path, text, mode)))
    assert text not in f"{refused.value.message} {refused.value.hint}"
    with pytest.raises(UsageError, match="cannot be read"):
        prefect_listening(Settings(prefect_auth_file=tmp_path / "none"))


def test_server_and_those_who_report_to_it_know_the_same_password(tmp_path: Path) -> None:
    """It is in both environments and in no text of the object that carries it; pages elsewhere ask their own host."""
    exposed = Listening("0.0.0.0", 4200, LOGIN)
    serves = server_environment(tmp_path, exposed, 4200, "postgresql+asyncpg://x")
    reports = client_environment(tmp_path, f"http://{reach(exposed.host)}:4200/api", LOGIN)
    assert serves["PREFECT_SERVER_API_AUTH_STRING"] == reports["PREFECT_API_AUTH_STRING"] == LOGIN
    assert reports["PREFECT_API_URL"] == "http://127.0.0.1:4200/api"
    assert serves["PREFECT_SERVER_UI_API_URL"] == "/api"
    assert LOGIN not in repr(exposed)
    quiet = server_environment(tmp_path, Listening(), 4200, "postgresql+asyncpg://x")
    assert "PREFECT_SERVER_API_AUTH_STRING" not in quiet
