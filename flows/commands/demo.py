"""`kontor demo`: a made-up distributor's autumn, through the real flows, in a home of its own."""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.commands.demo_reminders import remind
from flows.commands.screen import out, say, settings_in_force, today_in

if TYPE_CHECKING:
    from rich.text import Text

    from configs.settings import Settings
    from flows.commands.running import Finished
    from tasks.demo.generate import DemoFile

_QUARANTINE_LINES = 6


def demo() -> None:
    """See it all on a made-up company: a year of receivables through the real flows, reminders, then who owes what.

    Everything happens in a home of its own, .kontor/demo unless KONTOR_HOME is set; each demo begins anew there.
    """
    from tasks.demo.ledger import MONDAYS
    from tasks.demo.names import COMPANY

    began = time.monotonic()
    settings = _demo_settings()
    last = MONDAYS[-1]
    _check_clock(settings, last)
    console = out()
    console.print(
        f"Kontor demo: {COMPANY}, a made-up distributor in Sofia with customers in five countries.", style="bold"
    )
    console.print(f"Its home is {settings.home}; no other home is touched.\n")
    with _only_one(settings.home):
        files = _begin_anew(settings)
        _play(settings, files)
        remind(settings, last)
    _closing_screen(settings, last)
    console.print(f"\nThis took {time.monotonic() - began:.0f} seconds.", style="dim")


# --- a home of its own ------------------------------------------------------------------------------------------------


def _demo_settings() -> Settings:
    """The settings of the demo: in KONTOR_HOME if a person set it, else beside the real home, never in it.

    Raises:
        Refused: a database of one's own is set, or the home holds one that no demo made.
    """
    from tasks.errors import Refused

    settings = settings_in_force()
    if settings.database_url is not None:
        raise Refused(
            "KONTOR_DATABASE_URL is set; the demo would fill that database with made-up customers. Nothing was done.",
            hint="Unset it (also in .env): the demo brings a database of its own.",
        )
    if "home" not in settings.model_fields_set:
        os.environ["KONTOR_HOME"] = str(settings.home / "demo")
        settings = settings_in_force()
    if (settings.home / "postgres" / "data").exists() and not _files_folder(settings).is_dir():
        raise Refused(
            f"{settings.home} holds a database that no demo made. Nothing was done.",
            hint="Unset KONTOR_HOME, or set it to an empty folder.",
        )
    return settings


def _files_folder(settings: Settings) -> Path:
    """Where the demo's files are written; that it is there marks the home as a demo's."""
    return settings.home / "demo"


def _check_clock(settings: Settings, last: date) -> None:
    from tasks.errors import Refused

    today = today_in(settings)
    if today < last:
        raise Refused(
            f"The demo's last file is of {last}, and today is {today} by this machine's clock: Kontor takes no file"
            " from the future. Nothing was done.",
            hint="Set the machine's clock.",
        )


@contextmanager
def _only_one(home: Path) -> Iterator[None]:
    """Hold the demo's lock for a ``with`` block; it dies with the process."""
    import fcntl

    from tasks.errors import Locked

    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (home / "demo.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Locked(
                f"Another demo is running in {home}.", holder="kontor demo", hint="Wait for it to end."
            ) from None
        yield


def _begin_anew(settings: Settings) -> tuple[DemoFile, ...]:
    """An empty database and the demo's files; what an earlier demo left is removed, Prefect's server may go on."""
    from tasks.demo.generate import write_demo
    from tasks.stack import drop_database, ensure_database, ensure_prefect

    folder = _files_folder(settings)
    shutil.rmtree(settings.home / "archive", ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)  # first of all: from here on this home is a demo's
    drop_database(settings, say)
    ensure_database(settings, say)
    # Prefect's server takes its seconds to start: meanwhile the files are written and libraries are loaded.
    failures: list[BaseException] = []
    starting = threading.Thread(target=_collecting(failures, lambda: ensure_prefect(settings, say)))
    starting.start()
    shutil.rmtree(folder)
    files = write_demo(folder).files
    import tasks.feeds.intake
    import tasks.payments.store  # noqa: F401

    starting.join()
    if failures:
        raise failures[0]
    return files


