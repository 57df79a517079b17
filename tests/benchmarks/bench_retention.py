"""How fast rows go, and what a writer beside it feels: by pages, one by one with holds and ledger, blanked, replayed.

    python -m tests.benchmarks.bench_retention [ROWS] [alone]

Half of ROWS rows (default 3,000,000) are due. Every way is measured on a fresh copy of the table, with one writer
beside it, a process of its own, that updates rows of the other half as fast as it can; its worst wait is the longest of
its statements, and what it waited for in the long ones is asked of the server beside it. The first line is the writer
alone, the second the writer beside a process that only counts: what it waits there it waits for a processor, whoever
else works. The floor is the statement that one would write without all of this: one plain DELETE; one plain UPDATE, on
a table as PostgreSQL makes it (full pages) and on one with the room that the blanked table has. At last a twelfth of
ROWS contacts stand in the database as a restore brings them back, and the ledger of them is replayed into it.

``alone``: without the writer, and in processor time of all the server's processes and our own, whose ratios hold on a
busy machine too.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy import URL, Engine, text

from configs.settings import Settings
from tasks import database
from tasks.erasures import identities
from tasks.erasures.identities import Identity
from tasks.erasures.keys import hash_sql, key_of
from tasks.erasures.ledger_file import Entry, ErasureLedger, Subject, ledger_of
from tasks.erasures.replay_store import replay
from tasks.local_stack import remove_postgres
from tasks.retention.batches_store import Purge
from tasks.retention.entities import Entity
from tasks.retention.planning import Item
from tasks.retention.purge_store import apply_item
from tasks.retention.selection import Selection
from tests.histories import register_file, superuser

NOW = datetime(2026, 11, 20, 6, tzinfo=UTC)
HORIZON = date(2023, 11, 19)
TABLE = "crm.bench_people"
WATCHED_MS, LONG_MS = 10, 50
ALONE = "alone"

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
    beside="",
    joined="",
    key_hash=hash_sql("r.email"),
    address_hash="null::text",
    subjects=ENTITY.subjects,
    blanks={"email": "null", "note": "null"},
    history=(),
    derived="crm.bench_keys",
)


@dataclass(frozen=True)
class Waits:
    """What a writer felt: its statements in milliseconds, and what it waited for while it waited long."""

    milliseconds: Sequence[float]
    reasons: Counter[str]

    @property
    def told(self) -> str:
        """In words: the worst and the usual, how many were longer than 50 ms, and what was waited for."""
        worst, usual = max(self.milliseconds), statistics.median(self.milliseconds)
        longest = sorted(self.milliseconds)
        hundredth, thousandth = (longest[int(len(longest) * share)] for share in (0.99, 0.999))
        long = sum(wait > LONG_MS for wait in self.milliseconds)
        reasons = ", ".join(f"{name} {count}" for name, count in self.reasons.most_common(3))
        return (
            f"worst {worst:>6.1f} ms, 1 in 1000 {thousandth:>5.1f}, 1 in 100 {hundredth:>5.1f}, usual {usual:.2f},"
            f" over 50 ms {long} of {len(longest):,}; {reasons}"
        )


class Writer:
    """Somebody who works on rows that stay, one after another, in a process of its own."""

    def __init__(self, url: URL, rows: int) -> None:
        alone = multiprocessing.get_context("spawn")
        self._stop, self._told = alone.Event(), alone.SimpleQueue()
        arguments = (url.render_as_string(hide_password=False), rows, self._stop, self._told)
        self._process = alone.Process(target=_write, args=arguments)

    @contextmanager
    def working(self) -> Iterator[list[Waits]]:
        """A writer at work for a ``with`` block; what it felt is in the list afterwards."""
        felt: list[Waits] = []
        self._process.start()
        self._told.get()
        try:
            yield felt
        finally:
            self._stop.set()
            felt.append(Waits(*self._told.get()))
            self._process.join()


def _write(url: str, rows: int, stop: Event, told: SimpleQueue[Any]) -> None:
    """Update single rows of the half that stays until told to stop; in the writer's process."""
    number, waits, reasons = 1, [], Counter[str]()
    began: list[float] = [0.0]
    connection, watching = (psycopg.connect(url.replace("+psycopg", ""), autocommit=True) for _ in range(2))
    watcher = threading.Thread(
        target=_watch, args=(watching, connection.info.backend_pid, began, stop, reasons), daemon=True
    )
    watcher.start()
    told.put("ready")
    while not stop.is_set():
        number = (number + 7_919 * 2) % rows | 1
        began[0] = time.perf_counter()
        connection.execute(f"update {TABLE} set note = 'seen again' where person_id = %s", (number,))
        waits.append((time.perf_counter() - began[0]) * 1000)
    watcher.join()
    told.put((waits, reasons))


def _watch(
    connection: psycopg.Connection[Any], writer: int, began: list[float], stop: Event, reasons: Counter[str]
) -> None:
    """Look what the writer waits for, whenever its statement has taken ten milliseconds."""
    while not stop.is_set():
        time.sleep(0.005)
        if time.perf_counter() - began[0] > WATCHED_MS / 1000:
            asked = "select coalesce(wait_event_type || '/' || wait_event, 'processor') from pg_stat_activity"
            row = connection.execute(f"{asked} where pid = %s", (writer,)).fetchone()
            reasons[row[0] if row else "nothing"] += 1


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


