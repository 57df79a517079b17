"""The systemd unit and the container file start and stop Kontor with commands that there are, in folders that fit."""

from __future__ import annotations

import re
from pathlib import Path

import typer.main

from configs.settings import PROJECT_ROOT
from flows.cli import app

SERVICE = PROJECT_ROOT / "configs" / "service"
COMMANDS = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]


def _unit() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in (SERVICE / "kontor.service").read_text("utf-8").splitlines():
        name, mark, value = line.partition("=")
        if mark and not line.startswith("#"):
            found.setdefault(name, []).append(value)
    return found


def test_the_unit_starts_and_stops_what_there_is() -> None:
    """`kontor up` and `kontor down`, as nobody special, and its home is the one folder that it may write to."""
    unit = _unit()
    assert {"up", "down"} <= COMMANDS
    for name, command in (("ExecStart", "up"), ("ExecStop", "down")):
        [line] = unit[name]
        assert re.fullmatch(rf"(/[\w.-]+)+/\.venv/bin/kontor {command}", line)
        assert Path(line.split()[0]).is_relative_to(unit["WorkingDirectory"][0])
    [home] = [value.removeprefix("KONTOR_HOME=") for value in unit["Environment"] if value.startswith("KONTOR_HOME=")]
    assert unit["ReadWritePaths"] == [home]
    assert unit["User"] != ["root"]


def test_the_container_runs_kontor_up_as_nobody_special() -> None:
    """It installs by the lock, keeps its home in a volume, runs `kontor up` and ends at the signal that ends it."""
    lines = (SERVICE / "Containerfile").read_text("utf-8").splitlines()
    assert lines.index("USER kontor") < lines.index("RUN make install")
    assert 'CMD ["kontor", "up"]' in lines
    assert "STOPSIGNAL SIGTERM" in lines
    [home] = [found for line in lines for found in re.findall(r"KONTOR_HOME=(\S+)", line)]
    assert f"VOLUME {home}" in lines
