"""Letting outputs go: files under KONTOR_HOME past their rule.

A file that speaks of somebody on whom a legal hold stands stays, and so does one that cannot be read while any hold
stands. Each file goes by itself: after a kill the next try takes what is left.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

from lxml import etree
from sqlalchemy import Connection, Engine, text

from configs.settings import Settings
from tasks.erasures.files import mentions
from tasks.erasures.store import hold_off_holds
from tasks.erasures.terms import Terms, terms_of_contact
from tasks.retention.clocks import horizon
from tasks.retention.outputs import FOLDERS, files_of
from tasks.retention.planning import Item
from tasks.retention.policies import Policy, floors_of

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
        strategy="files",
        horizon=through,
        stored=found.stored,
        due=found.due,
        held=found.held,
        estimated_bytes=found.due_bytes,
    )


def find_output(connection: Connection, settings: Settings, entity: str, through: date) -> Found:
    """What of an output was written on or before a day."""
    zone, held = ZoneInfo(settings.business_timezone), held_people(connection)
    paths = list(files_of(settings.home, entity))
    due = [path for path in paths if _written_on(path, zone) <= through]
    free = [path for path in due if held is None or not _is_held(path, held)]
    size = sum(path.stat().st_size for path in free if path.exists())
    return Found(len(paths), len(free), len(due) - len(free), size, tuple(free))


def apply_output(engine: Engine, settings: Settings, plan_id: int, item: Item, now: datetime) -> int:
    """Let go of what a plan's item says and return how much went; what is written meanwhile is not due."""
    if item.ended_at is not None:
        return 0
    gone = 0
    for portion in _remove_files(engine, settings, item):
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


def _written_on(path: Path, zone: ZoneInfo) -> date:
    try:
        return datetime.fromtimestamp(path.stat().st_mtime, zone).date()
    except FileNotFoundError:  # somebody has put another in its place this moment
        return date.max


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
