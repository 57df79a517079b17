"""One file into the database: registered, staged, judged row by row, applied by its domain, and counted.

All of it happens in one transaction. A process that dies at any instruction leaves nothing of the file behind,
and the next run takes the same file in again.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import date

import pandas as pd
import pyarrow as pa
import pyarrow.csv
from sqlalchemy import Connection, bindparam, text
from sqlalchemy.dialects.postgresql import JSONB

from data_contracts.tables import metadata
from tasks.errors import FileRefused, Refused
from tasks.feeds.casting import CastTable, raw_rows
from tasks.feeds.contracts import FeedContract, RowCheck
from tasks.feeds.reading import RawTable

ITEM_KEY_COLUMN = {"staged_items": "invoice_number"}


@dataclass(frozen=True)
class Fingerprint:
    """What a file is by its content, whatever it is called."""

    file_name: str
    sha256: str
    byte_size: int


@dataclass(frozen=True)
class StagedFile:
    """A file that is registered and whose good rows stand in ``staging``, ready to be applied."""

    feed_file_id: int
    contract: FeedContract
    staging: str
    as_of: date
    revision: int
    replaces: bool  # an earlier revision of the same snapshot was in force until now


@dataclass(frozen=True)
class Applied:
    """What applying the good rows did; the first four add up to the good rows."""

    inserted: int = 0
    updated: int = 0
    unchanged: int = 0
    superseded: int = 0
    settled: int = 0
    reopened: int = 0


@dataclass(frozen=True)
class FileOutcome:
    """What became of a file: ``state`` is applied, superseded or known; the counts add up to ``rows_read``."""

    file_name: str
    contract: str
    as_of: date
    state: str
    rows_read: int = 0
    inserted: int = 0
    updated: int = 0
    unchanged: int = 0
    quarantined: int = 0
    superseded: int = 0
    settled: int = 0
    reopened: int = 0
    warned: int = 0

    def counts(self) -> dict[str, int]:
        """The counts by name."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.type == "int"}


Apply = Callable[[Connection, StagedFile], Applied]


def take_in(
    connection: Connection,
    *,
    contract: FeedContract,
    fingerprint: Fingerprint,
    raw: RawTable,
    cast: CastTable,
    as_of: date,
    revision: int,
    run_id: int,
    apply: Apply,
    accepted_guards: Sequence[str] = (),
) -> FileOutcome:
    """Take one file in, inside the caller's transaction, and return what became of it.

    Raises:
        FileRefused: the same content came under another date, or two different files claim the same one.
    """
    _serialise(connection, contract)
    known = _known_outcome(connection, contract, fingerprint, as_of)
    if known is not None:
        return known
    _refuse_conflicts(connection, contract, fingerprint, as_of, revision, accepted_guards)
    if _is_outdated_revision(connection, contract, as_of, revision):
        return _register_superseded(connection, contract, fingerprint, as_of, revision, run_id, len(cast.frame))
    replaces = _retire_older_revision(connection, contract, as_of)
    feed_file_id = _register(connection, contract, fingerprint, as_of, revision, run_id, raw)
    staged = StagedFile(feed_file_id, contract, staging_table(contract), as_of, revision, replaces)
    _stage(connection, staged, cast.frame)
    warned = _judge(connection, staged, raw, cast)
    fates = _count_fates(connection)
    applied = apply(connection, staged)
    outcome = _outcome(fingerprint, staged, len(cast.frame), fates, applied, warned)
    _write_counts(connection, feed_file_id, outcome)
    connection.exec_driver_sql(f"truncate {staged.staging}")
    return outcome


def staging_table(contract: FeedContract) -> str:
    """The unlogged table that a feed's rows are judged in."""
    by_feed = {"open_items": "staged_items", "settled_items": "staged_items"}
    return "landing." + by_feed.get(contract.feed, f"staged_{contract.feed}")


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


def _serialise(connection: Connection, contract: FeedContract) -> None:
    """Let one file of a feed in at a time, whichever flow or command brings it."""
    table = staging_table(contract)
    connection.execute(text("select pg_advisory_xact_lock(hashtext(:key))"), {"key": f"kontor staging {table}"})


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


