"""A process that has loaded everything once and forks a child for each command: real processes to kill, soon there.

Loading the flows takes seconds, and a campaign starts hundreds of runs. The nursery loads them, has no thread and no
connection of its own, and forks; each child then does what ``kontor …`` does, from reading the settings to the exit
code, and can be killed like one. Run as a program it is the nursery; imported, it is the other end.

Prefect's engine asks its server several times a step, which makes a run of small files ten times as long as its work.
:meth:`Nursery.start_flow` therefore runs the same flow function with its steps called directly: the same order, the
same transactions, the same lock and ledger, without Prefect's records and retries. :meth:`Nursery.start` has those too.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import psutil  # type: ignore[import-untyped]

ROOT = Path(__file__).resolve().parents[1]
KILLED = -int(signal.SIGKILL)
LONGEST_RUN = 240.0


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code (negative: the signal), its output, its messages, and how long it took."""

    code: int
    printed: str
    told: str
    seconds: float

    @property
    def said(self) -> str:
        """What it printed and what it told, the one after the other."""
        return self.printed + self.told


@dataclass
class Child:
    """A command under way in a process of its own."""

    nursery: Nursery
    pid: int
    output: Path
    begun: float

    @property
    def is_alive(self) -> bool:
        """Whether it still runs."""
        return not _has_ended(self.pid)

    def kill(self) -> None:
        """End it with SIGKILL; nothing happens where it has ended already."""
        os.kill(self.pid, signal.SIGKILL)  # its number cannot be another's before wait() has asked for its end

    def wait(self, seconds: float = LONGEST_RUN) -> Ended:
        """Return how it ended; one that does not end in time is killed and reported."""
        deadline = time.monotonic() + seconds
        while self.is_alive:
            if time.monotonic() > deadline:
                self.kill()
                raise AssertionError(
                    f"a command did not end in {seconds:.0f} s: {_messages(self.output).read_text()[-2000:]}"
                )
            time.sleep(0.005)
        took = time.monotonic() - self.begun
        code = self.nursery.ask({"reap": self.pid})["code"]
        printed, told = (path.read_text("utf-8", "replace") for path in (self.output, _messages(self.output)))
        self.output.unlink()
        _messages(self.output).unlink()
        return Ended(int(code), printed, told, took)


