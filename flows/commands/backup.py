"""`kontor backup`: what there is, whether it restores, and the way back. What replaces or deletes takes --live."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.commands.screen import AsList, ListFormat, out, say, settings_in_force

if TYPE_CHECKING:
    from configs.settings import Settings
    from tasks.backups.catalogue import Catalogue
    from tasks.backups.engine import Engine
    from tasks.backups.operating import Prospect
    from tasks.backups.restoring import Released

backup = typer.Typer(no_args_is_help=True, help="Backups: what there is, whether it restores, and the way back.")
keys = typer.Typer(no_args_is_help=True, help="The keys: who can read backups, and who made them.")
backup.add_typer(keys, name="keys")

Label = Annotated[str | None, typer.Argument(metavar="[LABEL]", help="Which backup; default: the newest good one.")]
Live = Annotated[bool, typer.Option("--live", help="Do it; without this only say what would be done.")]
COLUMNS = ("label", "kind", "good", "point_at", "stored_bytes", "checked_at", "restore_seconds", "failed_checks")


def _open() -> tuple[Settings, Engine, Catalogue]:
    from tasks.backups.runs import open_engine, survey

    settings = settings_in_force()
    engine = open_engine(settings)
    return settings, engine, survey(engine)


@backup.command("list")
def list_backups(form: AsList = ListFormat.table) -> None:
    """List the backups on the target, oldest first, and which of them are known to restore. Needs no database."""
    _, _, catalogue = _open()
    rows = _rows(catalogue)
    if form is ListFormat.json:
        out().file.write(json.dumps(rows, ensure_ascii=False, indent=2) + "\n")
        return
    _print_rows(rows, catalogue)


def _rows(catalogue: Catalogue) -> list[dict[str, Any]]:
    good = catalogue.good()
    rows = []
    for manifest in catalogue.backups:
        verdict = catalogue.verdicts.get(manifest.label)
        failed = [finding.name for finding in verdict.findings if not finding.passed] if verdict else []
        rows.append(
            {
                "label": manifest.label,
                "kind": manifest.kind,
                "base_label": manifest.base_label,
                "engine": manifest.engine,
                "state": "done",
                "good": manifest.label in good,
                "started_at": manifest.started_at,
                "ended_at": manifest.ended_at,
                "point_at": manifest.point_at,
                "source_bytes": manifest.source_bytes,
                "stored_bytes": manifest.stored_bytes,
                "check_state": None if verdict is None else "passed" if verdict.passed else "failed",
                "checked_at": verdict.checked_at if verdict else None,
                "restore_seconds": str(verdict.restore_seconds) if verdict else None,
                "failed_checks": failed,
            }
        )
    return rows


def _print_rows(rows: list[dict[str, Any]], catalogue: Catalogue) -> None:
    from tasks.artifacts import cell_text
    from tasks.reports.terminal import print_table

    console = out()
    if rows:
        cells = [[_cell(name, row[name], cell_text) for name in COLUMNS] for row in rows]
        right = [name in ("stored_bytes", "restore_seconds") for name in COLUMNS]
        print_table(console, [name.replace("_", " ") for name in COLUMNS], cells, right)
    else:
        console.print("There is no backup yet: kontor run backup")
    for label in catalogue.damaged:
        console.print(f"DAMAGED  {label}: its manifest is not what was signed; look at the target's disk")
    for label in catalogue.leftovers:
        console.print(f"UNFINISHED  {label}: was never completed; the next backup removes it")


def _cell(name: str, value: Any, cell_text: Any) -> str:
    if name.endswith("_at"):
        return str(value)[:16].replace("T", " ") if value else "never"
    if name == "failed_checks":
        return ", ".join(value)
    return str(cell_text(value))


@backup.command("verify")
def verify(
    label: Label = None,
    planted: Annotated[str | None, typer.Option(help="Which fault to plant; default: one by chance.")] = None,
    digests: Annotated[bool, typer.Option("--digests", help="Compare digests only: quick, needs no key.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show Prefect's log too.")] = False,
) -> None:
    """Restore a backup to a scratch server, look at everything, and write the verdict down; exit code 4 if it fails.

    The same as `kontor run restore_check`. With --digests nothing is restored and nothing written.
    """
    if digests:
        _verify_digests(label)
        return
    from flows.commands.running import flows_ready, run_flow
    from tasks.backups.parameters import CheckParameters

    settings = settings_in_force()
    with flows_ready(settings, verbose=verbose):
        finished = run_flow(settings, "restore_check", CheckParameters(label=label, planted=planted))
    if finished.error is not None:
        raise finished.error
    _, _, catalogue = _open()
    verdict = catalogue.verdicts[label or catalogue.backups[-1].label]
    for finding in verdict.findings:
        out().print(f"right    {finding.name:<14} {finding.said}")
    out().print(f"right    {'planted fault':<14} {verdict.planted} was caught")
    out().print(
        f"{verdict.label} restores: {verdict.restore_seconds:.1f} s, {verdict.total_seconds:.1f} s with all looks."
    )


def _verify_digests(label: str | None) -> None:
    from tasks.backups.checking import check_digests
    from tasks.errors import BadInput, UsageError

    _, engine, catalogue = _open()
    if not catalogue.backups:
        raise UsageError("There is no backup yet.", hint="Make one: `kontor run backup`.")
    chain = catalogue.chain(label or catalogue.backups[-1].label)
    found, store = check_digests(engine, chain), engine.look_at_store()
    for finding in (found, store):
        if finding is not None and not finding.passed:
            raise BadInput(f"{chain[-1].label} is damaged: {finding.said}", hint="Take another backup now.")
    out().print(f"{chain[-1].label}: {found.said}. Whether it restores is another question: kontor backup verify")


@backup.command("restore")
def restore(
    label: Label = None,
    to: Annotated[
        str | None,
        typer.Option(
            "--to", metavar="INSTANT", help="Recover to this instant, such as 2026-03-01T14:30+02:00, or latest."
        ),
    ] = None,
    into: Annotated[
        str | None,
        typer.Option(
            "--into",
            metavar="DIR|URL",
            help="A new KONTOR_HOME, or postgresql://… of an empty database; default: over the present home.",
        ),
    ] = None,
    live: Live = False,
) -> None:
    """Restore a backup into a new home or an empty database, or over this home with the former one kept beside it.

    Says first what would be done, from what, how long it takes and what will be lost; --live does it. Afterwards nobody
    is let in until the erasure ledger was applied again; mails that were waiting are held back.
    """
    from tasks.backups.handing_over import address_of, hand_over, look_at, scratch_of
    from tasks.backups.operating import carry_out, foresee

    settings, engine, catalogue = _open()
    address = address_of(into) if into else None
    home = scratch_of(settings) if address else Path(into).resolve() if into else None
    prospect = foresee(settings, catalogue, label, _instant(to), home, latest=to == "latest")
    if address:
        look_at(address, prospect.wanted.newest.server_version)
    _tell(prospect, f"the empty database {address.database} of {address.host or 'this machine'}" if address else None)
    if not live:
        out().print("This was a dry run: nothing was changed. Do it with --live.")
        return
    if address:
        done = hand_over(settings, engine, catalogue, prospect, address, say)
        _tell_released(done.released)
        out().print(f"{done.tables} tables with {done.rows:,} rows are there, each compared.")
        return
    restored, released = carry_out(settings, engine, catalogue, prospect, say)
    out().print(f"Restored in {restored.seconds:.1f} s.")
    if restored.former is not None:
        out().print(f"The former database is kept: {restored.former}")
    _tell_released(released)


def _instant(text: str | None) -> datetime | None:
    if text is None or text == "latest":
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is not an instant such as 2026-03-01T14:30+02:00", param_hint="--to"
        ) from None
    if found.tzinfo is None:
        raise typer.BadParameter("an instant needs its zone, such as +02:00 or Z", param_hint="--to")
    return found.astimezone(UTC)


def _tell(prospect: Prospect, where: str | None) -> None:
    console = out()
    newest = prospect.wanted.newest
    console.print(f"Backup      {newest.label}, {'proven' if prospect.good else 'NOT PROVEN to restore'}")
    if len(prospect.wanted.chain) > 1:
        console.print(f"Built on    {', '.join(m.label for m in prospect.wanted.chain[:-1])}")
    console.print(f"Goes to     {prospect.to.isoformat(timespec='seconds')}")
    replaced = ", over the database there" if prospect.replaces else ""
    console.print(f"Into        {where or f'{prospect.home}{replaced}'}")
    took = f"{prospect.seconds:.0f} s when it was last tried" if prospect.seconds else "not measured yet"
    console.print(f"Takes       {took}; {prospect.plain_bytes / 1e6:,.0f} MB of disk")
    if prospect.lost:
        lost = ", ".join(f"{count:,} {name}" for name, count in prospect.lost.items())
        console.print(f"Will lose   what came after: {lost}")


def _tell_released(released: Released) -> None:
    console = out()
    subjects = released.erased.get("subjects", 0)
    console.print(f"Erasures    {subjects:,} erased subjects were applied again")
    console.print(f"Sequences   {released.sequences:,} set past every number that may have been used since")
    console.print(f"Mails       {released.held_mails:,} that were waiting are held until a person releases them")
    console.print("The database is open.")


@backup.command("release")
def release(
    into: Annotated[Path | None, typer.Option("--into", metavar="DIR", help="The restored KONTOR_HOME.")] = None,
) -> None:
    """Finish a restore that was interrupted: apply erasures, set sequences, hold mails back, and open the database."""
    from tasks.backups.operating import open_restored

    settings, engine, catalogue = _open()
    home = into.resolve() if into else settings.home
    there = settings.model_copy(update={"home": home})
    _tell_released(open_restored(there, engine, catalogue, origin=settings.home))


@backup.command("prune")
def prune(live: Live = False) -> None:
    """Say which backups the rule no longer keeps and why the others stay; --live deletes them."""
    from tasks.backups.runs import one_at_a_time, policy_on, prune_plan
    from tasks.backups.runs import prune as delete
    from tasks.database import engine_for
    from tasks.stack import ensure_database

    settings, engine, _ = _open()
    ensure_database(settings, say)
    now = datetime.now(UTC)
    database = engine_for(settings, purpose="kontor backup prune")
    with database.begin() as connection:
        policy = policy_on(connection, now.date())
    with one_at_a_time(database):
        plan = prune_plan(database, engine, policy, now)
        for label, reasons in sorted(plan.stays.items()):
            out().print(f"stays  {label}  {', '.join(reasons)}")
        for label in plan.goes:
            out().print(f"goes   {label}")
        if live:
            gone = delete(database, engine, policy, now, live=True)
            out().print(f"{len(gone)} deleted.")
        elif plan.goes:
            out().print("This was a dry run: nothing was deleted. Do it with --live.")


@backup.command("setup")
def setup(
    repository: Annotated[
        Path | None, typer.Option("--repository", metavar="DIR", help="Where pgBackRest keeps backups and WAL.")
    ] = None,
    live: Live = False,
) -> None:
    """Prepare pgBackRest for a database of your own: its configuration, its stanza, and a try of the whole way.

    For KONTOR_BACKUP_ENGINE=pgbackrest. Harmless to repeat: what is there is looked at and not replaced.
    """
    from tasks.backups.pgbackrest_setup import set_up

    driver = set_up(settings_in_force(), repository.resolve() if repository else None, say, live=live)
    out().print(f"Configuration    {driver.config}")
    out().print(f"archive_command  {driver.archive_command}")
    if not live:
        out().print("This was a dry run: nothing was changed. Do it with --live.")


@backup.command("drill")
def drill(
    identity: Annotated[Path, typer.Option("--identity", exists=True, dir_okay=False, help="The escrow copy to try.")],
) -> None:
    """Restore the newest backup with the escrow copy of the key, on a scratch server, and time it.

    Proves that the copy which lies in the safe reads today's backups. Needs no running database and changes none.
    """
    from tasks.backups.checking import check_backup
    from tasks.backups.runs import open_engine
    from tasks.errors import BadInput, UsageError

    settings, _, catalogue = _open()
    if not catalogue.backups:
        raise UsageError("There is no backup to try the key on.", hint="Make one: `kontor run backup`.")
    tried = open_engine(settings.model_copy(update={"backup_identity": identity.resolve()}))
    verdict = check_backup(tried, catalogue, catalogue.backups[-1].label, now=datetime.now(UTC), progress=say)
    if not verdict.passed:
        wrong = "; ".join(f"{f.name}: {f.said}" for f in verdict.findings if not f.passed)
        raise BadInput(f"The drill failed: {wrong}", hint="See docs/runbooks/backup.md.")
    out().print(
        f"The key in {identity.name} reads {verdict.label}; it was restored in {verdict.restore_seconds:.1f} s"
        f" and right in {len(verdict.findings)} looks."
    )


# --- keys -------------------------------------------------------------------------------------------------------------


def _ring() -> Any:
    from tasks.backups.keys import keyring

    settings = settings_in_force()
    return keyring(settings.home, settings.backup_identity)


@keys.command("init")
def init_keys() -> None:
    """Make the keys where there are none; the first backup does it by itself."""
    from tasks.backups.keys import ensure_keys

    ring = _ring()
    if ensure_keys(ring):
        out().print(f"Made. The private key is in {ring.identity} and nowhere else:")
        out().print("copy it to a place that outlives this machine: kontor backup keys escrow --out FILE")
    else:
        out().print("The keys are there already.")


@keys.command("show")
def show_keys() -> None:
    """Show the public keys, and whether the private one is on this machine."""
    from tasks.backups.keys import SIGNERS, public_lines

    ring = _ring()
    for line in public_lines(ring):
        out().print(f"reads    {line}")
    signers = ring.folder / SIGNERS
    for line in signers.read_text("utf-8").splitlines() if signers.exists() else []:
        out().print(f"signs    {line}")
    out().print(f"private  {ring.identity if ring.identity.exists() else 'not on this machine'}")


@keys.command("escrow")
def escrow(
    to: Annotated[Path, typer.Option("--out", metavar="FILE", dir_okay=False, help="Where the copy goes.")],
) -> None:
    """Copy the private keys to a file, read them back, and say what to do with it."""
    from tasks.backups.keys import copy_for_escrow

    count = copy_for_escrow(_ring(), to.resolve())
    out().print(f"{to}: {count} private keys, read back. Whoever has this file reads every backup: lock it away.")
    out().print("Try it from time to time: kontor backup drill --identity FILE")


@keys.command("rotate")
def rotate() -> None:
    """Make a new key for new backups; the former private keys stay, because older backups need them."""
    from tasks.backups.keys import ensure_keys, new_identity

    ring = _ring()
    ensure_keys(ring)
    out().print(f"New backups are for {new_identity(ring)}.")
    out().print(
        "The next backup should be a full one; then renew the escrow copy: kontor backup keys escrow --out FILE"
    )
