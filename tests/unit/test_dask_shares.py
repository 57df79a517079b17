"""Shares that workers of Dask take: results, errors in our words, and what is said where nobody takes them."""

from __future__ import annotations

import sys
from importlib import import_module

import pytest
from pydantic import ValidationError

from configs.settings import Settings
from tasks.errors import DependencyDown, Refused, UsageError
from tasks.side_by_side import sharing_out
from tasks.steps import Unexpected
from tests.dask_cluster import a_cluster

PERSON = "ludmila.vassileva@customer.example"


def double(number: int) -> int:
    """Twice the number."""
    return 2 * number


def refuse() -> None:
    """An error that is ours."""
    raise Refused("Nothing was done.", hint="Ask again.")


def stumble() -> None:
    """An error that nobody foresaw, and that quotes a person."""
    raise ValueError(PERSON)


class FromElsewhere:
    """Something that cannot be made where it arrives, as Kontor's functions where Kontor is not installed."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return import_module, ("kontor_of_another_version",)


def test_a_share_brings_its_result_or_its_error_and_no_log_of_dasks_quotes_what_failed(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Ours crosses as it is; a foreign one without its text, which Dask would have logged with the arguments."""
    with a_cluster(1) as address, sharing_out(Settings(dask=address, processes=2)) as helpers:
        assert helpers.start(double, 21).result() == 42
        with pytest.raises(Refused, match="Nothing was done") as refused:
            helpers.start(refuse).result()
        assert refused.value.hint == "Ask again."
        with pytest.raises(Unexpected, match="ValueError at tests/unit/test_dask_shares"):
            helpers.start(stumble).result()
        with pytest.raises(UsageError, match="can make nothing of Kontor's work") as unknown:
            helpers.start(repr, FromElsewhere()).result()
        assert "is installed" in unknown.value.hint
    assert PERSON not in caplog.text + "".join(capfd.readouterr())


def test_where_nobody_works_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """A scheduler that is away, or that has no worker, is a dependency that is down, with what to do."""
    monkeypatch.setattr("tasks.dask_shares._ANSWER_SECONDS", 0.3)
    with a_cluster(0) as address:
        _assert_down(address)
    _assert_down("tcp://127.0.0.1:1")


def _assert_down(address: str) -> None:
    with (
        pytest.raises(DependencyDown, match="does not answer or has no worker") as down,
        sharing_out(Settings(dask=address)),
    ):
        pass
    assert "unset KONTOR_DASK" in down.value.hint


def test_without_the_packages_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing falls back in silence."""
    monkeypatch.setitem(sys.modules, "prefect_dask", None)
    with (
        pytest.raises(UsageError, match="prefect_dask is not installed") as refused,
        sharing_out(Settings(dask="local")),
    ):
        pass
    assert "extra `dask`" in refused.value.hint


def test_code_and_secrets_go_to_other_machines_by_tls_alone() -> None:
    """In clear only to loopback; `local` and TLS as they are."""
    for good in ("local", "tls://dask.internal:8786", "tcp://127.0.0.1:8786"):
        assert Settings(dask=good).dask == good
    for bad in ("tcp://dask.internal:8786", "tcp://127.0.0.1.evil.example:8786", "yes", "tls://user:secret@host:1"):
        with pytest.raises(ValidationError, match="no way to Dask"):
            Settings(dask=bad)


def test_tls_without_certificates_is_told_before_anything_is_sent() -> None:
    """Dask alone would fail later, and in its own words."""
    settings = Settings(dask="tls://127.0.0.1:1")
    with pytest.raises(UsageError, match="does not name authority") as refused, sharing_out(settings):
        pass
    assert "DASK_DISTRIBUTED__COMM__TLS__CA_FILE" in refused.value.hint


def test_with_dask_alone_there_is_something_to_share() -> None:
    """One setting is enough; KONTOR_PROCESSES says it more precisely."""
    assert Settings().shares == 1
    assert Settings(dask="local").shares >= 2
    assert Settings(dask="local", processes=5).shares == 5
