"""The tutorial's commands work, in its order, and show what it says they show.

The program itself is started for the demo, for what is piped or chained, and for the last two; the commands between
are forked off a process that has loaded everything, because twenty starts take longer than the work.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from configs.settings import PROJECT_ROOT
from tasks.local_stack import remove_postgres
from tasks.prefect_server import find_prefect, prefect_environment
from tests.janitor import MARK
from tests.nursery import Nursery, nursery

KONTOR = ".venv/bin/kontor"
BY_ITSELF = (f"{KONTOR} status", f"{KONTOR} down")
HERE = {"KONTOR_HOME": ".kontor/demo", "COLUMNS": "200", "LANG": "C.UTF-8"}
TUTORIAL = PROJECT_ROOT / "docs" / "tutorial.md"
README = PROJECT_ROOT / "README.md"

# What a reader must see after a command that contains the key.
SHOWN = {
    "make demo": ("What could not be read", "disloyal", "Try next"),
    "report overdue-invoices": ("001035", "disloyal"),
    "aging --as-of 2026-09-14": ("EUR",),
    "--format json": ('"customer_number"', '"days_over_90"'),
    "organization-card": ("Родопа Индустрия АД", "Open items"),
    "report payer-classes": ("disloyal", "paid on average"),
    "payer-class set": ("001035",),
    "payer-class list": ("agreed in November",),
    "quarantine list --limit": ("31.09.2026",),
    "import .kontor/demo": ("known",),
    "contracts show": ("Restbeløp",),
    "import open_items_mine.csv": ("open_items_mine.csv",),
    "report open-invoices --customer 77001": ("2,500.00",),
    "quarantine list --file": ("31.11.2026",),
    "kontor status": ("open_items", "payment_sync"),
}


@pytest.fixture
def reader() -> Iterator[Path]:
    """A folder that looks to a reader like the checkout: the same .venv, an own .kontor."""
    folder = Path(tempfile.mkdtemp(prefix="kontor-read-"))
    folder.chmod(0o755)
    (folder / ".venv" / "bin").mkdir(parents=True)
    (folder / KONTOR).symlink_to(Path(sys.executable).parent / "kontor")
    home = folder / ".kontor" / "demo"
    yield folder
    _run(f"{KONTOR} down", folder)
    remove_postgres(home)
    shutil.rmtree(folder, ignore_errors=True)


def _readme_excerpt() -> list[str]:
    (block,) = re.findall(r"<!-- demo:begin -->\n```\n(.*?)```", README.read_text("utf-8"), re.DOTALL)
    return [line for line in block.splitlines() if line.strip()]


def _commands() -> list[str]:
    blocks = re.findall(r"```console\n(.*?)```", TUTORIAL.read_text("utf-8"), re.DOTALL)
    return [line.removeprefix("$ ") for block in blocks for line in block.splitlines() if line.startswith("$ ")]


@contextmanager
def _loaded(folder: Path) -> Iterator[Nursery]:
    """What the commands after the demo are forked off, in the reader's environment."""
    server = find_prefect(folder / ".kontor" / "demo")
    assert server is not None
    to_prefect = prefect_environment(server, server.home) | {"PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL"}
    said = folder / "said"
    said.mkdir()
    with nursery({**to_prefect, **HERE, "HOME": str(folder)}, said, folder) as processes:
        yield processes


def _follow(command: str, folder: Path, processes: Nursery) -> tuple[int, str]:
    """Run one command; how it ended and everything that it showed."""
    if not command.startswith(f"{KONTOR} ") or command in BY_ITSELF:
        done = _run(command, folder)
        return done.returncode, done.stdout + done.stderr
    ended = processes.run(*shlex.split(command)[1:])
    return ended.code, ended.said


def _run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), **HERE, MARK: os.environ[MARK]}
    return subprocess.run(
        ["bash", "-c", command.replace("make demo", ".venv/bin/kontor demo")],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def _assert_shown(command: str, said: str) -> None:
    for words, shown in SHOWN.items():
        for text in shown if words in command else ():
            assert text in said, f"{command} does not show {text!r}:\n{said}"


def test_every_command_of_the_tutorial_works_and_shows_what_it_should(reader: Path) -> None:
    """A newcomer who types the tutorial meets no error and sees what the text speaks of."""
    commands = _commands()
    assert len(commands) > 20
    for words in SHOWN:
        assert any(words in command for command in commands), f"the tutorial no longer runs {words}"
    assert set(BY_ITSELF) < set(commands)
    assert commands[0] == "make demo"
    demo = _run(commands[0], reader)
    assert demo.returncode == 0, f"{demo.stdout}\n{demo.stderr}"
    seen = {line.rstrip() for line in demo.stdout.splitlines()}
    assert [line for line in _readme_excerpt() if line.rstrip() not in seen] == []
    _assert_shown(commands[0], demo.stdout)
    with _loaded(reader) as processes:
        for command in commands[1:]:
            code, said = _follow(command, reader, processes)
            assert code == 0, f"{command}\n{said}"
            _assert_shown(command, said)
    assert (reader / "aging.xlsx").stat().st_size > 4_000
    assert (reader / "template.xlsx").stat().st_size > 4_000
