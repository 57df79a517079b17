"""What every command prints with: results on stdout, everything else on stderr, bars and colours on terminals only."""

from __future__ import annotations

import io
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, date, datetime
from enum import StrEnum
from errno import EDQUOT, EFBIG, ENOSPC
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from zoneinfo import ZoneInfo

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from configs.settings import Settings
    from tasks.errors import KontorError


class Format(StrEnum):
    """How a listing is printed."""

    table = "table"
    csv = "csv"
    json = "json"
    xlsx = "xlsx"
    html = "html"


class ListFormat(StrEnum):
    """How a short listing is printed."""

    table = "table"
    json = "json"


def parse_day(text: str) -> date:
    """The day that a command's DATE means; typer reports what is wrong."""
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a day; expected YYYY-MM-DD, such as 2026-03-31.") from None


AsOf = Annotated[
    date | None, typer.Option("--as-of", parser=parse_day, metavar="DATE", help="The day to look at; default today.")
]
AsList = Annotated[ListFormat, typer.Option("--format", help="table for people, json for scripts.")]


def out() -> Console:
    """The console of results."""
    from rich.console import Console

    return Console(file=sys.stdout, highlight=False, emoji=False, markup=False, soft_wrap=not sys.stdout.isatty())


def err() -> Console:
    """The console of progress, notes and errors."""
    from rich.console import Console

    return Console(file=sys.stderr, highlight=False, emoji=False, markup=False, soft_wrap=not sys.stderr.isatty())


def say(line: str) -> None:
    """One line of progress on stderr."""
    err().print(line, style="dim")


def counted(number: int, word: str) -> str:
    """A number with its noun: "1 row", "2 rows"."""
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def settings_in_force() -> Settings:
    """The settings of this command."""
    from configs.settings import load_settings

    return load_settings()


def today_in(settings: Settings) -> date:
    """Today in the business time zone: here, at the edge, time comes in."""
    return datetime.now(ZoneInfo(settings.business_timezone)).date()


@contextmanager
def bar(title: str) -> Iterator[Callable[[int, int], None] | None]:
    """A progress bar on stderr for a ``with`` block, as a function of (done, total); None where nobody would see it."""
    console = err()
    if not console.is_terminal:
        yield None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(title, total=None)

        def change(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        yield change


def show_error(error: KontorError) -> None:
    """Print an error of ours: what happened, what to do, and for a transient one that nothing half-done remains."""
    from rich.text import Text

    console = err()
    console.print(Text.assemble(("kontor: ", "bold red"), error.message))
    if error.transient and "half-done" not in error.message and "rolled back" not in error.message:
        console.print("Nothing half-done remains; the same command can be run again.")
    if error.hint:
        console.print(Text.assemble(("what to do: ", "bold"), error.hint))


def interrupted(error: BaseException) -> bool:
    """Whether a person's Ctrl-C is behind the error: libraries turn it into errors of theirs on the way out."""
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, KeyboardInterrupt):
            return True
        link = link.__cause__ or link.__context__
    return False


def tell_what_cannot_be_encoded() -> None:
    """See to it that a terminal without the letter ж gets ``\\u0436`` in its place, and no command fails for it."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def output_is_full(error: BaseException) -> bool:
    """Whether the error is of the place that the output goes to: a full disk, or a device that takes nothing."""
    return isinstance(error, OSError) and error.filename is None and error.errno in (ENOSPC, EDQUOT, EFBIG)


def close_output(code: int) -> int:
    """The exit code, once everything printed has left this process; 5 where the place it goes to takes no more."""
    try:
        sys.stdout.flush()
    except OSError as error:
        if not output_is_full(error):
            raise
        return give_output_up(error)
    return code


def give_output_up(error: BaseException) -> int:
    """Say that the output cannot be written; returns the exit code of a dependency that is down."""
    # Python would try once more at its end, and complain in its own words.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    said = error.strerror if isinstance(error, OSError) else ""
    print(f"kontor: the output cannot be written: {said or 'no room'}.", file=sys.stderr)
    print("what to do: free space there, or send the output to another place.", file=sys.stderr)
    return 5


def show_bug(error: BaseException) -> None:
    """Print that a bug was met, without the error's text, which may quote data, and where the log of it is."""
    console = err()
    log = write_bug(error)
    console.print(f"kontor: an unexpected {type(error).__name__}; this is a bug in Kontor, not in what you did.")
    console.print(f"what to do: report it with {log}." if log else "what to do: run the command again with --verbose.")


def logs_folder() -> Path | None:
    """The folder of this installation's logs, made if absent; None where it cannot be made."""
    from configs.settings import load_settings
    from tasks.errors import UsageError

    with suppress(OSError, UsageError):
        folder = load_settings().home / "logs"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder
    return None


def write_bug(error: BaseException) -> Path | None:
    """Write where an error went through, cause by cause, to the log and return its path; texts are left out."""
    folder = logs_folder()
    if folder is None:
        return None
    lines = [f"{datetime.now(UTC).isoformat(timespec='seconds')} kontor {type(error).__name__}\n"]
    link: BaseException | None = error
    while link is not None:
        lines += [f"{type(link).__module__}.{type(link).__qualname__}\n", *traceback.format_tb(link.__traceback__)]
        link = link.__cause__ or link.__context__
    path = folder / "kontor.log"
    with suppress(OSError), path.open("a", encoding="utf-8") as log:
        log.writelines(lines)
        return path
    return None
