"""Faults that are planted in a copy, to see that the check which should catch them does. One is planted each run.

Each is something that was seen to pass other checks: exit codes, row counts, even a start of the server.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tasks.backups.inspection import Scratch
from tasks.backups.programs import ask, connect
from tasks.errors import BadInput


@dataclass(frozen=True)
class Fault:
    """A fault in a running copy: its name, the look that must catch it, and how it is made."""

    name: str
    look: str
    plant: Callable[[Scratch], None]


def _run(*statements: str) -> Callable[[Scratch], None]:
    def plant(scratch: Scratch) -> None:
        """Run the statements in the copy, one transaction each."""
        with connect(scratch.server) as connection:
            # As a fault would: past triggers and foreign keys.
            ask(connection, "set session_replication_role = replica")
            for statement in statements:
                ask(connection, statement)

    return plant


_ROW = """
insert into ops.run_ledger (run_id, flow, actor, as_of, dry_run, host, process_id, state, ended_at)
overriding system value
select max(run_id) + 1, 'planted', 'planted', current_date, true, 'planted', 0, 'done', now() from ops.run_ledger
"""

# A rule that was taken away for a moment: it stands there again, as if every row had been compared with it.
_PAST_THE_RULE = (
    "alter table ops.run_ledger drop constraint run_ledger_ended_at_check",
    _ROW.replace("'done', now()", "'done', null"),
    (
        "alter table ops.run_ledger add constraint run_ledger_ended_at_check"
        " check ((state = 'running') = (ended_at is null)) not valid"
    ),
    "update pg_constraint set convalidated = true where conname = 'run_ledger_ended_at_check'",
)

# Somebody who may write there adds what nobody has sealed.
_SEAL = """
insert into history.seals (seal_number, previous_root, through_entry_id, entry_ids, entry_hashes, sealed_at, sealed_by,
                           root)
select coalesce(max(seal_number), 0) + 1, 'planted', 0, '{}', '{}', now(), 'planted', 'planted' from history.seals
"""

# An index that is not ready is not kept up: the row is in the table, and by the index it is not there.
_PAST_THE_INDEX = (
    "update pg_index set indisready = false where indexrelid = 'ops.run_ledger_flow_started_at_idx'::regclass",
    _ROW,
    "update pg_index set indisready = true where indexrelid = 'ops.run_ledger_flow_started_at_idx'::regclass",
)

RUNNING: tuple[Fault, ...] = (
    Fault("row_changed", "tables", _run("update ops.installation set business_timezone = business_timezone || ' '")),
    Fault(
        "row_removed",
        "tables",
        _run("delete from ops.heartbeats where heartbeat_id = (select max(heartbeat_id) from ops.heartbeats)"),
    ),
    Fault("row_added", "tables", _run("insert into ops.heartbeats default values")),
    Fault("table_emptied", "tables", _run("truncate ops.heartbeats")),
    Fault("right_granted", "schema", _run("grant select on crm.contacts to kontor_finance")),
    Fault("right_revoked", "schema", _run("revoke select on crm.invoices from kontor_flows")),
    Fault("constraint_dropped", "schema", _run("alter table crm.invoices drop constraint invoices_pkey cascade")),
    Fault("index_dropped", "schema", _run("drop index ops.restore_checks_run_id_idx")),
    Fault("trigger_off", "schema", _run("alter table crm.organizations disable trigger user")),
    Fault("role_locked_out", "login", _run("alter role kontor_flows nologin")),
    Fault(
        "orphan",
        "foreign_keys",
        _run(
            "insert into ops.restore_checks (backup_id, state) values (-1, 'failed')",
        ),
    ),
    Fault("row_that_does_not_add_up", "sums", _run(*_PAST_THE_RULE)),
    Fault(
        "sequence_behind",
        "sequences",
        _run("select setval('ops.run_ledger_run_id_seq', 1, false)"),
    ),
    Fault("another_schema_version", "migration", _run("update ops.alembic_version set version_num = '0000'")),
    Fault("history_sealed_anew", "history", _run(_SEAL)),
    Fault("index_entry_missing", "indexes", _run(*_PAST_THE_INDEX)),
)


# --- in files -----------------------------------------------------------------------------------------------------


def flip(content: bytes, chance: random.Random) -> bytes:
    """The content with one bit flipped somewhere; BadInput when there is none."""
    if not content:
        raise BadInput("There is nothing to flip a bit in.")
    place = chance.randrange(len(content))
    return content[:place] + bytes([content[place] ^ (1 << chance.randrange(8))]) + content[place + 1 :]


def flip_in_file(path: Path, chance: random.Random) -> None:
    """Flip one bit of a file in place, behind the header of its first page."""
    size = path.stat().st_size
    with path.open("r+b") as file:
        place = chance.randrange(64, size) if size > 64 else 0
        file.seek(place)
        byte = file.read(1)
        file.seek(place)
        file.write(bytes([byte[0] ^ (1 << chance.randrange(8))]))


def largest_table(data: Path) -> Path:
    """A file of table data in a data folder: the largest below ``base``, which is sure to be in use."""
    candidates = [path for path in (data / "base").rglob("[0-9]*") if path.is_file() and path.name.isdigit()]
    if not candidates:
        raise BadInput("The data folder has no table.", hint="Restore another backup.")
    return max(candidates, key=lambda path: path.stat().st_size)