def _refuse_conflicts(
    connection: Connection,
    contract: FeedContract,
    fingerprint: Fingerprint,
    as_of: date,
    revision: int,
    accepted_guards: Sequence[str],
) -> None:
    """Refuse what cannot be decided without a person: only snapshots say something by what they leave out."""
    if contract.mode != "snapshot":
        return
    others = connection.execute(
        text(
            "select file_name, as_of, revision, sha256 = :sha256 as same from landing.feed_files"
            " where feed = :feed and source = :source and state <> 'refused' and mode = 'snapshot'"
            " and (sha256 = :sha256 or (as_of = :as_of and revision = :revision)) order by as_of limit 1"
        ),
        {**_identity(contract, fingerprint), "as_of": as_of, "revision": revision},
    ).one_or_none()
    if others is None or (others.same and "same_content" in accepted_guards):
        return
    raise _conflict(fingerprint, as_of, revision, others.file_name, others.as_of, others.same)


def _conflict(
    fingerprint: Fingerprint, as_of: date, revision: int, other_name: str, other_as_of: date, same: bool
) -> FileRefused:
    if same:
        return FileRefused(
            fingerprint.file_name,
            [f"it is dated {as_of}, but its content is byte for byte that of {other_name}, dated {other_as_of}"],
            hint="Ask for the right week's export. If truly nothing changed, import it again with"
            " --accept-guard same_content --reason '…'.",
        )
    return FileRefused(
        fingerprint.file_name,
        [f"{other_name} already is revision {revision} of the snapshot as of {as_of}, with other content"],
        hint=f"If this one corrects it, import it with --revision {revision + 1}.",
    )


