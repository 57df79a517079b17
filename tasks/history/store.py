"""History in the database: who acts in this transaction, seals, verification, one customer's changes, erasure.

The entries themselves are written by triggers (migration 0002); nothing here can add one. What an entry's hash is made
of stands in :mod:`tasks.history.entries_store`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy import Connection, text

from tasks.errors import Locked
from tasks.history.chain import NO_SEAL, Break, Seal, find_broken_seal, find_departure, instant_text
from tasks.history.entries_store import ENTRY_HASH, find_broken_entries

SEAL_SIZE = 10_000
_SHOWN_BREAKS = 20


@dataclass(frozen=True)
class Sealed:
    """What sealing did: the seals added, the entries they hold, and the number of the newest seal (0 for none)."""

    seals: int
    entries: int
    newest_seal: int


@dataclass(frozen=True)
class Verification:
    """What verifying found; history is whole when ``breaks`` is empty.

    ``unsealed`` entries, the oldest of them from ``unsealed_since``, are not protected until they are sealed.
    """

    breaks: tuple[Break, ...]
    broken_entries: int
    entries: int
    erased_entries: int
    seals: int
    newest_root: str
    unsealed: int
    unsealed_since: datetime | None


@dataclass(frozen=True)
class Change:
    """One column of one changed record; ``erased`` where its values were let go.

    ``column_name`` is empty where a record was deleted in order to erase it: none of its columns was entered.
    """

    entry_id: int
    changed_at: datetime
    operation: str
    table_name: str
    record_id: int
    role: str
    actor: str
    run_id: int | None
    column_name: str
    old_value: str | None
    new_value: str | None
    erased: bool


def name_session(connection: Connection, run_id: int | None, actor: str) -> None:
    """Have what the current transaction changes entered under this run and actor; ends with the transaction.

    Without it, entries carry no run and the database's login as actor.
    """
    connection.execute(
        text("select set_config('kontor.run_id', :run_id, true), set_config('kontor.actor', :actor, true)"),
        {"run_id": "" if run_id is None else str(run_id), "actor": actor},
    )


def act_for_run(connection: Connection, run_id: int) -> None:
    """Have what the current transaction changes entered under this run and the actor its ledger entry names."""
    connection.execute(
        text(
            "select set_config('kontor.run_id', run_id::text, true), set_config('kontor.actor', actor, true)"
            " from ops.run_ledger where run_id = :run_id"
        ),
        {"run_id": run_id},
    )


_DIGEST = "encode(sha256(array_send({ids}) || array_send({hashes})), 'hex')"

_SEALS = f"""
select seal_number, encode(previous_root, 'hex') as previous_root, through_entry_id, cardinality(entry_ids) as entries,
       sealed_at, sealed_by, {_DIGEST.format(ids="entry_ids", hashes="entry_hashes")} as digest,
       encode(root, 'hex') as root
