"""What `kontor up` shows on a terminal."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

from rich.console import Console

from configs.settings import Settings
from flows.commands.standing import companions, picture
from tasks.standing import Supervisor


def test_the_live_view_shows_who_stands_how_areas_do_and_what_runs_next(tmp_path: Path) -> None:
    """Every companion, a red line where the database is away, and the next scheduled runs with their times."""
    worker = companions()[0].command
    assert int(worker[worker.index("--limit") + 1]) >= 4
    supervisor = Supervisor(tmp_path / "logs", companions(), {})
    console = Console(width=140, file=StringIO())
    console.print(picture(Settings(home=tmp_path), supervisor))
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert [name for name in ("worker", "inbox", "returns", "wal") if name not in said] == []
    assert "database" in said
    assert "next run" in said
    assert "run_watch" in said
