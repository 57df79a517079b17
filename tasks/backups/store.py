"""The database's mirror of the catalogue: what was made and checked, for reports; the target itself is the truth."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import date, datetime

from sqlalchemy import Connection, bindparam, text
from sqlalchemy.dialects.postgresql import JSONB

from tasks.backups.catalogue import Catalogue
from tasks.backups.manifest import Manifest, Verdict
from tasks.errors import Refused


@dataclass(frozen=True)
class Policy:
    """The rule in force: how often a full backup, how long every instant, which days, weeks and months stay."""

    rule_id: str
    version: int
    full_every_days: int
    recovery_window_days: int
    keep_daily: int
    keep_weekly: int
    keep_monthly: int
    minimum_good: int
    silent_after_hours: int


def read_policy(connection: Connection, day: date) -> Policy:
    """The rule that holds on a day; Refused when there is none."""
    row = (
        connection.execute(
            text(
                "select rule_id, version, full_every_days, recovery_window_days, keep_daily, keep_weekly, keep_monthly,"
                " minimum_good, silent_after_hours from rules.backup_policy where valid @> cast(:day as date)"
            ),
            {"day": day},
        )
        .mappings()
        .one_or_none()
    )
    if row is None:
        raise Refused(f"No rule of rules.backup_policy holds on {day}.", hint="Add one with `kontor rules`.")
    return Policy(**row)


_UPSERT = """
insert into ops.backups (label, kind, base_label, engine, state, run_id, started_at, ended_at, server_version, point_at,
                         source_bytes, stored_bytes, table_count, row_count)
select label, kind, base_label, engine, 'done', run_id, started_at, ended_at, server_version, point_at, source_bytes,
       stored_bytes, table_count, row_count
from jsonb_to_recordset(:rows) as r (label text, kind text, base_label text, engine text, run_id bigint,
     started_at timestamptz, ended_at timestamptz, server_version integer, point_at timestamptz, source_bytes bigint,
     stored_bytes bigint, table_count integer, row_count bigint)
on conflict (label) do update
set state = 'done', ended_at = excluded.ended_at, point_at = excluded.point_at, error_code = null,
    server_version = excluded.server_version, source_bytes = excluded.source_bytes,
    stored_bytes = excluded.stored_bytes, table_count = excluded.table_count, row_count = excluded.row_count
where ops.backups.state <> 'done'
returning label
"""

_CHECKS = """
insert into ops.restore_checks (backup_id, run_id, state, checked_at, findings, instant, planted, planted_caught,
                                restore_seconds, total_seconds)
select b.backup_id, r.run_id, r.state, r.checked_at, r.findings, r.instant, r.planted, r.planted_caught,
       r.restore_seconds, r.total_seconds
from jsonb_to_recordset(:rows) as r (label text, run_id bigint, state text, checked_at timestamptz, findings jsonb,
     instant timestamptz, planted text, planted_caught boolean, restore_seconds numeric, total_seconds numeric)
join ops.backups b on b.label = r.label
on conflict (backup_id, checked_at) do nothing
returning restore_check_id
"""


def reconcile(connection: Connection, catalogue: Catalogue, run_id: int | None, now: datetime) -> dict[str, int]:
    """Bring the mirror to what the target holds; returns counts. Harmless to repeat.

    What stands as running without a manifest was killed; what stands as done and is not there any more is missing.
    """
    rows = [_backup_row(manifest, run_id) for manifest in catalogue.backups]
    checks = [_check_row(verdict, run_id) for verdict in catalogue.verdicts.values()]
    as_json = bindparam("rows", type_=JSONB)
    known = connection.scalars(text(_UPSERT).bindparams(as_json), {"rows": rows}).all()
    checked = connection.scalars(text(_CHECKS).bindparams(as_json), {"rows": checks}).all()
    labels = [manifest.label for manifest in catalogue.backups]
    gone = connection.execute(
        text(
            "update ops.backups set ended_at = coalesce(ended_at, :now), state ="
            " case state when 'running' then 'abandoned' else 'missing' end"
            " where state in ('running', 'done') and not label = any(:labels)"
        ),
        {"labels": labels, "now": now},
    )
    return {"backups_seen": len(rows), "backups_new": len(known), "checks_new": len(checked), "lost": gone.rowcount}


def _backup_row(manifest: Manifest, run_id: int | None) -> dict[str, object]:
    return {
        "label": manifest.label,
        "kind": manifest.kind,
        "base_label": manifest.base_label,
        "engine": manifest.engine,
        "run_id": run_id,
        "started_at": manifest.started_at,
        "ended_at": manifest.ended_at,
        "server_version": manifest.server_version,
        "point_at": manifest.point_at,
        "source_bytes": manifest.source_bytes,
        "stored_bytes": manifest.stored_bytes,
        "table_count": len(manifest.tables),
        "row_count": sum(line.rows for line in manifest.tables),
    }


def _check_row(verdict: Verdict, run_id: int | None) -> dict[str, object]:
    return {
        "label": verdict.label,
        "run_id": run_id,
        "state": "passed" if verdict.passed else "failed",
        "checked_at": verdict.checked_at,
        "findings": json.loads(json.dumps([asdict(finding) for finding in verdict.findings])),
        "instant": verdict.instant,
        "planted": verdict.planted,
        "planted_caught": verdict.planted_caught,
        "restore_seconds": verdict.restore_seconds,
        "total_seconds": verdict.total_seconds,
    }


def open_backup(connection: Connection, label: str, kind: str, base: str | None, engine: str, run_id: int) -> None:
    """Note that a backup is being made; what is killed then stands as running until the next run says abandoned.

    Raises:
        Refused: there is, or was, one of this name: two runs within a second, or a clock that was put back.
    """
    opened = connection.scalar(
        text(
            "insert into ops.backups (label, kind, base_label, engine, run_id, started_at)"
            " values (:label, :kind, :base, :engine, :run_id, now()) on conflict (label) do nothing returning backup_id"
        ),
        {"label": label, "kind": kind, "base": base, "engine": engine, "run_id": run_id},
    )
    if opened is None:
        raise Refused(f"Backup {label} exists already; nothing was changed.", hint="Run it again in a second.")


def fail_backup(connection: Connection, label: str, error_code: str) -> None:
    """Note that a backup came to nothing."""
    connection.execute(
        text(
            "update ops.backups set state = 'failed', ended_at = now(), error_code = :code"
            " where label = :label and state = 'running'"
        ),
        {"label": label, "code": error_code},
    )


def note_pruned(connection: Connection, labels: list[str]) -> int:
    """Note which backups were deleted by rule, and return how many."""
    done = connection.execute(
        text("update ops.backups set state = 'pruned' where label = any(:labels)"), {"labels": labels}
    )
    return done.rowcount


def standing_holds(connection: Connection) -> list[datetime]:
    """When each legal hold that stands was placed."""
    return list(connection.scalars(text("select placed_at from ops.legal_holds where released_at is null order by 1")))


def forget_beats(connection: Connection, before: datetime) -> int:
    """Delete beats older than any instant that can be recovered to; returns how many."""
    return connection.execute(text("delete from ops.heartbeats where beat_at < :before"), {"before": before}).rowcount
