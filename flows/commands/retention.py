"""`kontor retention`: what may go and what must stay; a plan is made, looked at, agreed to, then carried out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from flows.commands.screen import AsList, AsOf, ListFormat, out, parse_day, say, settings_in_force, today_in

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from configs.settings import Settings
    from tasks.retention.planning import Plan

retention = typer.Typer(no_args_is_help=True, help="What personal data goes and when, what is held, and the proof.")

T = TypeVar("T")
Reason = Annotated[str, typer.Option("--reason", help="Why; it is kept.")]
By = Annotated[str | None, typer.Option("--by", metavar="NAME", help="Who, on a shared account; default the account.")]


def as_retention(work: Callable[[Connection, Settings], T]) -> T:
    """What ``work`` returns, in one transaction of the role that erases; the database is brought up if need be."""
    from tasks.database import RETENTION, engine_for
    from tasks.stack import ensure_database

    settings = settings_in_force()
    ensure_database(settings, say)
    with engine_for(settings, RETENTION, purpose="kontor retention").begin() as connection:
        return work(connection, settings)


def _actor(by: str | None) -> str:
    import getpass

    return by or getpass.getuser()


@retention.command("preview")
def preview(as_of: AsOf = None, form: AsList = ListFormat.table) -> None:
    """Make a plan: what each rule lets go of today, what is held, a few ids. Nothing is destroyed."""
    from flows.commands.running import flows_ready, parameters_model, run_flow

    settings = settings_in_force()
    with flows_ready(settings, verbose=False):
        finished = run_flow(settings, "retention_purge", parameters_model("retention_purge")(as_of=as_of))
    if finished.error is not None:
        raise finished.error
    _show_plan(_read(finished.counts["plan"]), form)


@retention.command("plan")
def show(
    plan: Annotated[int | None, typer.Argument(help="The plan's number; default the newest.")] = None,
    form: AsList = ListFormat.table,
) -> None:
    """Show a plan: what it lets go of by rule, and how far it was carried out."""
    _show_plan(_read(plan), form)


@retention.command("approve")
def approve(plan: Annotated[int, typer.Argument(help="The plan's number.")], by: By = None) -> None:
    """Agree to a plan that reaches so far that a second person must; it cannot be the one who made it."""
    from tasks.retention.plan_store import approve_plan

    approved = as_retention(lambda c, _: approve_plan(c, plan, by=_actor(by), now=datetime.now(UTC)))
    out().print(
        f"Plan {approved.plan_id} is approved: {approved.due:,} rows. Carry it out: kontor retention apply --live"
    )


@retention.command("apply")
def apply(
    plan: Annotated[int | None, typer.Argument(help="The plan's number; default the newest.")] = None,
    live: Annotated[bool, typer.Option("--live", help="Really destroy; without it the plan is only shown.")] = False,
) -> None:
    """Carry a plan out: what it lists goes for good, and from the history; what is held stays."""
    from flows.commands.running import flows_ready, parameters_model, run_flow

    if not live:
        _show_plan(_read(plan), ListFormat.table)
        out().print("Nothing was destroyed. To carry this plan out: kontor retention apply --live")
        return
    settings = settings_in_force()
    with flows_ready(settings, verbose=False):
        parameters = parameters_model("retention_purge")(dry_run=False, plan_id=plan)
        finished = run_flow(settings, "retention_purge", parameters)
    if "plan" in finished.counts:
        _show_plan(_read(finished.counts["plan"]), ListFormat.table)
    if finished.error is not None:
        raise finished.error


@retention.command("lint")
def check_rules(as_of: AsOf = None) -> None:
    """Check the rules: every personal column covered, nothing unreachable, no circle; exit code 3 otherwise."""
    from tasks.errors import Refused
    from tasks.retention.plan_store import read_policies, read_schema
    from tasks.retention.policies import lint

    def look(connection: Connection, settings: Settings) -> tuple[int, list[str]]:
        policies = read_policies(connection, as_of or today_in(settings))
        return len(policies), lint(policies, read_schema(connection))

    count, wrong = as_retention(look)
    if wrong:
        raise Refused(
            f"{len(wrong)} thing(s) are wrong with the {count} rules." + "".join(f"\n  - {line}" for line in wrong),
            hint="Correct the rules; configs/rules/retention_policy.csv shows how each is written.",
        )
    out().print(f"{count} rules are sound: every personal column has one, and each can apply.")


@retention.command("simulate")
def simulate(
    file: Annotated[
        Path | None, typer.Argument(exists=True, dir_okay=False, help="A CSV file of rules; default: the draft.")
    ] = None,
    as_of: AsOf = None,
    form: AsList = ListFormat.table,
) -> None:
    """Try candidate rules out: what would be due by them, more or less than by the rules in force. Keeps nothing."""
    from tasks.retention.plan_store import checked_rules
    from tasks.retention.trial_store import Trial, policies_of, try_out
    from tasks.rules import read_seeds
    from tasks.rules_store import fetch_draft, rule_table

    table = rule_table("retention_policy")

    def look(connection: Connection, settings: Settings) -> list[Trial]:
        today = today_in(settings)
        rules = checked_rules(connection, as_of=as_of or today, on=today, settings=settings)
        proposed = fetch_draft(connection, table).rows if file is None else read_seeds(file, table)
        return try_out(connection, rules, policies_of(proposed, rules.as_of))

    found = as_retention(look)
    changed = [trial for trial in found if trial.more or trial.due is None or trial.due_proposed is None]
    print_rows([{**asdict(trial), "more": trial.more} for trial in changed], form)
    if form is ListFormat.table:
        more = sum(max(trial.more, 0) for trial in found)
        fewer = sum(max(-trial.more, 0) for trial in found)
        out().print(f"{len(found)} rules tried: {more:,} rows more would be due, {fewer:,} fewer. Nothing was kept.")


@retention.command("hold")
def hold(
    subject: Annotated[str, typer.Argument(help="A customer number, or a contact's address or external id.")],
    case: Annotated[str, typer.Option("--case", help="The case that needs the data.")],
    reason: Reason,
    review_on: Annotated[
        date | None,
        typer.Option("--review-on", parser=parse_day, metavar="DATE", help="When to look again; default in 90 days."),
    ] = None,
    by: By = None,
) -> None:
    """Keep everything of a customer or contact, whatever is due, until the hold is released. Several may stand."""
    from tasks.erasures.ledger_file import ledger_of
    from tasks.retention.holds_store import find_subject, place_hold

    def place(connection: Connection, settings: Settings) -> int:
        entity, external_id = find_subject(connection, subject)
        return place_hold(
            connection,
            ledger_of(settings.home),
            entity=entity,
            subject=external_id,
            case_number=case,
            reason=reason,
            author=_actor(by),
            review_on=review_on or today_in(settings) + timedelta(days=90),
            now=datetime.now(UTC),
        )

    out().print(f"Hold {as_retention(place)} stands. To end it: kontor retention release NUMBER --reason …")


@retention.command("release")
def release(hold_id: Annotated[int, typer.Argument(help="The hold's number.")], reason: Reason, by: By = None) -> None:
    """End a hold; what was due meanwhile is in the next plan."""
    from tasks.erasures.ledger_file import ledger_of
    from tasks.retention.holds_store import release_hold

    as_retention(
        lambda c, settings: release_hold(
            c, ledger_of(settings.home), hold_id, by=_actor(by), reason=reason, now=datetime.now(UTC)
        )
    )
    out().print(f"Hold {hold_id} is released. What was due is in the next plan: kontor retention preview")


@retention.command("holds")
def holds(
    every: Annotated[bool, typer.Option("--all", help="Released ones too.")] = False, form: AsList = ListFormat.table
) -> None:
    """List the holds that stand, those to be reviewed first."""
    from sqlalchemy import text

    statement = text(
        "select hold_id, case_number, entity, subject::text, reason, author, placed_at, review_on, released_at"
        " from ops.legal_holds where :every or released_at is null order by review_on, hold_id"
    )
    rows = as_retention(lambda c, _: [dict(row) for row in c.execute(statement, {"every": every}).mappings()])
    print_rows(rows, form)


@retention.command("evidence")
def evidence(form: AsList = ListFormat.table) -> None:
    """Show what is due, held, overdue and gone by rule, and that the erasure ledger and its copy agree.

    Ends with 3 where the copy in the database has lines that the ledger does not have.
    """
    from sqlalchemy import text

    from tasks.erasures.ledger_file import ledger_of
    from tasks.errors import Refused

    def look(connection: Connection, settings: Settings) -> tuple[list[dict[str, object]], int, int]:
        columns = "rule_id, entity, action, open_through, closed_through, due, held, overdue, done"
        rows = connection.execute(text(f"select {columns} from report.retention")).mappings()  # noqa: S608
        copied = connection.execute(text("select sequence, line_sha256 from ops.erasure_ledger")).all()
        lines = {line.sequence: line.hash for line in ledger_of(settings.home).read()}
        strange = sum(lines.get(row.sequence) != row.line_sha256 for row in copied)
        return [dict(row) for row in rows], len(lines), strange

    rows, lines, strange = as_retention(look)
    print_rows(rows, form)
    if strange:
        raise Refused(
            f"{strange} lines of the database's copy do not stand in the erasure ledger.",
            hint="Put the longest whole ledger from beside the backups in its place.",
        )
    if form is ListFormat.table:
        out().print(f"The erasure ledger is whole: {lines:,} lines, and the database's copy agrees.")


def _read(plan_id: int | None) -> Plan:
    from tasks.retention.plan_store import newest_plan_id, read_plan

    return as_retention(lambda c, _: read_plan(c, plan_id or newest_plan_id(c)))


def _show_plan(plan: Plan, form: ListFormat) -> None:
    rows: list[dict[str, object]] = [
        {
            "rule_id": item.rule_id,
            "entity": item.entity,
            "action": item.action,
            "horizon": item.horizon,
            "stored": item.stored,
            "due": item.due,
            "held": item.held,
            "done": item.done,
            "sample_ids": list(item.sample_ids),
        }
        for item in plan.items
    ]
    print_rows(rows, form)
    if form is ListFormat.json:
        return
    console = out()
    approval = (
        ""
        if not plan.needs_approval
        else f", {f'approved by {plan.approved_by}' if plan.approved_by else 'waits for a second person'}"
    )
    console.print(f"Plan {plan.plan_id} as of {plan.as_of}: {plan.due:,} rows due; {plan.state}{approval}.")
    if plan.state == "planned" and plan.needs_approval and plan.approved_by is None:
        console.print(f"It reaches further than a rule allows alone: kontor retention approve {plan.plan_id}")


def print_rows(rows: Sequence[dict[str, object]], form: ListFormat) -> None:
    """Print rows as a table for people or as JSON for scripts."""
    import json

    from tasks.artifacts import cell_text
    from tasks.reports.rows import json_value, printable
    from tasks.reports.terminal import print_table

    if form is ListFormat.json:
        plain = [{name: json_value(value) for name, value in row.items()} for row in rows]
        out().file.write(json.dumps(plain, ensure_ascii=False, indent=2) + "\n")
        return
    if not rows:
        out().print("None.")
        return
    names = list(rows[0])
    cells = [[printable(_shown(row[name], cell_text)) for name in names] for row in rows]
    print_table(out(), [name.replace("_", " ") for name in names], cells, [isinstance(rows[0][n], int) for n in names])


def _shown(value: object, cell_text: Callable[[object], str]) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else cell_text(value)
