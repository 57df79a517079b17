"""Letting outputs go: files under KONTOR_HOME past their rule, and runs that Prefect still keeps.

A file that speaks of somebody on whom a legal hold stands stays, and so does one that cannot be read while any hold
stands. Prefect's runs hold ids only, so no hold speaks of them. Each file goes by itself and each batch of runs in one
transaction: after a kill the next try takes what is left.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

from lxml import etree
from sqlalchemy import Connection, Engine, create_engine, make_url, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from configs.settings import Settings
from tasks.database import prefect_database_url
from tasks.erasures.files import mentions
from tasks.erasures.store import hold_off_holds
from tasks.erasures.terms import Terms, terms_of_contact
from tasks.retention.clocks import horizon
from tasks.retention.outputs import FOLDERS, files_of
from tasks.retention.planning import Item
from tasks.retention.policies import Policy, floors_of

_RUNS_AT_ONCE = 200
_FILES_AT_ONCE = 100
_UNREADABLE = (zipfile.BadZipFile, etree.LxmlError, KeyError, ValueError, OSError)


@dataclass(frozen=True)
class Found:
    """What a rule finds of an output: how much there is, what is due and free, what a hold keeps, in bytes as well."""

    stored: int
    due: int
    held: int = 0
    due_bytes: int = 0
    paths: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Held:
    """Those on whom a hold stands: people by what they are found by, and the numbers of customers held as a whole."""

    people: Terms
    customers: tuple[str, ...]


def output_item(
    connection: Connection, settings: Settings, policy: Policy, policies: Sequence[Policy], on: date
) -> Item:
    """What a rule lets go of its output on a day, counted now."""
    through = min(horizon(on, rule.period) for rule in (policy, *floors_of(policy, policies)))
    found = find_output(connection, settings, policy.entity, through)
    return Item(
        position=policy.position,
        rule_id=policy.rule_id,
        rule_version=policy.version,
        entity=policy.entity,
        action=policy.action,
        strategy="files" if policy.entity in FOLDERS else "runs",
        horizon=through,
        stored=found.stored,
        due=found.due,
        held=found.held,
        estimated_bytes=found.due_bytes,
    )


def find_output(connection: Connection, settings: Settings, entity: str, through: date) -> Found:
    """What of an output was written, or ended, on or before a day."""
    if entity in FOLDERS:
        return _find_files(settings, entity, through, held_people(connection))
    with _prefect(settings) as prefect:
        if prefect is None:
            return Found(0, 0)
        bound = {"zone": settings.business_timezone, "through": through}
        row = prefect.execute(
            text(f"select count(*) as stored, count(*) filter (where {_RUN_IS_DUE}) as due from flow_run r"), bound
        ).one()
    return Found(row.stored, row.due)


def apply_output(engine: Engine, settings: Settings, plan_id: int, item: Item, now: datetime) -> int:
    """Let go of what a plan's item says and return how much went; what is written meanwhile is not due."""
    if item.ended_at is not None:
        return 0
    gone = 0
    remove = _remove_files if item.entity in FOLDERS else _remove_runs
    for portion in remove(engine, settings, item):
        gone += portion
        _note(engine, plan_id, item, portion, None)
    _note(engine, plan_id, item, 0, now)
    return gone


def _note(engine: Engine, plan_id: int, item: Item, gone: int, ended_at: datetime | None) -> None:
    with engine.begin() as connection:
        connection.execute(
            text(
                "update ops.retention_plan_items set done = done + :gone, ended_at = :ended_at"
                " where plan_id = :plan_id and position = :position"
            ),
            {"gone": gone, "ended_at": ended_at, "plan_id": plan_id, "position": item.position},
        )


def _remove_files(engine: Engine, settings: Settings, item: Item) -> Iterator[int]:
    with engine.begin() as connection:  # no hold is placed between the look and the end of what was looked at
        hold_off_holds(connection)
        paths = find_output(connection, settings, item.entity, item.horizon).paths
        for start in range(0, len(paths), _FILES_AT_ONCE):
            portion = paths[start : start + _FILES_AT_ONCE]
            for path in portion:
                path.unlink(missing_ok=True)
            yield len(portion)
    for folder in FOLDERS[item.entity]:
        _drop_empty_folders(settings.home / folder)


