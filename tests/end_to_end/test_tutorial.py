"""The tutorial's commands work, in its order, and show what it says they show; then the demo's home is left.

The program itself is started for the demo, for what is piped or chained, and for the last two; the commands between
are forked off a process that has loaded everything, because twenty starts take longer than the work. What the tests of
the `kontor` command did before in the same home is no more than a reader may have tried.
"""

from __future__ import annotations

import re
import shlex
import signal
import subprocess

import pytest

from configs.settings import PROJECT_ROOT
from tasks.local_stack import find_postgres
from tasks.prefect_server import find_prefect
from tests.nursery import Nursery
from tests.reader import KONTOR, Reader, listing, look, surroundings

BY_ITSELF = (f"{KONTOR} status", f"{KONTOR} down")
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


def _readme_excerpt() -> list[str]:
    (block,) = re.findall(r"<!-- demo:begin -->\n```\n(.*?)```", README.read_text("utf-8"), re.DOTALL)
    return [line for line in block.splitlines() if line.strip()]


def _commands() -> list[str]:
    blocks = re.findall(r"```console\n(.*?)```", TUTORIAL.read_text("utf-8"), re.DOTALL)
    return [line.removeprefix("$ ") for block in blocks for line in block.splitlines() if line.startswith("$ ")]


def _follow(command: str, reader: Reader, processes: Nursery) -> tuple[int, str]:
    """Run one command; how it ended and everything that it showed."""
    if not command.startswith(f"{KONTOR} ") or command in BY_ITSELF:
        done = reader.types(command)
        return done.returncode, done.stdout + done.stderr
    ended = processes.run(*shlex.split(command)[1:])
    return ended.code, ended.said


def _assert_shown(command: str, said: str) -> None:
    for words, shown in SHOWN.items():
        for text in shown if words in command else ():
            assert text in said, f"{command} does not show {text!r}:\n{said}"


def test_every_command_of_the_tutorial_works_and_shows_what_it_should(reader: Reader, processes: Nursery) -> None:
    """A newcomer who types the tutorial meets no error and sees what the text speaks of."""
    commands = _commands()
    assert len(commands) > 20
    for words in SHOWN:
        assert any(words in command for command in commands), f"the tutorial no longer runs {words}"
    assert set(BY_ITSELF) < set(commands)
    assert commands[0] == "make demo"
    demo = reader.played
    assert demo.returncode == 0, f"{demo.stdout}\n{demo.stderr}"
    seen = {line.rstrip() for line in demo.stdout.splitlines()}
    assert [line for line in _readme_excerpt() if line.rstrip() not in seen] == []
    _assert_shown(commands[0], demo.stdout)
    for command in commands[1:]:
        code, said = _follow(command, reader, processes)
        assert code == 0, f"{command}\n{said}"
        _assert_shown(command, said)
    assert (reader.folder / "aging.xlsx").stat().st_size > 4_000
    assert (reader.folder / "template.xlsx").stat().st_size > 4_000
    assert said.count("stopped") == 2  # the last command: both servers ran, and it stopped them


def test_after_down_nothing_runs_and_a_report_brings_the_database_back(reader: Reader) -> None:
    """After `down` nothing runs and the data stay; a report then starts the database by itself, without Prefect."""
    home = reader.home
    assert look(home, "down").returncode == 0  # the tutorial's last command has done it, if it was among these tests
    assert find_postgres(home) is None
    assert find_prefect(home) is None
    assert look(home, "down").stdout.count("was not running") == 2
    assert look(home, "db", "url").returncode == 5
    assert listing(look(home, "report", "feed-files", "--format", "json"))
    assert find_prefect(home) is None


@pytest.mark.campaign
def test_a_second_demo_begins_anew(reader: Reader) -> None:
    """Run again, the demo finds its home as its own and takes the first file as new; Ctrl-C there ends it with 130."""
    again = subprocess.Popen(
        [KONTOR, "demo"],
        cwd=reader.folder,
        env={**surroundings(reader.folder), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert again.stdout is not None
    first = next(line for line in again.stdout if line.startswith("  organizations.xlsx"))
    again.send_signal(signal.SIGINT)
    _, said = again.communicate(timeout=60)
    assert first.split(maxsplit=1)[1].strip() == "120 new"
    assert again.returncode == 130, said
    assert "Traceback" not in said
