"""What the watcher reads of the runs and keeps of their troubles: one transaction a look, set-based."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import Connection, text

from tasks.watch.judging import Alarm, Alert, RunFact

LOOK_BACK = timedelta(days=40)


def fetch_runs(connection: Connection, now: datetime) -> list[RunFact]:
    """The runs of the last forty days, dry ones left out; ``work`` is the rows they read, where they count any."""
    rows = connection.execute(text(_RUNS), {"since": now - LOOK_BACK})
    return [
        RunFact(
            row.run_id,
            row.flow,
            row.standing,
            row.started_at,
            row.ended_at,
            dead=row.standing == "running" and row.state == "abandoned",
            error_code=row.error_code,
            work=row.work,
        )
        for row in rows
    ]


_RUNS = """
select r.run_id, r.flow, l.state as standing, r.state, r.started_at, r.ended_at, r.error_code,
       (r.counts ->> 'rows_read')::bigint as work
from report.runs r join ops.run_ledger l using (run_id)
where not r.dry_run and r.started_at >= :since and r.flow <> 'run_watch'
order by r.run_id
"""


def watching_since(connection: Connection, now: datetime) -> datetime:
    """When the first look was taken; now where this is it."""
    found: datetime | None = connection.scalar(
        text("select min(started_at) from ops.run_ledger where flow = 'run_watch'")
    )
    return found or now


def newest_look(connection: Connection) -> datetime | None:
    """When the watcher last ended well, None where it never did."""
    found: datetime | None = connection.scalar(
        text("select max(ended_at) from ops.run_ledger where flow = 'run_watch' and state = 'done'")
    )
    return found


def keep_alarms(connection: Connection, alarms: Sequence[Alarm], now: datetime) -> dict[str, int]:
    """Open what is new, note what lasts, clear what is over; returns how many of each."""
    values = {
        "fingerprints": [a.fingerprint for a in alarms],
        "kinds": [a.kind for a in alarms],
        "flows": [a.flow for a in alarms],
        "runs": [a.run_id for a in alarms],
        "causes": [a.cause for a in alarms],
        "now": now,
    }
    lasting = connection.execute(text(_REPEAT), values).rowcount
    cleared = connection.execute(text(_CLEAR), values).rowcount
    opened = connection.execute(text(_OPEN), values).rowcount
    return {"alerts_opened": opened, "alerts_lasting": lasting, "alerts_cleared": cleared}


def open_alarm(connection: Connection, alarm: Alarm, now: datetime) -> bool:
    """Open one alarm beside those that stand; returns whether it is new."""
    values = {
        "fingerprints": [alarm.fingerprint],
        "kinds": [alarm.kind],
        "flows": [alarm.flow],
        "runs": [alarm.run_id],
        "causes": [alarm.cause],
        "now": now,
    }
    return bool(connection.execute(text(_OPEN), values).rowcount)


_FOUND = """
unnest(cast(:fingerprints as text[]), cast(:kinds as text[]), cast(:flows as text[]), cast(:runs as bigint[]),
       cast(:causes as text[])) as f (fingerprint, kind, flow, run_id, cause)
"""

_REPEAT = f"""
update ops.alerts a set last_seen_at = :now, kind = f.kind, cause = f.cause
from {_FOUND}
where a.fingerprint = f.fingerprint and a.cleared_at is null
"""

_CLEAR = """
update ops.alerts set cleared_at = :now
where cleared_at is null and not fingerprint = any(cast(:fingerprints as text[]))
"""

_OPEN = f"""
insert into ops.alerts (fingerprint, kind, flow, run_id, cause, opened_at, last_seen_at)
select f.fingerprint, f.kind, f.flow, f.run_id, f.cause, :now, :now from {_FOUND}
on conflict (fingerprint) where cleared_at is null do nothing
"""


def reserve_untold(connection: Connection, now: datetime) -> list[Alert]:
    """Alerts nobody has been told of, marked as told from now on: a mail that is lost is not sent a second time."""
    rows = connection.execute(
        text(
            "update ops.alerts set told_at = :now where told_at is null and cleared_at is null"
            " returning alert_id, kind, flow, cause, opened_at, run_id"
        ),
        {"now": now},
    )
    return sorted((Alert(*row) for row in rows), key=lambda alert: alert.alert_id)


def reserve_untold_ends(connection: Connection, now: datetime) -> list[Alert]:
    """Alerts that are over and were told of, whose end was not, marked as told of from now on."""
    rows = connection.execute(
        text(
            "update ops.alerts set told_cleared_at = :now"
            " where told_cleared_at is null and cleared_at is not null and told_at is not null"
            " returning alert_id, kind, flow, cause, opened_at, run_id"
        ),
        {"now": now},
    )
    return sorted((Alert(*row) for row in rows), key=lambda alert: alert.alert_id)


def close_dead_runs(connection: Connection) -> list[tuple[int, str, str | None]]:
    """Mark runs whose process is gone as abandoned; returns number, flow and Prefect's id of each.

    The lock decides: while a run's process lives it holds its flow's lock, and report.runs shows the run as running.
    """
    rows = connection.execute(
        text(
            "update ops.run_ledger l set state = 'abandoned', ended_at = now(), error_code = 'killed'"
            " from report.runs r where r.run_id = l.run_id and l.state = 'running' and r.state = 'abandoned'"
            " returning l.run_id, l.flow, l.prefect_run_id::text"
        )
    )
    return [(row[0], row[1], row[2]) for row in rows]


def ended_runs(connection: Connection, prefect_run_ids: Sequence[str]) -> set[str]:
    """Those of Prefect's runs that our ledger knows to have ended."""
    rows = connection.scalars(
        text(
            "select prefect_run_id::text from ops.run_ledger"
            " where prefect_run_id = any(cast(:ids as uuid[])) and state <> 'running'"
        ),
        {"ids": list(prefect_run_ids)},
    )
    return set(rows)


def orphaned_backfill(connection: Connection) -> int | None:
    """The number of the backfill that stands as running while nobody runs one; None where there is none.

    One driver works at a time and holds its flow's lock, so a run of it that lives means that it is not orphaned.
    """
    found: int | None = connection.scalar(
        text(
            "select min(b.backfill_id) from ops.backfills b where b.state = 'running' and not exists"
            " (select from report.runs r where r.flow = 'backfill' and r.state = 'running')"
        )
    )
    return found


def unproven_backups(connection: Connection) -> list[Alarm]:
    """The alarm that no backup was proven to restore for longer than its rule allows; none when all is well."""
    row = connection.execute(
        text("select last_verified_at, silent_after_hours from report.backup_watch where silent")
    ).one_or_none()
    if row is None:
        return []
    proven = f"since {row.last_verified_at:%Y-%m-%d %H:%M} UTC" if row.last_verified_at else "ever"
    cause = f"No backup was proven to restore {proven}; the rule allows {row.silent_after_hours} hours."
    return [Alarm("silent", "backup", cause, f"silent backup {row.last_verified_at or 'ever'}")]
