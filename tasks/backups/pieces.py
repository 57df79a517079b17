"""Fingerprints of large tables piece by piece, so that the next backup reads only the pieces that were changed since.

A fingerprint is a sum over rows, and therefore the sum of those of the pieces of 16 MB that a table's file consists of.
A piece none of whose pages was written behind the restore point of the backup before holds the rows that it held then.
When a page was last written stands on the page itself, as a place in the WAL, and is read from there (pageinspect): not
from the summaries of the WAL by which an incremental copy is made, so that a page which those missed is found here.

What was found stays beside the lists of files in KONTOR_HOME. A table that was rewritten has another file and is read
whole, as is everything where pageinspect cannot be had.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field

import psycopg
from psycopg import sql

from tasks.backups.programs import Server, Session, ask, connect

LARGE_BLOCKS = 4_096  # smaller tables are read whole
PIECE_BLOCKS = 2_048


@dataclass(frozen=True)
class Table:
    """A table as it lies on the disk: its file's number and its size in blocks."""

    schema: str
    name: str
    file: int
    blocks: int

    @property
    def pieces(self) -> int:
        """Of how many pieces it consists."""
        return -(-self.blocks // PIECE_BLOCKS)


@dataclass(frozen=True)
class Pieces:
    """What a table held: its file, its blocks then, and rows and sum of each piece."""

    file: int
    blocks: int
    sums: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Known:
    """What the tables of all databases held at a place in the WAL, by database and name."""

    lsn: str = "0/0"
    tables: Mapping[str, Pieces] = field(default_factory=dict)


def read_known(content: bytes) -> Known:
    """What :func:`write_known` wrote; nothing is known where it cannot be read."""
    try:
        told = json.loads(content)
        tables = {
            name: Pieces(int(held["file"]), int(held["blocks"]), tuple((int(n), int(s)) for n, s in held["sums"]))
            for name, held in told["tables"].items()
        }
        return Known(str(told["lsn"]), tables)
    except (ValueError, KeyError, TypeError, AttributeError):
        return Known()


def write_known(known: Known) -> bytes:
    """The bytes of a file: names, counts and sums of hashes."""
    return json.dumps(asdict(known)).encode("ascii")


_LARGE = """
select n.nspname, c.relname, pg_relation_filenode(c.oid)::bigint, pg_relation_size(c.oid) / 8192
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where c.relkind = 'r' and c.relpersistence = 'p' and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
  and current_setting('block_size')::integer = 8192 and pg_relation_size(c.oid) / 8192 >= %s
order by 1, 2
"""


def large_tables(connection: Session) -> list[Table]:
    """The permanent tables of the connected database that are worth being read in pieces."""
    return [Table(*row) for row in ask(connection, _LARGE, LARGE_BLOCKS)]


def print_pieces(
    readers: Sequence[Session], table: Table, held: Pieces | None, stale: set[int] | None
) -> Pieces | None:
    """Rows and sum of each piece, in the snapshot of ``readers``, who share the work; None for rows without a hash.

    Only the pieces in ``stale`` are read, all of them where that is None.
    """
    found = dict(enumerate(held.sums)) if held is not None and stale is not None else {}
    wanted = [piece for piece in range(table.pieces) if stale is None or piece in stale]
    with ThreadPoolExecutor(len(readers)) as threads:
        parts = [
            threads.submit(_read, reader, table, wanted[place :: len(readers)]) for place, reader in enumerate(readers)
        ]
        try:
            for part in parts:
                found |= part.result()
        except psycopg.errors.UndefinedFunction:
            return None
    return Pieces(table.file, table.blocks, tuple(found[piece] for piece in range(table.pieces)))


def _read(reader: Session, table: Table, pieces: Sequence[int]) -> dict[int, tuple[int, int]]:
    found = {}
    for piece in pieces:
        # The last one has no end: what is visible now is in the blocks that there are.
        end: sql.Composable = sql.SQL("true")
        if piece + 1 < table.pieces:
            end = sql.SQL("t.ctid < {}::tid").format(sql.Literal(f"({(piece + 1) * PIECE_BLOCKS},0)"))
        statement = sql.SQL(
            "select count(*), coalesce(sum(hash_record_extended(t, 0)), 0)::text from {} t"
            " where t.ctid >= {}::tid and {}"
        ).format(sql.Identifier(table.schema, table.name), sql.Literal(f"({piece * PIECE_BLOCKS},0)"), end)
        with reader.transaction():  # a savepoint in the transaction that there is
            [(rows, total)] = ask(reader, statement)
        found[piece] = (int(rows), int(total))
    return found


@contextmanager
def page_reader(server: Server, database: str) -> Iterator[Session | None]:
    """A session that can read pages for a ``with`` block, None where it may not; nothing stays in the database."""
    with connect(server, database) as session:
        ask(session, "begin")
        try:
            ask(session, "create extension if not exists pageinspect")
            where = "select extnamespace::regnamespace::text from pg_extension where extname = 'pageinspect'"
            [(schema,)] = ask(session, where)
            ask(session, sql.SQL("set local search_path = pg_catalog, {}").format(sql.Identifier(schema)))
        except (psycopg.errors.InsufficientPrivilege, psycopg.errors.FeatureNotSupported, psycopg.errors.UndefinedFile):
            ask(session, "rollback")
            yield None
            return
        try:
            yield session
        finally:
            session.rollback()


_WRITTEN_SINCE = """
select (block / %s)::integer
from generate_series(0, %s::bigint - 1) block, lateral page_header(get_raw_page(%s, 'main', block)) page
group by 1
having max(page.lsn) > %s::pg_lsn
"""


def stale_pieces(session: Session | None, table: Table, held: Pieces | None, lsn: str) -> set[int] | None:
    """The pieces that may hold other rows than when ``lsn`` was the newest place in the WAL; None: all may.

    Where the file became shorter its last pages are gone, and with them the proof of what was on them: the piece that
    ends there is stale.
    """
    if session is None or held is None or held.file != table.file:
        return None
    name = sql.Identifier(table.schema, table.name).as_string(session)
    written = {int(row[0]) for row in ask(session, _WRITTEN_SINCE, PIECE_BLOCKS, table.blocks, name, lsn)}
    shorter = {(table.blocks - 1) // PIECE_BLOCKS} if table.blocks < held.blocks else set()
    return written | shorter | set(range(len(held.sums), table.pieces))
