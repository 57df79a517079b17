"""`kontor erase` and `kontor subject`: one person's data, to be erased everywhere or to be handed over."""

from __future__ import annotations

import getpass
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.commands.retention import print_rows
from flows.commands.screen import ListFormat, out, say, settings_in_force, today_in

if TYPE_CHECKING:
    from tasks.retention.requests_store import Erasure, Findings, Office

subject = typer.Typer(no_args_is_help=True, help="What is kept about one person.")

Subject = Annotated[str, typer.Argument(help="An e-mail address, a contact's external id, or a customer number.")]
By = Annotated[str | None, typer.Option("--by", metavar="NAME", help="Who, on a shared account; default the account.")]


def _office() -> Office:
    from tasks.database import RETENTION, engine_for
    from tasks.erasures.keys import key_of
    from tasks.erasures.ledger_file import ledger_of
    from tasks.retention.requests_store import Office
    from tasks.stack import ensure_database

    settings = settings_in_force()
    ensure_database(settings, say)
    engine = engine_for(settings, RETENTION, purpose="kontor erase")
    return Office(settings, engine, ledger_of(settings.home), key_of(settings.home))


def erase(
    person: Subject,
    reason: Annotated[str, typer.Option("--reason", help="What was asked and when; it is kept.")] = "",
    live: Annotated[bool, typer.Option("--live", help="Really erase; without it the findings are only shown.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask again.")] = False,
    by: By = None,
) -> None:
    """Find a person everywhere, show it, ask, erase, look again, and write a certificate.

    Their records, notes, quarantined rows, mail, history, files and Prefect's database. Not while a legal hold stands.
    """
    from tasks.errors import PartlyDone, UsageError
    from tasks.retention.requests_store import check_holds, find_everywhere

    office = _office()
    whom, found = find_everywhere(office, person)
    _show(found)
    check_holds(whom)
    if not live:
        out().print("Nothing was erased. To erase all of it: the same command with --live --reason …")
        return
    if not reason.strip():
        raise UsageError("Somebody is erased without a reason.", hint="Add --reason 'asked by letter of …'.")
    if not yes and not typer.confirm("Erase all of this? It cannot be brought back"):
        raise typer.Abort
    done = _erase(office, person, reason, by or getpass.getuser())
    path = _certificate(office, done)
    out().print(f"Certificate: {path}")
    if done.left:
        raise PartlyDone(
            "Not everything could be erased; the certificate lists what is left.",
            hint="Look at each place by hand, then run the same command again.",
        )


def _show(found: Findings) -> None:
    counts = found.counts()
    print_rows([{"where": place, "found": count} for place, count in counts.items()], ListFormat.table)


def _erase(office: Office, person: str, reason: str, author: str) -> Erasure:
    from tasks.database import engine_for
    from tasks.ledger import open_run
    from tasks.retention.requests_store import erase_person, find_everywhere

    flows = engine_for(office.settings, purpose="kontor erase")
    today = today_in(office.settings)
    with open_run(flows, "erase", as_of=today, dry_run=False, prefect_run_id=None, actor=author) as run:
        whom, found = find_everywhere(office, person)
        done = erase_person(
            office,
            whom,
            found,
            reason=reason,
            author=author,
            run_id=run.run_id,
            now=datetime.now(UTC),
        )
        run.note({"erased": sum(done.erased.values()), "left": sum(done.left.values())})
    return done


def _certificate(office: Office, done: Erasure) -> Path:
    from tasks.retention.certificate import certificate_page

    return _write(
        office.settings.home / "certificates" / f"erasure-{done.reference}.html",
        certificate_page(
            reference=str(done.reference),
            received_at=done.at,
            erased=done.erased,
            left=done.left,
            exceptions=done.exceptions,
            backups_expire_on=done.backups_expire_on,
            ledger_lines=done.ledger_lines,
        ),
    )


def _write(path: Path, text: str) -> Path:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.part")
    partial.write_text(text, encoding="utf-8")
    partial.chmod(0o600)
    partial.replace(path)
    return path


@subject.command("export")
def export(
    person: Subject,
    to: Annotated[Path, typer.Option("--out", help="Folder for data.json and data.html.", file_okay=False)],
) -> None:
    """Write everything that is kept about a person, and why: data.json for machines, data.html to read.

    Rows by table, the files that speak of them, and of each table purpose, legal basis and period (GDPR Art. 15, 20).
    """
    from tasks.erasures.egress_store import log_egress
    from tasks.retention.certificate import data_page
    from tasks.retention.people_store import find_person, read_everything
    from tasks.retention.plan_store import read_policies
    from tasks.retention.policies import purposes_of

    office, now = _office(), datetime.now(UTC)
    with office.engine.begin() as connection:
        whom = find_person(connection, person, office.key)
        tables = read_everything(connection, whom, office.settings.home)
        policies = read_policies(connection, today_in(office.settings))
        tables["purposes"] = purposes_of(policies, tables)
        columns = sorted({f"{table}.*" for table in tables})
        rows = sum(map(len, tables.values()))
        log_egress(
            connection, what="subject export", form="json", rows=rows, columns=columns, actor=getpass.getuser(), now=now
        )
    data = _write(to / "data.json", json.dumps(tables, ensure_ascii=False, indent=2, default=str) + "\n")
    _write(to / "data.html", data_page(tables, at=now))
    out().print(f"{rows} rows of {len(tables)} tables: {data} and data.html beside it.")
