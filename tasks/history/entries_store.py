"""What the hash of an entry is made of, and which entries are not what was sealed.

The hash is an expression of this module and not a function in the database, so that verifying trusts nothing that could
have been changed along with the entries.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate

from sqlalchemy import Connection, text

from tasks.history.chain import Break, Seal

# What a value says, without ambiguity: JSON has no control character outside an escape, and null is nothing at all.
_VALUE = """
convert_to(u.name || chr(31) || coalesce((e.old_values -> u.name)::text, '') || chr(31)
           || coalesce((e.new_values -> u.name)::text, ''), 'UTF8')
"""

# As written: every salt derived from the entry's own.
_WHOLE = f"sha256(sha256(uuid_send(e.salt) || convert_to(u.name, 'UTF8')) || {_VALUE})"

# Once something was erased: a value beside its salt, or the hash alone. In any other shape there is no hash, neither of
# the value nor of its entry, and an entry without one is broken.
_PARTED = f"""
case when e.salts ->> u.name ~ '^[0-9a-f]{{64}}$' and not e.commitments ? u.name
     then sha256(decode(e.salts ->> u.name, 'hex') || {_VALUE})
     when e.commitments ->> u.name ~ '^[0-9a-f]{{64}}$'
          and not (e.salts ? u.name or e.old_values ? u.name or e.new_values ? u.name)
     then decode(e.commitments ->> u.name, 'hex') end
"""

_NAMES = "unnest(e.column_names) with ordinality as u (name, place)"

ENTRY_HASH = f"""
case when e.old_values - e.column_names = '{{}}' and e.new_values - e.column_names = '{{}}'
          and array_position(e.column_names, null) is null
          and (e.salt is null) = (e.salts is not null) and (e.salt is null) = (e.commitments is not null)
          and (e.salt is not null
               or e.salts - e.column_names = '{{}}' and e.commitments - e.column_names = '{{}}')
     then sha256(record_send(row(e.entry_id, e.changed_at, e.operation, e.table_name, e.record_id, e.external_id,
                                 e.parent_id, e.role, e.actor, e.run_id, cardinality(e.column_names)))
                 || case when cardinality(e.column_names) = 0 then ''::bytea
                         when e.salt is not null
                         then (select string_agg({_WHOLE}, ''::bytea order by u.place) from {_NAMES})
                         else (select string_agg({_PARTED}, ''::bytea order by u.place) from {_NAMES}
                               having bool_and({_PARTED} is not null)) end) end
"""

# Entries after one id up to another, and the seals that speak of them: each entry is listed by exactly one seal, and is
# what it was.
_BROKEN_ENTRIES = f"""
with sealed as (
    select l.entry_id, l.entry_hash, s.seal_number
    from history.seals s cross join lateral unnest(s.entry_ids, s.entry_hashes) as l (entry_id, entry_hash)
    where s.seal_number between :first_seal and :last_seal
), actual as (
    select e.entry_id, {ENTRY_HASH} as entry_hash
    from history.change_log e where e.entry_id > :after and e.entry_id <= :through
)
select coalesce(s.entry_id, a.entry_id) as entry_id, s.seal_number, count(*) over () as broken,
       case when a.entry_id is null then 'removed' when s.entry_id is null then 'added' else 'changed' end as manner
from sealed s full join actual a on a.entry_id = s.entry_id
where a.entry_hash is null or s.entry_hash is null or s.entry_hash <> a.entry_hash
order by 1 limit :shown
"""

_REASONS = {
    "removed": "was removed; seal {seal} lists it",
    "added": "was added after the entries around it had been sealed",
    "changed": "was changed after seal {seal} was made",
}


@dataclass(frozen=True)
class BrokenEntries:
    """How many entries are not what was sealed, and the first of them by number."""

    count: int
    breaks: tuple[Break, ...]


@dataclass(frozen=True)
class _Share:
    """Neighbouring seals and the entries that they speak of: after one id, through another."""

    first_seal: int
    last_seal: int
    after: int
    through: int


def find_broken_entries(
    connection: Connection, seals: Sequence[Seal], shown: int, beside: Sequence[Connection] = ()
) -> BrokenEntries:
    """Compare each sealed entry with its seal; ``shown`` of those that differ are named.

    The connections of ``beside`` take shares of about the same size and read what ``connection`` reads, as far as it is
    committed. Hashing is the work of the processor alone, and a server gives one connection one.
    """
    shares = _shares(seals, 1 + len(beside))
    snapshot = str(connection.scalar(text("select pg_export_snapshot()"))) if len(shares) > 1 else ""
    with ThreadPoolExecutor(max(len(shares), 1)) as workers:
        others = zip(beside, shares[1:], strict=False)
        started = [workers.submit(_compare_beside, other, snapshot, share, shown) for other, share in others]
        found = [_compare(connection, share, shown) for share in shares[:1]] + [work.result() for work in started]
    breaks = sorted((item for part in found for item in part.breaks), key=lambda item: item.number)
    return BrokenEntries(sum(part.count for part in found), tuple(breaks[:shown]))


def _shares(seals: Sequence[Seal], wanted: int) -> list[_Share]:
    """The seals in runs of about as many entries each; every id up to the newest seal's is in exactly one."""
    ends = list(accumulate((seal.through_entry_id for seal in seals), max))
    sizes = list(accumulate(seal.entries for seal in seals))
    cuts = [0]
    for number in range(1, wanted):
        cut = next((i for i, size in enumerate(sizes) if size * wanted >= sizes[-1] * number), len(sizes)) + 1
        if cuts[-1] < cut < len(seals):
            cuts.append(cut)
    return [
        _Share(seals[first].seal_number, seals[last - 1].seal_number, ends[first - 1] if first else 0, ends[last - 1])
        for first, last in zip(cuts, [*cuts[1:], len(seals)], strict=True)
        if last > first
    ]


def _compare_beside(connection: Connection, snapshot: str, share: _Share, shown: int) -> BrokenEntries:
    connection.execution_options(isolation_level="REPEATABLE READ")
    with connection.begin():
        # The name is the server's own word; SET TRANSACTION takes no bound value.
        connection.exec_driver_sql(f"set transaction snapshot '{snapshot}'")
        return _compare(connection, share, shown)


def _compare(connection: Connection, share: _Share, shown: int) -> BrokenEntries:
    # Some 50 MB for each million of entries, which would otherwise go through the disk.
    connection.execute(text("select set_config('work_mem', '256MB', true)"))
    rows = connection.execute(text(_BROKEN_ENTRIES), {**share.__dict__, "shown": shown}).all()
    breaks = tuple(Break("entry", row.entry_id, _REASONS[row.manner].format(seal=row.seal_number)) for row in rows)
    return BrokenEntries(rows[0].broken if rows else 0, breaks)
