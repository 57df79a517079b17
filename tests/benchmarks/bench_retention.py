"""How fast rows go, and what a writer beside it feels: by pages, one by one with holds and ledger, blanked, replayed.

    python -m tests.benchmarks.bench_retention [ROWS]

Half of ROWS rows (default 3,000,000) are due. Every way is measured on a fresh copy of the table, with one writer
beside it that updates rows of the other half as fast as it can; its worst wait is the longest of its statements. The
floor is the statement that one would write without all of this: one plain DELETE; one plain UPDATE, on a table as
PostgreSQL makes it (full pages) and on one with the room that the blanked table has.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path

from sqlalchemy import Engine, text

from configs.settings import Settings
from tasks import database
from tasks.erasures import identities
from tasks.erasures.identities import Identity
from tasks.erasures.keys import hash_sql, key_of
from tasks.erasures.ledger_file import Entry, ErasureLedger, Subject, ledger_of
from tasks.local_stack import remove_postgres
from tasks.retention.entities import Entity
from tasks.retention.planning import Item
from tasks.retention.purge_store import Purge, apply_item
from tasks.retention.selection import Selection
from tests.histories import superuser

NOW = datetime(2026, 11, 20, 6, tzinfo=UTC)
HORIZON = date(2023, 11, 19)
TABLE = "crm.bench_people"

_MAKE = f"""
drop table if exists {TABLE};
create table {TABLE} (
    person_id bigint generated always as identity primary key,
    external_id uuid not null default gen_random_uuid(),
    firm_id uuid not null,
    email text, note text,
    seen_on date not null
) with (fillfactor = {{room}});
create index on {TABLE} (firm_id);
"""

_FILL = f"""
insert into {TABLE} (firm_id, email, note, seen_on)
select md5('f' || n % 5000)::uuid, 'person' || n || '@example.com', 'called about the invoice, wants it by mail',
       case when n % 2 = 0 then date '2020-01-01' + (n % 365)::int else date '2026-01-01' end