def _collecting(failures: list[BaseException], work: Any) -> Any:
    def run() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001  raised again where it is awaited
            failures.append(error)

    return run


# --- the play ---------------------------------------------------------------------------------------------------------


def _play(settings: Settings, files: tuple[DemoFile, ...]) -> None:
    """Take the files in one after another, in the order in which they arrive, and say what becomes of each."""
    from flows.commands.running import FLOW_OF_FEED, flows_ready, given_instruction, run_flow
    from tasks.feeds.parameters import FeedInstruction, FeedParameters

    with flows_ready(settings):
        from tasks.steps import without_heartbeat

        out().print(f"{len(files)} files arrive, and each goes through its flow:\n")
        with without_heartbeat():
            for file in files:
                flow = FLOW_OF_FEED[file.contract]
                # Names and titles say the day; only the customers' own files do not.
                day = file.as_of if flow == "customer_import" else None
                said = FeedInstruction(files=(str(file.path),), contract=file.contract)
                given = FeedParameters(file_as_of=day, instruction=given_instruction(settings, flow, said))
                finished = run_flow(settings, flow, given, [file.path])
                _tell(file, finished)
                if finished.error is not None:
                    raise finished.error


_WORDS = (
    ("inserted", "new"), ("updated", "changed"), ("unchanged", "as before"), ("superseded", "older than what is known"),
    ("settled", "settled"), ("reopened", "reopened"), ("quarantined", "set aside"),
)  # fmt: skip


def _tell(file: DemoFile, finished: Finished) -> None:
    """One line for a file: what arrived, what became of its rows, what is special about it."""
    counts: Mapping[str, int] = finished.counts
    told = ", ".join(f"{counts[name]} {word}" for name, word in _WORDS if counts.get(name))
    if counts.get("files_known"):
        told = "known already by its content, nothing to do"
    if counts.get("replayed"):
        told += f"; {counts['replayed']} rows that had waited for them come back"
    remark = f"  ({file.remark})" if file.remark else ""
    out().print(f"  {file.path.name:<31}{told}{remark}")


# --- what one sees at the end -----------------------------------------------------------------------------------------


def _closing_screen(settings: Settings, last: date) -> None:
    from tasks.reports.store import read_report
    from tasks.stack import connected

    with connected(settings) as connection:
        aging = read_report(connection, "aging", as_of=last)
        classes = read_report(connection, "payer_classes", as_of=last)
        aside = read_report(connection, "quarantine", equal={"state": "open"})
        overdue = read_report(connection, "overdue_invoices", as_of=last)
    _print_owed(aging.records(), overdue.records(), last)
    _print_classes(classes.records())
    customer = _print_story(overdue.records(), classes.records())
    _print_aside(aside.records())
    _print_next(settings, last, customer)


def _print_owed(aging: list[dict[str, Any]], overdue: list[dict[str, Any]], last: date) -> None:
    from decimal import Decimal

    from tasks.artifacts import money
    from tasks.reports.terminal import print_table

    out().print(f"\nWho owes what on {last}", style="bold")
    rows: list[list[Text | str]] = []
    for currency in sorted({row["currency"] for row in aging}):
        owed = sum((row["total"] for row in aging if row["currency"] == currency), Decimal(0))
        late = [row for row in overdue if row["currency"] == currency]
        customers = {row["customer_number"] for row in late}
        sum_late = sum((row["open_amount"] for row in late), Decimal(0))
        oldest = max((row["days_overdue"] for row in late), default=0)
        rows.append(
            [money(owed, currency), money(sum_late, currency), str(len(late)), str(len(customers)), str(oldest)]
        )
    headings = ["open", "of which overdue", "invoices", "customers", "oldest, days"]
    print_table(out(), headings, rows, [True] * len(headings))


_MEANING = {
    "strict": "pay on time",
    "hesitant": "pay a little late",
    "disloyal": "pay very late or leave old debts",
    "unrated": "too little is known yet",
}