from history.seals order by seal_number
"""


def read_seals(connection: Connection) -> list[Seal]:
    """All seals in order, each digest recomputed from the entries that the seal lists."""
    return [Seal(**row) for row in connection.execute(text(_SEALS)).mappings()]


def seal_history(
    connection: Connection, *, now: datetime, actor: str, wait_seconds: float = 5.0, seal_size: int = SEAL_SIZE
) -> Sealed:
    """Seal every entry that is not sealed yet, in this transaction, and return what was added.

    What other transactions have written and not yet committed is waited for, ``wait_seconds`` at most; writers wait for
    nobody. Killed at any point it leaves no seal, and the next call makes it. Two calls at once come one after another.

    Raises:
        Locked: somebody kept writing for longer than ``wait_seconds``.
    """
    connection.execute(text("select pg_advisory_xact_lock(hashtextextended('kontor history seals', 0))"))
    newest = _newest_seal(connection)
    frontier = _settled_frontier(connection, wait_seconds)
    added: list[Seal] = []
    while newest.through_entry_id < frontier:
        newest = _add_seal(connection, newest, frontier, now, actor, seal_size)
        added.append(newest)
    return Sealed(len(added), sum(seal.entries for seal in added), newest.seal_number)


def _newest_seal(connection: Connection) -> Seal:
    row = connection.execute(
        text(
            "select seal_number, through_entry_id, encode(root, 'hex') as root from history.seals"
            " order by seal_number desc limit 1"
        )
    ).one_or_none()
    if row is None:
        return NO_SEAL
    return replace(NO_SEAL, seal_number=row.seal_number, through_entry_id=row.through_entry_id, root=row.root)


def _settled_frontier(connection: Connection, wait_seconds: float) -> int:
    """The greatest id of an entry, at a moment at which no id below it is given to an entry not yet visible.

    Ids are given before the transaction commits, so order of id is not order of commit. Whoever writes holds a shared
    lock until then; here the exclusive one is tried for, never waited for in the queue, where it would hold up writers.
    """
    waited_until = time.monotonic() + wait_seconds
    while (frontier := _try_frontier(connection)) is None:
        if time.monotonic() >= waited_until:
            raise Locked(
                f"Changes are being written that have not been committed for {wait_seconds:g} s; nothing was sealed.",
                holder="a transaction that changes customers",
                hint="Let the run that writes end, then `kontor history seal` again; nothing is lost by waiting.",
            )
        time.sleep(0.05)
    return frontier


def _try_frontier(connection: Connection) -> int | None:
    # Rolling back to the savepoint lets go of the lock at once, on every path: sealing itself holds up no writer.
    savepoint = connection.begin_nested()
    try:
        if not connection.scalar(text("select pg_try_advisory_xact_lock(hashtextextended('kontor history', 0))")):
            return None
        return int(connection.scalar(text("select coalesce(max(entry_id), 0) from history.change_log")) or 0)
    finally:
        savepoint.rollback()


# One statement, so that the hashes never leave the server. The root is the one that chain.seal_root states.
_ADD_SEAL = f"""
with listed as (
    select e.entry_id, {ENTRY_HASH} as entry_hash
    from (select * from history.change_log where entry_id > :after and entry_id <= :frontier
          order by entry_id limit :seal_size) e
), gathered as (
    select array_agg(entry_id order by entry_id) as entry_ids, array_agg(entry_hash order by entry_id) as entry_hashes,
           max(entry_id) as through_entry_id, count(*) as entries
    from listed
)
insert into history.seals (seal_number, previous_root, through_entry_id, entry_ids, entry_hashes, sealed_at, sealed_by,
                           root)
select :seal_number, decode(:previous_root, 'hex'), through_entry_id, entry_ids, entry_hashes, :sealed_at, :sealed_by,
       sha256(convert_to(concat_ws(chr(10), 'kontor history seal', cast(:seal_number as bigint),
                                   cast(:previous_root as text), through_entry_id || ' ' || entries,
                                   cast(:instant as text), {_DIGEST.format(ids="entry_ids", hashes="entry_hashes")},
                                   cast(:sealed_by as text)), 'UTF8'))
from gathered
returning seal_number, through_entry_id, cardinality(entry_ids) as entries, encode(root, 'hex') as root
"""


def _add_seal(connection: Connection, newest: Seal, frontier: int, now: datetime, actor: str, size: int) -> Seal:
    added = connection.execute(
        text(_ADD_SEAL),
        {
            "after": newest.through_entry_id,
            "frontier": frontier,
            "seal_size": size,
            "seal_number": newest.seal_number + 1,
            "previous_root": newest.root,
            "sealed_at": now,
            "instant": instant_text(now),
            "sealed_by": actor,
        },
    ).mappings()
    return replace(newest, **added.one())


# Values may go only under an entry, written later, that says so.
_ERASED_WITHOUT_RECORD = """
select e.entry_id, count(*) over () as broken
from history.change_log e
where e.salt is null and (e.commitments = '{}' or exists (
    select from jsonb_object_keys(e.commitments) as erased (name)
    where not exists (
        select from history.change_log r
        where r.operation = 'erase' and r.table_name = e.table_name and r.record_id = e.record_id
          and r.entry_id > e.entry_id and erased.name = any (r.column_names))))
