"""One file into the database: registered, staged, judged row by row, applied by its domain, and counted.

All of it happens in one transaction. A process that dies at any instruction leaves nothing of the file behind,
and the next run takes the same file in again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import date

from sqlalchemy import Connection, bindparam, text
from sqlalchemy.dialects.postgresql import JSONB

from tasks.erasures.keys import ErasureKey
from tasks.errors import FileRefused
from tasks.feeds.casting import CastTable
from tasks.feeds.contracts import FeedContract
from tasks.feeds.guards_store import NOTHING_OVERRULED, Overruling, guard_file
from tasks.feeds.judging_store import count_fates, judge_rows
from tasks.feeds.outcomes import Applied, Apply, Braked, FileOutcome, Fingerprint, StagedFile
from tasks.feeds.raw_table import RawTable
from tasks.feeds.staging_store import (
    clear_staging,
    give_room,
    refresh_statistics,
    serialise,
    stage,
    staging_table,
)
from tasks.feeds.unchanged_store import held_ahead, sift
from tasks.history.store import act_for_run

# Feeds whose files are laid over each other by day and revision: what an older revision says and the newer one does
# not, holds. Of the other feeds a newer revision takes the whole place of the older one.
LAYERED = frozenset({"catalog"})


def take_in(
    connection: Connection,
    *,
    contract: FeedContract,
    fingerprint: Fingerprint,
    raw: RawTable,
    typed: Callable[[], CastTable],
    as_of: date,
    revision: int,
    run_id: int,
    apply: Apply,
    sequence: str = "",
    overruling: Overruling = NOTHING_OVERRULED,
    erasure_key: ErasureKey | None = None,
) -> FileOutcome:
    """Take one file in, inside the caller's transaction, and return what became of it.

    ``typed`` types the file's rows; it is called once at most, while the server looks up what is held.

    Raises:
        FileRefused: two different files claim the same date, or guards refuse the file; the transaction must end.
    """
    serialise(connection, contract.feed)
    act_for_run(connection, run_id)
    give_room(connection)
    known = _known_outcome(connection, contract, fingerprint, as_of)
    if known is not None:
        return known
    _refuse_second_truth(connection, contract, fingerprint, as_of, revision)
    outdated = _is_outdated_revision(connection, contract, as_of, revision)
    if outdated and contract.feed not in LAYERED:
        return _register_superseded(connection, contract, fingerprint, as_of, revision, run_id, len(raw.frame))
    replaces = not outdated and _retire_older_revision(connection, contract, as_of)
    state = "superseded" if outdated else "applied"
    feed_file_id = _register(connection, contract, fingerprint, as_of, revision, sequence, run_id, raw, state)
    staged = _staged(contract, raw, feed_file_id, as_of, revision, replaces)
    with held_ahead(connection, staged, contract) as held:
        whole = typed()
    staged, cast = sift(connection, staged, whole, held())
    stage(connection, staged, cast.frame)
    warned = judge_rows(connection, staged, contract, raw, cast, erasure_key)
    if outdated:
        _retire_quarantine(connection, [feed_file_id])
    measure = apply.measure if isinstance(apply, Braked) else None
    verdicts, compared = guard_file(connection, staged, contract, raw, whole.frame, fingerprint, overruling, measure)
    fates = count_fates(connection)
    applied = apply(connection, replace(staged, compared=compared))
    overruled = tuple(verdict.guard for verdict in verdicts if verdict.state == "overruled")
    outcome = _outcome(fingerprint, contract, as_of, len(whole.frame), fates, applied, warned, overruled)
    _write_counts(connection, feed_file_id, outcome)
    clear_staging(connection, staged.staging)
    refresh_statistics(connection, contract.feed, applied)
    return outcome


def spoken_columns(contract: FeedContract, raw: RawTable) -> frozenset[str]:
    """The columns a file says something about: those it has, and those its contract fills in."""
    filled = {
        column.name
        for column in contract.columns
        if column.constant is not None or column.default is not None or column.default_from is not None
    }
    composed = {c.name for c in contract.columns if any(part in raw.columns for part in c.composed_of)}
    return frozenset(raw.columns) | filled | composed


def record_refusal(
    connection: Connection,
    *,
    contract: FeedContract,
    fingerprint: Fingerprint,
    as_of: date | None,
    reasons: Sequence[str],
    run_id: int,
) -> None:
    """Keep that a file was refused, and why; a later refusal of the same content takes its place."""
    connection.execute(
        text(
            "insert into landing.feed_files (contract, contract_version, contract_sha256, feed, source, mode,"
            " file_name, sha256, byte_size, as_of, state, refusal, run_id)"
            " values (:contract, :contract_version, :contract_sha256, :feed, :source, :mode,"
            " :file_name, :sha256, :byte_size, :as_of, 'refused', :refusal, :run_id)"
            " on conflict (contract, sha256) where state = 'refused' do update"
            " set refusal = excluded.refusal, as_of = excluded.as_of, file_name = excluded.file_name,"
            " contract_version = excluded.contract_version, contract_sha256 = excluded.contract_sha256,"
            " run_id = excluded.run_id, received_at = now()"
        ).bindparams(bindparam("refusal", type_=JSONB)),
        {**_identity(contract, fingerprint), "as_of": as_of, "refusal": list(reasons), "run_id": run_id},
    )


def _known_outcome(
    connection: Connection, contract: FeedContract, fingerprint: Fingerprint, as_of: date
) -> FileOutcome | None:
    known = connection.execute(
        text(
            "select as_of from landing.feed_files"
            " where contract = :contract and sha256 = :sha256 and as_of = :as_of and state <> 'refused'"
        ),
        {"contract": contract.name, "sha256": fingerprint.sha256, "as_of": as_of},
    ).one_or_none()
    if known is None:
        return None
    return FileOutcome(fingerprint.file_name, contract.name, as_of, "known")


def _refuse_second_truth(
    connection: Connection, contract: FeedContract, fingerprint: Fingerprint, as_of: date, revision: int
) -> None:
    """Refuse a second list or ledger for the same day: no guard can say which of the two is right."""
    if contract.mode == "records":
        return
    other = connection.scalar(
        text(
            "select file_name from landing.feed_files where feed = :feed and source = :source"
            " and state <> 'refused' and mode = :mode and as_of = :as_of and revision = :revision"
        ),
        {**_identity(contract, fingerprint), "as_of": as_of, "revision": revision},
    )
    if other is not None:
        raise FileRefused(
            fingerprint.file_name,
            [f"{other} already is revision {revision} of the {contract.mode} as of {as_of}"],
            hint=f"If this one corrects it, import it with --revision {revision + 1}.",
            others=[str(other)],
        )


def _is_outdated_revision(connection: Connection, contract: FeedContract, as_of: date, revision: int) -> bool:
    if contract.mode == "records":
        return False
    return bool(
        connection.scalar(
            text(
                "select exists (select from landing.feed_files where feed = :feed and source = :source"
                " and as_of = :as_of and revision > :revision and mode = :mode and state = 'applied')"
            ),
            {
                "feed": contract.feed,
                "source": contract.source,
                "as_of": as_of,
                "revision": revision,
                "mode": contract.mode,
            },
        )
    )


def _register_superseded(
    connection: Connection,
    contract: FeedContract,
    fingerprint: Fingerprint,
    as_of: date,
    revision: int,
    run_id: int,
    rows: int,
) -> FileOutcome:
    connection.execute(
        text(
            "insert into landing.feed_files (contract, contract_version, contract_sha256, feed, source, mode,"
            " file_name, sha256, byte_size, as_of, revision, state, rows_read, superseded, run_id)"
            " values (:contract, :contract_version, :contract_sha256, :feed, :source, :mode,"
            " :file_name, :sha256, :byte_size, :as_of, :revision, 'superseded', :rows, :rows, :run_id)"
        ),
        {
            **_identity(contract, fingerprint),
            "as_of": as_of,
            "revision": revision,
            "rows": rows,
            "run_id": run_id,
        },
    )
    return FileOutcome(fingerprint.file_name, contract.name, as_of, "superseded", rows_read=rows, superseded=rows)


def _retire_older_revision(connection: Connection, contract: FeedContract, as_of: date) -> bool:
    """Mark the revision in force as superseded; its open quarantine goes with it."""
    if contract.mode == "records":
        return False
    retired = connection.scalars(
        text(
            "update landing.feed_files set state = 'superseded' where feed = :feed and source = :source"
            " and as_of = :as_of and mode = :mode and state = 'applied' returning feed_file_id"
        ),
        {"feed": contract.feed, "source": contract.source, "as_of": as_of, "mode": contract.mode},
    ).all()
    _retire_quarantine(connection, retired)
    return bool(retired)


def _retire_quarantine(connection: Connection, feed_file_ids: Sequence[int]) -> None:
    connection.execute(
        text(
            "update landing.quarantined_rows set state = 'superseded', resolved_at = now()"
            " where feed_file_id = any(:retired) and state = 'open'"
        ),
        {"retired": list(feed_file_ids)},
    )


def _identity(contract: FeedContract, fingerprint: Fingerprint) -> dict[str, object]:
    return {
        "contract": contract.name,
        "contract_version": contract.version,
        "contract_sha256": contract.sha256,
        "feed": contract.feed,
        "source": contract.source,
        "mode": contract.mode,
        "file_name": fingerprint.file_name,
        "sha256": fingerprint.sha256,
        "byte_size": fingerprint.byte_size,
    }


def _register(
    connection: Connection,
    contract: FeedContract,
    fingerprint: Fingerprint,
    as_of: date,
    revision: int,
    sequence: str,
    run_id: int,
    raw: RawTable,
    state: str,
) -> int:
    return int(
        connection.execute(
            text(
                "insert into landing.feed_files (contract, contract_version, contract_sha256, feed, source, mode,"
                " file_name, sha256, byte_size, as_of, revision, sequence, columns, state, totals, run_id)"
                " values (:contract, :contract_version, :contract_sha256, :feed, :source, :mode,"
                " :file_name, :sha256, :byte_size, :as_of, :revision, :sequence, :columns, :state, :totals, :run_id)"
                " returning feed_file_id"
            ).bindparams(bindparam("totals", type_=JSONB)),
            {
                **_identity(contract, fingerprint),
                "as_of": as_of,
                "revision": revision,
                "sequence": sequence,
                "columns": sorted(spoken_columns(contract, raw)),
                "state": state,
                "totals": [asdict(row) for row in raw.totals],
                "run_id": run_id,
            },
        ).scalar_one()
    )


def _staged(
    contract: FeedContract, raw: RawTable, feed_file_id: int, as_of: date, revision: int, replaces: bool
) -> StagedFile:
    return StagedFile(
        feed_file_id=feed_file_id,
        feed=contract.feed,
        source=contract.source,
        staging=staging_table(contract.feed),
        as_of=as_of,
        revision=revision,
        columns=spoken_columns(contract, raw),
        creates_customers=contract.missing_customer == "create",
        replaces=replaces,
    )


def _outcome(
    fingerprint: Fingerprint,
    contract: FeedContract,
    as_of: date,
    rows_read: int,
    fates: Mapping[str, int],
    applied: Applied,
    warned: int,
    overruled: tuple[str, ...],
) -> FileOutcome:
    return FileOutcome(
        file_name=fingerprint.file_name,
        contract=contract.name,
        as_of=as_of,
        state="applied",
        rows_read=rows_read,
        inserted=applied.inserted,
        updated=applied.updated,
        unchanged=applied.unchanged,
        quarantined=fates.get("quarantined", 0),
        superseded=applied.superseded + fates.get("superseded", 0),
        settled=applied.settled,
        reopened=applied.reopened,
        warned=warned,
        overruled=overruled,
    )


def _write_counts(connection: Connection, feed_file_id: int, outcome: FileOutcome) -> None:
    connection.execute(
        text(
            "update landing.feed_files set rows_read = :rows_read, inserted = :inserted, updated = :updated,"
            " unchanged = :unchanged, quarantined = :quarantined, superseded = :superseded, settled = :settled,"
            " reopened = :reopened, warned = :warned where feed_file_id = :feed_file_id"
        ),
        {**outcome.counts(), "feed_file_id": feed_file_id},
    )