class Nursery:
    """This end of a nursery: what its children print goes to ``folder``, and they are started in ``standing``."""

    def __init__(self, environment: Mapping[str, str], folder: Path, standing: Path = ROOT) -> None:
        self._folder, self._standing, self._count = folder, standing, 0
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("PREFECT_", "KONTOR_"))}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.nursery"],
            cwd=ROOT,
            env={**inherited, "NO_COLOR": "1", **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(self, *arguments: str, **environment: str) -> Child:
        """Start ``kontor`` with these arguments in a process of its own."""
        return self._fork({"arguments": list(arguments), "folder": str(self._standing), "environment": environment})

    def start_flow(self, flow: str, environment: Mapping[str, str] | None = None, /, **parameters: object) -> Child:
        """Start a flow without Prefect's engine in a process of its own, as ``kontor run`` would with it."""
        return self._fork({"flow": flow, "parameters": parameters, "environment": dict(environment or {})})

    def run(self, *arguments: str, **environment: str) -> Ended:
        """Run ``kontor`` with these arguments to its end."""
        return self.start(*arguments, **environment).wait()

    def _fork(self, request: Mapping[str, Any]) -> Child:
        self._count += 1
        output = self._folder / f"said-{self._process.pid}-{self._count}.txt"
        begun = time.monotonic()
        answer = self.ask({**request, "output": str(output)})
        return Child(self, int(answer["pid"]), output, begun)

    def ask(self, request: Mapping[str, Any]) -> Any:
        """Send one request and return the answer."""
        if self._process.stdin is None or self._process.stdout is None:
            raise AssertionError("the nursery has no pipes")
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        """End the nursery and whatever child is left."""
        for child in psutil.Process(self._process.pid).children():
            with suppress(psutil.NoSuchProcess):
                child.kill()
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait(timeout=20)


@contextmanager
def nursery(environment: Mapping[str, str], folder: Path, standing: Path = ROOT) -> Iterator[Nursery]:
    """A nursery for a ``with`` block, whose children see this environment."""
    made = Nursery(environment, folder, standing)
    try:
        yield made
    finally:
        made.close()


def _messages(output: Path) -> Path:
    return output.with_suffix(".messages")


def _has_ended(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


# --- the nursery itself ---------------------------------------------------------------------------------------------


def _serve() -> int:
    """Answer requests until the other end closes the pipe, then end; a forked child returns its exit code."""
    answers = os.fdopen(os.dup(1), "w")
    for line in iter(sys.stdin.readline, ""):
        request = json.loads(line)
        if "reap" in request:
            answer = {"code": os.waitstatus_to_exitcode(os.waitpid(int(request["reap"]), 0)[1])}
        else:
            _foresee(request)
            pid = os.fork()
            if pid == 0:
                answers.close()
                return _be_a_command(request)
            answer = {"pid": pid}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
    os._exit(0)  # Prefect's farewell would wait for a server that may be gone; nothing of this process needs it


def _be_a_command(request: Mapping[str, Any]) -> int:
    nothing = os.open(os.devnull, os.O_RDONLY)
    output, messages = (
        os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        for path in (request["output"], _messages(Path(request["output"])))
    )
    for source, target in ((nothing, 0), (output, 1), (messages, 2)):
        os.dup2(source, target)
    os.environ.update(request["environment"])
    os.chdir(request.get("folder", ROOT))
    if "flow" in request:
        code = _be_a_flow(request["flow"], request["parameters"])
        sys.stdout.flush()
        os._exit(code)  # Prefect's farewell takes longer than the work, and it was not there
    from flows.cli import main

    return main(request["arguments"])


# What is counted: the work, the database driver and the mail connection, not what only leads there.
_COUNTED = ("/tasks/", "/psycopg/")
_COUNTED_OF_REMINDERS = ("/tasks/reminders/", "/tasks/mail", "/tasks/ledger.py", "/psycopg/", "/emails/", "/smtplib.py")


def _end_at_step(flow: str, last: int) -> Callable[[], int]:
    """Have this process kill itself at a step: the so-manieth call or return, of C functions too, in such code.

    Returns what says how many it has taken so far; with 0 it takes them all.
    """
    parts = _COUNTED_OF_REMINDERS if flow == "overdue_reminders" else _COUNTED
    counted: dict[str, bool] = {}
    taken = 0

    def count(frame: FrameType, _event: str, _argument: object) -> None:
        nonlocal taken
        name = frame.f_code.co_filename
        if name not in counted:
            counted[name] = any(part in name for part in parts)
        if counted[name]:
            taken += 1
            if taken == last:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.setprofile(count)
    return lambda: taken


def _be_a_flow(name: str, parameters: Mapping[str, Any]) -> int:
    """What ``kontor run`` does, but for Prefect's engine: the steps are called as the functions that they are."""
    import importlib

    from prefect import Task
    from pydantic import BaseModel

    from configs.settings import load_settings
    from flows.commands.running import given_instruction, parameters_model
    from tasks.errors import KontorError
    from tasks.stack import ensure_database

    def call(step: Task[..., Any], *args: Any, **kwargs: Any) -> Any:
        return step.fn(*args, **kwargs)

    Task.__call__ = call  # type: ignore[method-assign,assignment]
    model = parameters_model(name)
    own: type[BaseModel] | None = getattr(model, "instructions", None)
    words = own.model_fields if own is not None else {}
    rest = {key: value for key, value in parameters.items() if key not in words}
    try:
        settings = load_settings()
        steps_taken, last_step = None, os.environ.get("KONTOR_TEST_LAST_STEP")
        if last_step is None:
            ensure_database(settings, print)
        else:  # whoever asks for this has seen to the database, a hundred times a minute
            steps_taken = _end_at_step(name, int(last_step))
        instruction: dict[str, Any] = {}
        if own is not None:
            said = own(**{key: value for key, value in parameters.items() if key in words})
            instruction = {"instruction": given_instruction(settings, name, said)}
        getattr(importlib.import_module(f"flows.{name}"), name).fn(model(**rest, **instruction))
        if steps_taken is not None:
            print(f"steps: {steps_taken()}")
    except KontorError as error:
        print(f"{type(error).__name__}: {error.message}")
        return error.exit_code
    return 0


def _load() -> None:
    import importlib

    import typer.main

    # What a run of a flow would load on its way; Prefect reads its settings here, from the nursery's environment.
    flows = sorted(path.stem for path in (ROOT / "flows").glob("[a-z]*.py"))
    for module in ("prefect.main", "fastapi", *(f"flows.{name}" for name in flows), "tasks.stack", "alembic.context"):
        importlib.import_module(module)
    from flows.cli import app
    from tasks.feeds.contracts import list_contracts, load_contract

    for contract in list_contracts():
        load_contract(contract.path)
    known = functools.cache(typer.main.get_command)  # the commands are the same in every child
    typer.main.get_command = known
    known(app)


def _foresee(request: Mapping[str, Any]) -> None:
    """Load what this child would load first: Great Expectations takes longer than any of its tests, and few need it."""
    if any("data_quality" in word for word in (request.get("flow", ""), *request.get("arguments", ()))):
        import great_expectations.expectations  # noqa: F401


if __name__ == "__main__":
    _load()
    sys.exit(_serve())