def _print_classes(classes: list[dict[str, Any]]) -> None:
    from tasks.reports.terminal import payer_text, print_table

    out().print("\nHow they pay", style="bold")
    rows: list[list[Text | str]] = [
        [payer_text(name), str(sum(row["payer_class"] == name for row in classes)), meaning]
        for name, meaning in _MEANING.items()
    ]
    print_table(out(), ["payer class", "customers", "they"], rows, [False, True, False])


def _print_story(overdue: list[dict[str, Any]], classes: list[dict[str, Any]]) -> str | None:
    """One red payer with an overdue invoice: what is owed and why the customer is red; returns the number."""
    from tasks.artifacts import money
    from tasks.reports.rows import printable

    red = [row for row in overdue if row["payer_class"] == "disloyal"]
    if not red:
        return None
    worst = max(red, key=lambda row: (row["days_overdue"], row["open_amount"]))
    number = str(worst["customer_number"])
    mine = [row for row in red if row["customer_number"] == number]
    why = next(row for row in classes if row["customer_number"] == number)
    out().print(f"\nOne of them: {number} {printable(worst['customer_name'])}", style="bold")
    for row in sorted(mine, key=lambda row: -row["days_overdue"])[:4]:
        amount = money(row["open_amount"], row["currency"])
        out().print(
            f"  invoice {row['invoice_number']}: {amount}, due {row['due_on']}, {row['days_overdue']} days late"
        )
    out().print(f"  red since {why['valid_from']}, because then: {printable(why['reason'])}")
    return number


def _print_aside(aside: list[dict[str, Any]]) -> None:
    from tasks.reports.rows import printable
    from tasks.reports.terminal import print_table

    rows_aside = {row["quarantined_row_id"] for row in aside}
    out().print(f"\nWhat could not be read: {len(rows_aside)} rows, each kept with its place and reason", style="bold")
    one_of_each = {row["code"]: row for row in reversed(aside)}
    rows: list[list[Text | str]] = [
        [row["file_name"], row["cell"] or "", printable(row["raw_value"] or ""), printable(row["reason"])]
        for row in list(one_of_each.values())[:_QUARANTINE_LINES]
    ]
    print_table(out(), ["file", "cell", "it says", "why it cannot be used"], rows, [False] * 4)


def _print_next(settings: Settings, last: date, customer: str | None) -> None:
    from tasks.prefect_server import find_prefect

    console = out()
    server = find_prefect(settings.home)
    console.print("\nSee every run with its steps and counts", style="bold")
    console.print(f"  {server.ui_url if server else os.environ.get('PREFECT_API_URL', '')}")
    console.print("\nTry next", style="bold")
    kontor = program()
    lines = [
        (f"export KONTOR_HOME={_shown(settings.home)}", "so that the commands below look at the demo"),
        (f"{kontor} report overdue-invoices --as-of {last}", "who is late"),
        (f"{kontor} report organization-card --customer {customer} --as-of {last}", "everything about one customer"),
        (f"{kontor} report reminders", "who was written to, and what became of it"),
        (f"{kontor} quarantine list", "every row that could not be used"),
        (f"{kontor} report aging --as-of {last} --out aging.xlsx", "for a spreadsheet"),
        (f"{kontor} status", "feeds, runs, quarantine at a glance"),
        (f"{kontor} down", "stop the servers; the data stay"),
    ]
    shown = [line for line in lines if customer is not None or "organization-card" not in line[0]]
    width = max(len(command) for command, _ in shown) + 3
    for command, meaning in shown:
        console.print(f"  {command:<{width}}{meaning}")


def program() -> str:
    """How this command is called from here: as typed if it is on the PATH, else by its path."""
    called = Path(sys.argv[0])
    found = shutil.which("kontor")
    if called.name != "kontor":
        return f"{_shown(Path(sys.executable))} -m flows.cli"
    if found and Path(found).resolve() == called.resolve():
        return "kontor"
    return _shown(called.absolute())


def _shown(path: Path) -> str:
    """The path as one would type it here: relative where it lies below, quoted where it must be."""
    import shlex

    below = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    return shlex.quote(str(below))