order by 1 limit :shown
"""

_CONTRADICTED = {
    True: "is not sealed yet and does not follow from the entry before it: one of the two was no change of the record",
    False: "is not sealed yet and is not what the record says now: it was no change of the record, or one is missing",
}

_MISSING_TRIGGERS = """
select w.name || ' on ' || w.relation as trigger, t.tgrelid is null as absent
from (
    select 'crm.' || r as relation, 'record_' || e as name
    from unnest(array['organizations', 'contacts', 'contact_roles']) r,
         unnest(array['insert', 'update', 'delete', 'truncate']) e
    union all select 'history.' || r, 'refuse' from unnest(array['change_log', 'seals']) r
    union all select i.inhrelid::regclass::text, 'refuse' from pg_inherits i
    where i.inhparent = 'history.change_log'::regclass
) w left join pg_trigger t on t.tgrelid = to_regclass(w.relation) and t.tgname = w.name
where t.tgenabled is distinct from 'A' order by 1
"""

# What is not sealed yet is held against the rest: an entry's old value is what the entry before it left, and the newest
# one's value stands in crm. Of a record that was deleted nothing stands; what was erased is passed over.
_CONTRADICTIONS = """
with told as (
    select e.entry_id, e.table_name, e.record_id, u.name, e.old_values ->> u.name as old_value,
           e.new_values ->> u.name as new_value, coalesce(e.commitments ? u.name, false) as erased
    from (select distinct table_name, record_id from history.change_log
          where entry_id > :through and operation <> 'erase') r
    join history.change_log e using (table_name, record_id)
    cross join lateral unnest(e.column_names) as u (name)
    where e.operation <> 'erase'
), linked as (
    select t.*, lag(entry_id) over w as entry_before, lag(new_value) over w as value_before,
           lag(erased) over w as erased_before, lead(entry_id) over w is null as newest
    from told t window w as (partition by table_name, record_id, name order by entry_id)
), present as (
    select 'organizations' as table_name, organization_id as record_id, to_jsonb(o) as fields
    from crm.organizations o
    union all
    select 'contacts', contact_id, to_jsonb(c) from crm.contacts c
    union all
    select 'contact_roles', contact_role_id, to_jsonb(r) from crm.contact_roles r
), judged as (
    select l.entry_id,
           not erased_before and value_before is distinct from old_value as gap,
           newest and p.fields ->> l.name is distinct from new_value
           and (p.fields is null or p.fields ? l.name) as untrue -- a column may have been dropped since
    from linked l left join present p using (table_name, record_id)
    where not l.erased
)
select entry_id, bool_or(gap) as gap, count(*) over () as broken from judged where gap or untrue
group by entry_id order by 1 limit :shown
"""

_TALLY = """
select count(*) as entries, count(*) filter (where salt is null) as erased,
       count(*) filter (where entry_id > :through) as unsealed,
       min(changed_at) filter (where entry_id > :through) as unsealed_since
