"""A reader of the tutorial: a folder that looks like the checkout, with the same .venv and a home of its own."""

from __future__ import annotations

import io
import json
import os
import subprocess
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest

from flows.cli import main
from tests.janitor import MARK

KONTOR = ".venv/bin/kontor"
HERE = {"KONTOR_HOME": ".kontor/demo", "COLUMNS": "200", "LANG": "C.UTF-8"}


@dataclass(frozen=True)
class Reader:
    """The folder, and how the demo ended that was played in it."""

    folder: Path
    played: subprocess.CompletedProcess[str]

    @property
    def home(self) -> Path:
        """The demo's KONTOR_HOME."""
        return self.folder / ".kontor" / "demo"

    def types(self, command: str) -> subprocess.CompletedProcess[str]:
        """Run one line as it stands in the text."""
        return type_in(self.folder, command)


def surroundings(folder: Path) -> dict[str, str]:
    """The variables of a reader's shell in that folder, and of ours only what the session's end needs."""
    return {"PATH": os.environ["PATH"], "HOME": str(folder), **HERE, MARK: os.environ[MARK]}


def type_in(folder: Path, command: str) -> subprocess.CompletedProcess[str]:
    """Run one line of the text in that folder, as a reader's shell does."""
    return subprocess.run(
        ["bash", "-c", command.replace("make demo", f"{KONTOR} demo")],
        cwd=folder,
        env=surroundings(folder),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def look(home: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run ``kontor`` inside this process, which saves the start: for commands that run no flow."""
    printed, said = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(printed), redirect_stderr(said):
        for name in [name for name in os.environ if name.startswith(("PREFECT_API", "KONTOR_"))]:
            patch.delenv(name)
        for name, value in {"KONTOR_HOME": str(home), "NO_COLOR": "1", "COLUMNS": "200", **more}.items():
            patch.setenv(name, value)
        code = main(list(arguments))
    return subprocess.CompletedProcess(arguments, code, printed.getvalue(), said.getvalue())


def listing(done: subprocess.CompletedProcess[str]) -> list[dict[str, object]]:
    """The rows that a command printed as JSON; AssertionError with its words where it did not."""
    if done.returncode != 0:
        raise AssertionError(done.stderr)
    found: list[dict[str, object]] = json.loads(done.stdout)
    if not isinstance(found, list):
        raise AssertionError(f"no list: {done.stdout[:200]}")
    return found