def _is_outdated_revision(connection: Connection, contract: FeedContract, as_of: date, revision: int) -> bool:
    if contract.mode != "snapshot":
        return False
    return bool(
        connection.scalar(
            text(
                "select exists (select from landing.feed_files where feed = :feed and source = :source"
                " and as_of = :as_of and revision > :revision and mode = 'snapshot' and state = 'applied')"
            ),
            {"feed": contract.feed, "source": contract.source, "as_of": as_of, "revision": revision},
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
    if contract.mode != "snapshot":
        return False
    retired = connection.scalars(
        text(
            "update landing.feed_files set state = 'superseded' where feed = :feed and source = :source"
            " and as_of = :as_of and mode = 'snapshot' and state = 'applied' returning feed_file_id"
        ),
        {"feed": contract.feed, "source": contract.source, "as_of": as_of},
    ).all()
    connection.execute(
        text(
            "update landing.quarantined_rows set state = 'superseded', resolved_at = now()"
            " where feed_file_id = any(:retired) and state = 'open'"
        ),
        {"retired": list(retired)},
    )
    return bool(retired)


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
    run_id: int,
    raw: RawTable,
) -> int:
    return int(
        connection.execute(
            text(
                "insert into landing.feed_files (contract, contract_version, contract_sha256, feed, source, mode,"
                " file_name, sha256, byte_size, as_of, revision, state, totals, run_id)"
                " values (:contract, :contract_version, :contract_sha256, :feed, :source, :mode,"
                " :file_name, :sha256, :byte_size, :as_of, :revision, 'applied', :totals, :run_id)"
                " returning feed_file_id"
            ).bindparams(bindparam("totals", type_=JSONB)),
            {
                **_identity(contract, fingerprint),
                "as_of": as_of,
                "revision": revision,
                "totals": dict(raw.totals),
                "run_id": run_id,
            },
        ).scalar_one()
    )


def _stage(connection: Connection, staged: StagedFile, frame: pd.DataFrame) -> None:
    """Empty the staging table and COPY the typed rows into it, good and bad alike."""
    columns = [column.name for column in metadata.tables[staged.staging].columns if column.name in frame.columns]
    connection.exec_driver_sql(f"truncate {staged.staging}")
    copy_frame(connection, staged.staging, frame[columns])
    connection.exec_driver_sql(f"analyze {staged.staging}")
    connection.exec_driver_sql(
        "create temporary table row_fate (row_number integer primary key, fate text not null,"
        " reasons jsonb not null default '[]', awaits_customer boolean not null default false) on commit drop"
    )


def copy_frame(connection: Connection, table: str, frame: pd.DataFrame) -> None:
    """COPY a frame whose columns are named as the table's into ``table``; nulls stay nulls."""
    arrow = pa.Table.from_pandas(frame, preserve_index=False)
    buffer = io.BytesIO()
    pyarrow.csv.write_csv(arrow, buffer, pyarrow.csv.WriteOptions(include_header=False))
    driver = connection.connection.driver_connection
    if driver is None:
        raise Refused("The connection was closed while a file was being loaded.", hint="Run the command again.")
    with (
        driver.cursor() as cursor,
        cursor.copy(f"copy {table} ({', '.join(frame.columns)}) from stdin (format csv)") as copy,
    ):
        copy.write(buffer.getbuffer())


def _judge(connection: Connection, staged: StagedFile, raw: RawTable, cast: CastTable) -> int:
    """Decide every row's fate and quarantine the bad ones with all their reasons; return the rows warned about."""
    reasons = [_reason_of_problem(row) for row in cast.problems.to_dict("records")]
    failures = _failed_checks(connection, staged)
    reasons += [
        _reason_of_check(failure, raw, staged.contract) for failure in failures if failure.check.severity == "error"
    ]
    reasons += _key_collisions(connection, staged, raw)
    awaiting = _unknown_customers(connection, staged, raw)
    reasons += awaiting
    _write_fates(connection, reasons, {int(reason["row_number"]) for reason in awaiting})
    _quarantine(connection, staged, raw)
    return len({failure.row_number for failure in failures if failure.check.severity == "warn"})


Reason = dict[str, str | int | None]


def _reason_of_problem(problem: Mapping[str, object]) -> Reason:
    return {
        "row_number": int(str(problem["row_number"])),
        "column_name": str(problem["column_name"]),
        "cell": str(problem["cell"]),
        "raw_value": None if problem["raw_value"] is None else str(problem["raw_value"]),
        "code": str(problem["code"]),
        "reason": str(problem["reason"]),
    }


@dataclass(frozen=True)
class FailedCheck:
    """A row that does not hold to a check, with the values of the check's columns."""

    row_number: int
    check: RowCheck
    values: Mapping[str, str | None]


def _failed_checks(connection: Connection, staged: StagedFile) -> list[FailedCheck]:
    """Run all checks of the contract in one pass; a check whose value is unknown holds."""
    checks = staged.contract.checks
    if not checks:
        return []
    flags = ", ".join(f"coalesce(not ({check.sql}), false) as check_{place}" for place, check in enumerate(checks))
    columns = sorted({column for check in checks for column in check.columns})
    values = ", ".join(f"{column}::text as {column}" for column in columns)
    found = connection.execute(
        text(
            f"select * from (select row_number, {flags}, {values}"  # noqa: S608 - from the contract, not from data
            f" from (select s.*, cast(:as_of as date) as as_of from {staged.staging} s) s) judged"
            f" where {' or '.join(f'check_{place}' for place in range(len(checks)))} order by row_number"
        ),
        {"as_of": staged.as_of},
    ).mappings()
    return [
        FailedCheck(row["row_number"], check, {column: row[column] for column in check.columns})
        for row in found
        for place, check in enumerate(checks)
        if row[f"check_{place}"]
    ]


def _address(raw: RawTable, column: str, row_number: int) -> str:
    return f"{raw.letters.get(column, '')}{row_number}"


def _reason_of_check(failure: FailedCheck, raw: RawTable, contract: FeedContract) -> Reason:
    column = failure.check.columns[-1]
    return {
        "row_number": failure.row_number,
        "column_name": column,
        "cell": _address(raw, column, failure.row_number),
        "raw_value": failure.values[column],
        "code": failure.check.name,
        "reason": failure.check.reason.format_map(
            {k: v if v is not None else "nothing" for k, v in failure.values.items()}
        ),
    }


def _key_collisions(connection: Connection, staged: StagedFile, raw: RawTable) -> list[Reason]:
    """Rows of this file that claim the same key, each with the other's address; harmless copies are set aside."""
    contract = staged.contract
    key = ", ".join(contract.key)
    present = " and ".join(f"{column} is not null" for column in contract.key)
    content = (
        f"md5(row({', '.join(column.name for column in contract.columns if _is_staged(staged, column.name))})::text)"
    )
    groups = connection.execute(
        text(
            f"select array_agg(row_number order by row_number) as rows, count(distinct {content}) as contents"  # noqa: S608
            f" from {staged.staging} where {present} group by {key} having count(*) > 1 order by 1"
        )
    ).all()
    reasons: list[Reason] = []
    spare: list[int] = []
    for group in groups:
        keep = _kept_of_group(contract, list(group.rows), int(group.contents))
        if keep is None:
            reasons += [_collision(raw, contract, row, group.rows) for row in group.rows]
        else:
            spare += [row for row in group.rows if row != keep]
    _set_aside(connection, spare)
    return reasons


def _is_staged(staged: StagedFile, column: str) -> bool:
    return column in metadata.tables[staged.staging].columns


def _kept_of_group(contract: FeedContract, rows: Sequence[int], contents: int) -> int | None:
    """The one row of a colliding group that stands, or None where a person must decide."""
    if contract.duplicate_rows == "keep_last":
        return rows[-1]
    if contract.duplicate_rows == "identical" and contents == 1:
        return rows[0]
    return None


def _collision(raw: RawTable, contract: FeedContract, row: int, rows: Sequence[int]) -> Reason:
    column = contract.key[-1]
    others = ", ".join(_address(raw, column, other) for other in rows if other != row)
    return {
        "row_number": row,
        "column_name": column,
        "cell": _address(raw, column, row),
        "raw_value": None,
        "code": "duplicate_key",
        "reason": f"the same {' and '.join(contract.key)} also stands in {others}; only one of them can be right",
    }


def _set_aside(connection: Connection, rows: Sequence[int]) -> None:
    connection.execute(
        text(
            "insert into row_fate (row_number, fate) select r, 'superseded' from unnest(cast(:rows as integer[])) r"
            " on conflict do nothing"
        ),
        {"rows": list(rows)},
    )


def _unknown_customers(connection: Connection, staged: StagedFile, raw: RawTable) -> list[Reason]:
    """Rows whose customer is not there yet; they wait in quarantine, unless the contract creates customers."""
    if staged.contract.feed == "organizations" or staged.contract.missing_customer == "create":
        return []
    rows = connection.execute(
        text(
            f"select s.row_number, s.customer_number from {staged.staging} s"  # noqa: S608
            " where s.customer_number is not null and not exists"
            " (select from crm.organizations o where o.customer_number = s.customer_number) order by 1"
        )
    ).all()
    return [
        {
            "row_number": row.row_number,
            "column_name": "customer_number",
            "cell": _address(raw, "customer_number", row.row_number),
            "raw_value": row.customer_number,
            "code": "unknown_customer",
            "reason": "no customer has this number yet; the row is taken in by itself when the customer arrives",
        }
        for row in rows
    ]


def _write_fates(connection: Connection, reasons: Sequence[Reason], awaiting: set[int]) -> None:
    by_row: dict[int, list[Reason]] = {}
    for reason in reasons:
        by_row.setdefault(int(str(reason["row_number"])), []).append(reason)
    if not by_row:
        return
    connection.execute(
        text(
            "insert into row_fate (row_number, fate, reasons, awaits_customer)"
            " select r.row_number, 'quarantined', r.reasons, r.awaits_customer"
            " from jsonb_to_recordset(:rows) as r(row_number integer, reasons jsonb, awaits_customer boolean)"
            " on conflict (row_number) do update set fate = 'quarantined', reasons = excluded.reasons,"
            " awaits_customer = excluded.awaits_customer"
        ).bindparams(bindparam("rows", type_=JSONB)),
        {
            "rows": [
                {
                    "row_number": row,
                    "reasons": [{k: v for k, v in reason.items() if k != "row_number"} for reason in found],
                    # A row that is wrong in another way too must be corrected; its customer alone does not mend it.
                    "awaits_customer": row in awaiting and len(found) == 1,
                }
                for row, found in by_row.items()
            ]
        },
    )


def _quarantine(connection: Connection, staged: StagedFile, raw: RawTable) -> None:
    rows = connection.scalars(text("select row_number from row_fate where fate = 'quarantined' order by 1")).all()
    if not rows:
        return
    key = ITEM_KEY_COLUMN.get(staged.staging.removeprefix("landing."), "null::text")
    connection.execute(
        text(
            "insert into landing.quarantined_rows (feed_file_id, row_number, customer_number, item_key, cells,"
            " staged, reasons, awaits_customer)"
            f" select :feed_file_id, f.row_number, s.customer_number, {key}, r.cells, to_jsonb(s), f.reasons,"  # noqa: S608
            f" f.awaits_customer from row_fate f join {staged.staging} s using (row_number)"
            " join jsonb_to_recordset(:rows) as r(row_number integer, cells jsonb) using (row_number)"
            " where f.fate = 'quarantined'"
        ).bindparams(bindparam("rows", type_=JSONB)),
        {"feed_file_id": staged.feed_file_id, "rows": raw_rows(raw, rows)},
    )


def _count_fates(connection: Connection) -> dict[str, int]:
    rows = connection.execute(text("select fate, count(*) from row_fate group by fate")).all()
    return {fate: int(count) for fate, count in rows}


def _outcome(
    fingerprint: Fingerprint,
    staged: StagedFile,
    rows_read: int,
    fates: Mapping[str, int],
    applied: Applied,
    warned: int,
) -> FileOutcome:
    return FileOutcome(
        file_name=fingerprint.file_name,
        contract=staged.contract.name,
        as_of=staged.as_of,
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