from generate_series(1, :rows) n
"""

ENTITY = Entity(TABLE, "person_id", {"seen": "r.seen_on"}, ("r.external_id", "r.firm_id"))
IDENTITY = Identity(
    entity=TABLE,
    key="person_id",
    records=f"{TABLE} r",
    key_hash=hash_sql("r.email"),
    address_hash="null::text",
    subjects=ENTITY.subjects,
    blanks={"email": "null", "note": "null"},
    history=(),
    derived="crm.bench_keys",
)


@dataclass
class Writer:
    """Somebody who works on rows that stay, one after another, and how long each took."""

    engine: Engine
    rows: int
    waits: list[float] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def work(self) -> None:
        """Update single rows of the half that stays until told to stop."""
        number = 1
        with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            while not self.stop.is_set():
                number = (number + 7_919 * 2) % self.rows | 1
                began = time.perf_counter()
                connection.execute(text(f"update {TABLE} set note = 'seen again' where person_id = :n"), {"n": number})
                self.waits.append(time.perf_counter() - began)


@contextmanager
def writing(engine: Engine, rows: int) -> Iterator[Writer]:
    """A writer at work for a ``with`` block."""
    writer = Writer(engine, rows)
    thread = threading.Thread(target=writer.work)
    thread.start()
    try:
        yield writer
    finally:
        writer.stop.set()
        thread.join()


def _fresh(engine: Engine, rows: int, room: int) -> None:
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for statement in (
            *_MAKE.format(room=room).split(";"),
            "create table if not exists crm.bench_keys (person_id bigint)",
        ):
            if statement.strip():
                connection.exec_driver_sql(statement)
        connection.execute(text(_FILL), {"rows": rows})
        connection.exec_driver_sql(f"grant select, update, delete on {TABLE}, crm.bench_keys to kontor_retention")
        connection.exec_driver_sql(f"vacuum (freeze, analyze) {TABLE}")
        connection.exec_driver_sql("checkpoint")


def _selection(blanks: dict[str, str], *, hold_check: bool) -> Selection:
    free = identities.not_held(*ENTITY.subjects) if hold_check else "true"
    due = "r.seen_on <= cast(:horizon as date)" + (" and r.email is not null" if blanks else "")
    return Selection(ENTITY, due, free, {"horizon": HORIZON}, HORIZON, blanks)


def _item(rows: int, strategy: str, action: str) -> Item:
    return Item(10, "bench", 1, TABLE, action, strategy, HORIZON, rows, rows, 0)


def _timed(
    engine: Engine, rows: int, name: str, work: Callable[[], object], room: int = 55
) -> tuple[str, float, float]:
    _fresh(engine, rows, room)
    with writing(engine, rows) as writer:
        time.sleep(0.3)
        began = time.perf_counter()
        work()
        seconds = time.perf_counter() - began
    rate, worst = rows / 2 / seconds, max(writer.waits) * 1000
    usual = statistics.median(writer.waits) * 1000
    print(f"{name:<44} {rate:>10,.0f} rows/s   writer: worst {worst:>8.1f} ms, usual {usual:.2f} ms", flush=True)
    return name, rate, worst


def _plain(engine: Engine, statement: str) -> None:
    with engine.begin() as connection:
        connection.execute(text(statement), {"horizon": HORIZON})


def _purge(settings: Settings, folder: Path, run_id: int) -> Purge:
    engine = database.engine_for(settings, database.RETENTION)
    with engine.begin() as connection:
        plan_id = connection.execute(
            text(
                "insert into ops.retention_plans (run_id, as_of, policies_sha256, needs_approval, made_by, made_at)"
                " values (:run_id, :day, 'bench', false, 'bench', :now) returning plan_id"
            ),
            {"run_id": run_id, "day": NOW.date(), "now": NOW},
        ).scalar_one()
    return Purge(engine, plan_id, run_id, "bench", ledger_of(folder), key_of(folder), NOW)


def _replay_speed(folder: Path, subjects: int) -> None:
    ledger = ErasureLedger(folder / "replay" / "ledger.jsonl")
    people = [Subject(f"{n:032x}", f"{n:064x}") for n in range(subjects)]
    for at in range(0, subjects, 5_000):
        ledger.append([Entry(NOW, "erasure", TABLE, "bench", 1, "", people[at : at + 5_000])])
    began = time.perf_counter()
    read = sum(len(line.subjects) for line in ledger.in_force())
    print(f"{'ledger read and checked':<44} {read / (time.perf_counter() - began):>10,.0f} subjects/s", flush=True)


def main(rows: int) -> None:
    """Measure every way on a database of its own."""
    with tempfile.TemporaryDirectory(prefix="kr-") as name:
        home = Path(name)
        home.chmod(0o755)
        settings = Settings(home=home)
        database.prepare(settings)
        try:
            _measure(settings, rows)
        finally:
            remove_postgres(home)


def _measure(settings: Settings, rows: int) -> None:
    admin = superuser(settings)
    with database.engine_for(settings).begin() as connection:
        run_id = connection.execute(
            text(
                "insert into ops.run_ledger (flow, actor, as_of, dry_run, host, process_id)"
                " values ('bench', 'bench', '2026-11-20', false, 'here', 1) returning run_id"
            )
        ).scalar_one()
    purge = _purge(settings, settings.home, run_id)
    identities.IDENTITIES[TABLE] = IDENTITY  # type: ignore[index]
    due = "seen_on <= :horizon"
    _, delete, _ = _timed(admin, rows, "one plain DELETE", lambda: _plain(admin, f"delete from {TABLE} where {due}"))
    pages = _selection({}, hold_check=False)
    _, by_pages, _ = _timed(admin, rows, "by pages", lambda: apply_item(purge, _item(rows, "pages", "delete"), pages))
    keyset = _selection({}, hold_check=True)
    _, by_key, _ = _timed(
        admin, rows, "one by one, holds and ledger", lambda: apply_item(purge, _item(rows, "keyset", "delete"), keyset)
    )
    plain = f"update {TABLE} set email = null, note = null where {due}"
    _, full, _ = _timed(admin, rows, "one plain UPDATE, full pages", lambda: _plain(admin, plain), room=100)
    _, update, _ = _timed(admin, rows, "one plain UPDATE, room on the page", lambda: _plain(admin, plain))
    blank = _selection({"email": "null", "note": "null"}, hold_check=False)
    _, blanked, _ = _timed(
        admin, rows, "blanked by pages", lambda: apply_item(purge, _item(rows, "pages", "anonymise"), blank)
    )
    print(
        f"\npages / DELETE {by_pages / delete:.2f}   one by one / DELETE {by_key / delete:.2f}"
        f"   blanked / UPDATE of full pages {blanked / full:.2f}, with room {blanked / update:.2f}"
    )
    _replay_speed(settings.home, min(rows // 4, 200_000))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3_000_000)