def _processor_seconds(engine: Engine) -> float:
    """What this process and all the server's have used until now, those that have ended included."""
    with engine.connect() as connection:
        folder = connection.exec_driver_sql("show data_directory").scalar_one()
    main = (Path(folder) / "postmaster.pid").read_text().split()[0]
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(FileNotFoundError, ProcessLookupError):
            fields = stat.read_text().rpartition(")")[2].split()  # from the third on: state, parent, …
            if stat.parent.name == main:
                ticks += sum(map(int, fields[11:15]))
            elif fields[1] == main:
                ticks += sum(map(int, fields[11:13]))
    return ticks / os.sysconf("SC_CLK_TCK") + time.process_time()


def _timed(
    engine: Engine, rows: int, name: str, work: Callable[[], object], room: int = 55
) -> tuple[str, float, float]:
    _fresh(engine, rows, room)
    if ALONE in sys.argv:
        before = _processor_seconds(engine)
        work()
        used = (_processor_seconds(engine) - before) / (rows / 2) * 1e6
        print(f"{name:<38} {used:>9.2f} µs a row of the processor", flush=True)
        return name, 1 / used, 0.0
    with Writer(engine.url, rows).working() as felt:
        time.sleep(0.3)
        began = time.perf_counter()
        work()
        seconds = time.perf_counter() - began
    rate = rows / 2 / seconds
    print(f"{name:<38} {rate:>9,.0f} rows/s   writer: {felt[0].told}", flush=True)
    return name, rate, max(felt[0].milliseconds)


def _plain(engine: Engine, statement: str) -> None:
    with engine.begin() as connection:
        connection.execute(text(statement), {"horizon": HORIZON})


def _count_beside() -> None:
    """Keep a processor busy for three seconds without asking the database for anything."""
    counting = multiprocessing.get_context("spawn").Process(target=_count, args=(time.time() + 3,))
    counting.start()
    counting.join()


def _count(until: float) -> None:
    while time.time() < until:
        pass


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
        connection.execute(
            text(
                "insert into ops.retention_plan_items (plan_id, position, rule_id, rule_version, entity, action,"
                " strategy, horizon, stored, due, held, estimated_bytes)"
                " values (:plan_id, 10, 'bench', 1, :table, 'delete', 'pages', :horizon, 0, 0, 0, 0)"
            ),
            {"plan_id": plan_id, "table": TABLE, "horizon": HORIZON},
        )
    return Purge(engine, plan_id, run_id, "bench", ledger_of(folder), key_of(folder), NOW)


def _read_speed(folder: Path, subjects: int) -> None:
    ledger = ErasureLedger(folder / "replay" / "ledger.jsonl")
    people = [Subject(f"{n:032x}", f"{n:064x}") for n in range(subjects)]
    for at in range(0, subjects, 5_000):
        ledger.append([Entry(NOW, "erasure", TABLE, "bench", 1, "", people[at : at + 5_000])])
    began = time.perf_counter()
    read = sum(len(line.subjects) for line in ledger.in_force())
    print(f"{'ledger read and checked':<38} {read / (time.perf_counter() - began):>9,.0f} subjects/s", flush=True)


_RESTORED = (
    (
        "insert into crm.organizations (customer_number, name, seen_as_of, feed_file_id)"
        " select 'B' || n, 'Firm ' || n, '2020-01-01', {file} from generate_series(1, {people} / 4) n"
    ),
    (
        "insert into crm.contacts (organization_id, contact_key, first_name, last_name, email, seen_as_of,"
        " feed_file_id) select organization_id, 'p' || n || '@' || customer_number, 'Anna', 'Nowak',"
        " 'p' || n || '@' || customer_number || '.example', '2020-01-01', {file}"
        " from crm.organizations, generate_series(1, 8) n"
    ),
)


def _replay_speed(settings: Settings, people: int, purge: Purge) -> None:
    """A database as an old backup has it, twice as many contacts as the ledger names: every second one goes again."""
    with database.engine_for(settings, database.OWNER).begin() as connection:
        file = register_file(connection)
        for statement in _RESTORED:
            connection.execute(text(statement.format(file=file, people=people)))
    with (
        database.engine_for(settings, database.OWNER)
        .connect()
        .execution_options(isolation_level="AUTOCOMMIT") as connection
    ):
        connection.exec_driver_sql("vacuum analyze crm.contacts")
        listed = connection.execute(
            text(
                "select c.external_id::text, customer_number, contact_key from crm.contacts c"
                " join crm.organizations using (organization_id) where contact_id % 2 = 0"
            )
        ).all()
    ledger = ErasureLedger(settings.home / "replay" / "restored.jsonl")
    subjects = [Subject(row[0], purge.key.hash_of(row[1], row[2])) for row in listed]
    for at in range(0, len(subjects), 5_000):
        ledger.append([Entry(NOW, "erasure", "crm.contacts", "bench", 1, "", subjects[at : at + 5_000])])
    for name in ("ledger replayed into a restored database", "the same again"):
        began, before = time.perf_counter(), _processor_seconds(superuser(settings))
        gone = replay(purge.engine, ledger, purge.key).get("contacts_deleted", 0)
        seconds, used = time.perf_counter() - began, _processor_seconds(superuser(settings)) - before
        print(
            f"{name:<42} {len(subjects) / seconds:>9,.0f} subjects/s, {gone:,} people gone again;"
            f" {used / len(subjects) * 1e6:.1f} µs of the processor each",
            flush=True,
        )


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
    if ALONE not in sys.argv:
        _timed(admin, rows, "the writer alone", lambda: time.sleep(3))
        _timed(admin, rows, "beside a process that only counts", _count_beside)
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
    _read_speed(settings.home, min(rows // 4, 200_000))
    del identities.IDENTITIES[TABLE]  # type: ignore[attr-defined]
    _replay_speed(settings, max(rows // 24, 1_000), purge)


if __name__ == "__main__":
    main(next((int(word) for word in sys.argv[1:] if word.isdigit()), 3_000_000))