def held_people(connection: Connection) -> Held | None:
    """Everybody on whom a hold stands, with the contacts of firms that are held; None where there is no hold."""
    rows = connection.execute(text(_HELD)).all()
    if not rows:
        return None
    terms = Terms()
    for row in rows:
        if row.is_contact:
            terms |= terms_of_contact(row.first_name, row.last_name, row.email, row.phone, row.customer_number)
    return Held(terms, tuple(sorted({row.customer_number for row in rows if row.whole_firm})))


_HELD = """
with held as (select distinct subject from ops.legal_holds where released_at is null)
select true as is_contact, o.external_id in (select subject from held) as whole_firm, o.customer_number,
       c.first_name, c.last_name, c.email, c.phone
from crm.contacts c join crm.organizations o using (organization_id)
where c.external_id in (select subject from held) or o.external_id in (select subject from held)
union all
select false, true, o.customer_number, null, null, null, null
from crm.organizations o where o.external_id in (select subject from held)
"""


def _find_files(settings: Settings, entity: str, through: date, held: Held | None) -> Found:
    zone = ZoneInfo(settings.business_timezone)
    paths = list(files_of(settings.home, entity))
    due = [path for path in paths if _written_on(path, zone) <= through]
    free = [path for path in due if held is None or not _is_held(path, held)]
    size = sum(path.stat().st_size for path in free)
    return Found(len(paths), len(free), len(due) - len(free), size, tuple(free))


def _written_on(path: Path, zone: ZoneInfo) -> date:
    return datetime.fromtimestamp(path.stat().st_mtime, zone).date()


def _is_held(path: Path, held: Held) -> bool:
    try:
        return mentions(path, held.people, held.customers)
    except _UNREADABLE:
        return True


def _drop_empty_folders(folder: Path) -> None:
    inner: Iterable[Path] = sorted((path for path in folder.rglob("*") if path.is_dir()), reverse=True)
    for path in inner:
        if not path.is_symlink():
            with suppress(OSError):  # something is in it, or is being put into it
                path.rmdir()


# --- Prefect's runs -----------------------------------------------------------------------------------------------

# As Prefect's own clean-up has it: runs that are over and stand by themselves; their task runs and states go with them,
# logs and artifacts must be taken along. A run that another one started stands by itself once that one is gone.
_RUN_IS_DUE = """
r.parent_task_run_id is null and r.state_type in ('COMPLETED', 'FAILED', 'CRASHED', 'CANCELLED')
and (r.end_time at time zone :zone)::date <= cast(:through as date)
"""

_REMOVE_RUNS = f"""
with gone as (
    delete from flow_run where id in (select r.id from flow_run r where {_RUN_IS_DUE} order by r.end_time limit :most
                                      for update skip locked)
    returning id
), logs as (
    delete from log where flow_run_id in (select id from gone)
), shown as (
    delete from artifact where flow_run_id in (select id from gone) returning id
), newest as (
    delete from artifact_collection where latest_id in (select id from shown)
)
select count(*) from gone
"""


def _remove_runs(engine: Engine, settings: Settings, item: Item) -> Iterator[int]:
    bound = {"zone": settings.business_timezone, "through": item.horizon, "most": _RUNS_AT_ONCE}
    while True:
        with _prefect(settings) as prefect:
            gone = 0 if prefect is None else int(prefect.scalar(text(_REMOVE_RUNS), bound) or 0)
        if not gone:
            return
        yield gone


@contextmanager
def _prefect(settings: Settings) -> Iterator[Connection | None]:
    """A transaction in Prefect's own database; None where there is none yet."""
    url = make_url(prefect_database_url(settings)).set(drivername="postgresql+psycopg")
    try:
        connection = create_engine(url, poolclass=NullPool).connect()
    except OperationalError:
        yield None
        return
    with connection, connection.begin():
        there = connection.scalar(text("select to_regclass('public.flow_run') is not null"))
        yield connection if there else None
