"""The `kontor` command: puts the commands together and turns errors into messages and exit codes, nothing more.

Exit codes: 0 done, 1 a bug, 2 usage, 3 refused by a guard or rule, 4 bad input, 5 a dependency is down, 6 partly done,
130 interrupted.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from flows.commands import (
    backfill,
    demo,
    deploying,
    duplicates,
    erase,
    feeds,
    history,
    metrics,
    outbox,
    quality_sheet,
    quarantine,
    reading,
    retention,
    rules,
    servers,
    standing,
    status,
    taking_in,
)
from flows.commands.backup import backup
from flows.commands.screen import (
    close_output,
    give_output_up,
    interrupted,
    output_is_full,
    show_bug,
    show_error,
    tell_what_cannot_be_encoded,
)
from tasks.garbage import collect_seldom

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Kontor: who owes what, who pays well, and what could not be read. Start with `kontor demo`.",
)

FIRST, FILES, ANSWERS, WORK = "To begin with", "Files that come in", "What the database says", "Running"
REMINDING = "Reminding"

app.command(rich_help_panel=FIRST)(demo.demo)
app.command(rich_help_panel=FIRST)(status.status)
app.command("import", rich_help_panel=FILES)(taking_in.import_files)
app.add_typer(feeds.contracts, name="contracts", rich_help_panel=FILES)
app.add_typer(quarantine.quarantine, name="quarantine", rich_help_panel=FILES)
app.command(rich_help_panel=ANSWERS)(reading.report)
app.add_typer(reading.payer_class, name="payer-class", rich_help_panel=ANSWERS)
app.add_typer(history.history, name="history", rich_help_panel=ANSWERS)
app.add_typer(quality_sheet.quality, name="quality", rich_help_panel=ANSWERS)
app.add_typer(duplicates.duplicates, name="duplicates", rich_help_panel=ANSWERS)
app.add_typer(retention.retention, name="retention", rich_help_panel=WORK)
app.add_typer(outbox.reminders, name="reminders", rich_help_panel=REMINDING)
app.add_typer(rules.rules, name="rules", rich_help_panel=REMINDING)
app.command(rich_help_panel=WORK)(erase.erase)
app.add_typer(erase.subject, name="subject", rich_help_panel=WORK)
app.command(rich_help_panel=WORK)(taking_in.run)
app.command(rich_help_panel=WORK)(standing.up)
app.add_typer(backup, name="backup", rich_help_panel=WORK)
app.command(rich_help_panel=WORK)(servers.down)
app.command(rich_help_panel=WORK)(deploying.deploy)
app.command(rich_help_panel=WORK)(metrics.metrics)
app.add_typer(backfill.backfill, name="backfill", rich_help_panel=WORK)
app.add_typer(servers.db, name="db", rich_help_panel=WORK)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"kontor {version('kontor')}")
        raise typer.Exit


@app.callback()
def _root(
    _: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """Options before the command."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that the arguments name (default: the process's own) and return its exit code."""
    from tasks.errors import KontorError

    collect_seldom()
    tell_what_cannot_be_encoded()
    try:
        app(arguments, prog_name="kontor")
    except SystemExit as ended:
        return close_output(ended.code if isinstance(ended.code, int) else int(ended.code is not None))
    except KeyboardInterrupt:
        return 130
    except KontorError as error:
        show_error(error)
        return error.exit_code
    except Exception as error:  # noqa: BLE001  the one place where anything is caught: nothing of it may be shown
        if interrupted(error):
            return 130
        if output_is_full(error):
            return give_output_up(error)
        show_bug(error)
        return 1
    return close_output(0)


if __name__ == "__main__":
    sys.exit(main())