from history.change_log
"""


def verify_history(
    connection: Connection, kept: Sequence[Seal] = (), beside: Sequence[Connection] = ()
) -> Verification:
    """Recompute every hash and say where history is not what was sealed, the first broken entry first.

    ``kept`` is a chain that was exported: only it can show that the newest seals were removed or all of them remade.
    Each connection of ``beside``, on which no transaction has begun, takes a share of the entries; it sees the
    committed state that ``connection`` sees. Others may write, seal and erase meanwhile.
    """
    seals = read_seals(connection)
    through = seals[-1].through_entry_id if seals else 0
    broken = find_broken_entries(connection, seals, _SHOWN_BREAKS, beside)
    erased = connection.execute(text(_ERASED_WITHOUT_RECORD), {"shown": _SHOWN_BREAKS}).all()
    entries = list(broken.breaks)
    entries += [Break("entry", row.entry_id, "lost values without an entry that says so") for row in erased]
    strange = connection.execute(text(_CONTRADICTIONS), {"through": through, "shown": _SHOWN_BREAKS}).all()
    entries += [Break("entry", row.entry_id, _CONTRADICTED[row.gap]) for row in strange]
    chain = [found for found in (find_broken_seal(seals), find_departure(seals, kept)) if found is not None]
    tally = connection.execute(text(_TALLY), {"through": through}).one()
    return Verification(
        breaks=(*entries, *chain, *_broken_triggers(connection)),
        broken_entries=broken.count + sum(found[0].broken for found in (erased, strange) if found),
        entries=tally.entries,
        erased_entries=tally.erased,
        seals=len(seals),
        newest_root=seals[-1].root if seals else "",
        unsealed=tally.unsealed,
        unsealed_since=tally.unsealed_since,
    )


def _broken_triggers(connection: Connection) -> list[Break]:
    """The triggers that record or protect and are not there, or not always on."""
    return [
        Break("trigger", 0, f"{row.trigger} {'is missing' if row.absent else 'is switched off'}")
        for row in connection.execute(text(_MISSING_TRIGGERS))
    ]


# A customer by any number it ever had, with the contacts it ever had, with the roles these ever had.
_SHOW = """
with organization as (
    select distinct record_id from history.change_log
    where table_name = 'organizations' and new_values ? 'customer_number'
      and new_values ->> 'customer_number' = :customer_number
), contact as (
    select distinct record_id from history.change_log
    where table_name = 'contacts' and parent_id in (select record_id from organization)
), wanted as (
    select e.entry_id from organization o join history.change_log e using (record_id)
    where e.table_name = 'organizations'
    union all
    select e.entry_id from contact c join history.change_log e using (record_id) where e.table_name = 'contacts'
    union all
    select e.entry_id from contact c join history.change_log e on e.parent_id = c.record_id
    where e.table_name = 'contact_roles'
)
select e.entry_id, e.changed_at, e.operation, e.table_name, e.record_id, e.role, e.actor, e.run_id,
       coalesce(u.name, '') as column_name, e.old_values ->> u.name as old_value,
       e.new_values ->> u.name as new_value,
       e.operation <> 'erase' and (u.name is null or coalesce(e.commitments ? u.name, false)) as erased
from wanted join history.change_log e using (entry_id)
left join lateral unnest(e.column_names) with ordinality as u (name, place) on true
order by e.entry_id, u.place
"""


def read_changes(connection: Connection, customer_number: str) -> list[Change]:
    """Everything that history knows of a customer, its contacts and their roles, oldest first; empty if nothing.

    A customer that was deleted is found too, as long as its number was not erased from history.
    """
    rows = connection.execute(text(_SHOW), {"customer_number": customer_number}).mappings()
    return [Change(**row) for row in rows]


def array_of(ids: Sequence[int] | str) -> str:
    """The ids as PostgreSQL writes an array; a driver takes its time over thousands of single numbers."""
    return ids if isinstance(ids, str) else "{" + ",".join(map(str, ids)) + "}"


@contextmanager
def deleting_to_erase(connection: Connection, table: str) -> Iterator[None]:
    """Have ``kontor_retention``'s deletions from this table of ``crm`` entered without values, for a ``with`` block.

    Only for records whose history is erased in full in the same transaction, right behind it. The entry says that the
    record was deleted, by whom and when, and names no column. An empty name changes nothing.
    """
    named = text("select set_config('kontor.erasing', :named, true)")
    if table:
        connection.execute(named, {"named": table})
    yield
    if table:
        connection.execute(named, {"named": ""})


def erase_values(
    connection: Connection, table: str, record_ids: Sequence[int] | str, columns: Sequence[str] | None = None
) -> int:
    """Let values of these records go from history, as ``kontor_retention``; returns how many went.

    ``record_ids`` may be an array as PostgreSQL writes one, when the database itself has listed them. ``columns``
    defaults to all. Erase after the change in ``crm`` and in its transaction: that change is itself entered with the
    old value. One entry per record says what was erased; who, when and which columns stay, and so does the
    chain. What is erased already is passed over.
    """
    return int(
        connection.scalar(
            text("select history.erase_values(:of_table, cast(:ids as bigint[]), cast(:columns as text[]))"),
            {"of_table": table, "ids": array_of(record_ids), "columns": None if columns is None else list(columns)},
        )
        or 0
    )
