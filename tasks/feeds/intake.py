"""From a file on disk to its outcome: read, cast, dated, taken in, archived. What a step of Prefect calls.

A file that is refused leaves a line in ``landing.feed_files`` with every reason, and nothing else. A file that was
taken in is kept under ``KONTOR_HOME/archive``, so that a past period can be read again.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date
from fnmatch import fnmatch
from pathlib import Path

from sqlalchemy import Engine

from tasks.errors import FileRefused, UsageError
from tasks.feeds.business_date import find_as_of, find_revision
from tasks.feeds.casting import CastTable, cast_table
from tasks.feeds.confined import read_confined
from tasks.feeds.contracts import FeedContract, list_contracts
from tasks.feeds.guards_store import Overruling
from tasks.feeds.outcomes import Apply, FileOutcome, Fingerprint
from tasks.feeds.reading import RawTable
from tasks.feeds.store import record_refusal, take_in

UNFINISHED = ("~$*", ".*", "*.part", "*.tmp", "*.crdownload", "*.filepart")
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Given:
    """What the person or the flow says about a file, beside the file itself."""

    business_today: date
    as_of: date | None = None
    revision: int | None = None
    accepted_guards: tuple[str, ...] = ()
    dry_run: bool = False
    reason: str = ""


@dataclass(frozen=True)
class InboxFile:
    """A file and the contract it is read by."""

    path: Path
    contract: FeedContract


def installed_contracts(home: Path, feeds: Sequence[str]) -> list[FeedContract]:
    """The contracts of these feeds: the ones Kontor ships and the senders' own in ``KONTOR_HOME/contracts``."""
    own = home / "contracts"
    contracts = list_contracts() + (list_contracts(own) if own.is_dir() else [])
    return [contract for contract in contracts if contract.feed in feeds]


def find_inbox_files(inbox: Path, contracts: Sequence[FeedContract]) -> list[InboxFile]:
    """The inbox's finished files that one of these contracts claims by name, ordered by name.

    Raises:
        UsageError: two contracts that do not build on each other claim the same file.
    """
    if not inbox.is_dir():
        return []
    found = []
    for path in sorted(inbox.iterdir()):
        if not path.is_file() or any(fnmatch(path.name, pattern) for pattern in UNFINISHED):
            continue
        contract = _claimed_by(path, contracts)
        if contract is not None:
            found.append(InboxFile(path, contract))
    return found


def _claimed_by(path: Path, contracts: Iterable[FeedContract]) -> FeedContract | None:
    name = path.name.lower()
    claims = [c for c in contracts if any(fnmatch(name, pattern.lower()) for pattern in c.file_patterns)]
    # A sender's own contract is nearer to the file than the one it extends.
    nearest = [c for c in claims if not any(c.name in other.extends for other in claims)]
    if len(nearest) > 1:
        names = ", ".join(contract.name for contract in nearest)
        raise UsageError(
            f"{path.name} is claimed by several contracts: {names}.",
            hint="Make their filePatterns exclude each other, or import it with `kontor import FILE --contract NAME`.",
        )
    return nearest[0] if nearest else None


def fingerprint_of(path: Path) -> Fingerprint:
    """The file's name, SHA-256 and size."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return Fingerprint(path.name, digest.hexdigest(), path.stat().st_size)


def take_in_file(engine: Engine, file: InboxFile, *, given: Given, run_id: int, apply: Apply) -> FileOutcome:
    """Take one file in and return its outcome; a refused file is an outcome too, with its reasons.

    Raises:
        DependencyDown and other database errors; then nothing of the file was applied.
    """
    fingerprint = fingerprint_of(file.path)
    as_of = given.as_of
    try:
        raw, cast = _read(file)
        as_of = _business_date(file, raw, given)
        return _apply(engine, file, fingerprint, raw, cast, as_of, given, run_id, apply)
    except FileRefused as refusal:
        if not given.dry_run:
            with engine.begin() as connection:
                record_refusal(
                    connection,
                    contract=file.contract,
                    fingerprint=fingerprint,
                    as_of=as_of,
                    reasons=refusal.reasons,
                    run_id=run_id,
                )
        return FileOutcome(
            file.path.name, file.contract.name, as_of, "refused", reasons=refusal.reasons, hint=refusal.hint
        )


def _read(file: InboxFile) -> tuple[RawTable, CastTable]:
    raw = read_confined(file.path, file.contract)
    cast = cast_table(raw, file.contract)
    _refuse_without_a_good_row(file, cast)
    return raw, cast


def _refuse_without_a_good_row(file: InboxFile, cast: CastTable) -> None:
    """A file of which no row can be read is of another nature: believed, it would say that nothing is listed any more.

    Raises:
        FileRefused: one reason per column, with the rows it concerns and the first of them.
    """
    problems = cast.problems
    if not len(cast.frame) or problems["row_number"].nunique() < len(cast.frame):
        return
    reasons = [f"none of its {len(cast.frame)} rows can be read"]
    for column, found in problems.groupby("column_name", sort=False):
        first = found.iloc[0]
        reasons.append(f"{column}: {len(found)} cells, the first in {first['cell']}: {first['reason']}")
    raise FileRefused(
        file.path.name,
        reasons,
        hint="See how it was understood with `kontor contracts check FILE --contract NAME`; another layout or date"
        " format needs a contract of its own.",
    )


def _business_date(file: InboxFile, raw: RawTable, given: Given) -> date:
    as_of = find_as_of(
        file.contract,
        file_name=file.path.name,
        titles=raw.titles,
        given=given.as_of,
        received_on=given.business_today,
    )
    if as_of > given.business_today:
        raise FileRefused(
            file.path.name,
            [f"its business date {as_of} lies after today, {given.business_today}"],
            hint="Correct the date in the file's name or title, or give the right one with --as-of.",
        )
    return as_of


def _apply(
    engine: Engine,
    file: InboxFile,
    fingerprint: Fingerprint,
    raw: RawTable,
    cast: CastTable,
    as_of: date,
    given: Given,
    run_id: int,
    apply: Apply,
) -> FileOutcome:
    with engine.connect() as connection, connection.begin() as transaction:
        outcome = take_in(
            connection,
            contract=file.contract,
            fingerprint=fingerprint,
            raw=raw,
            cast=cast,
            as_of=as_of,
            revision=find_revision(file.contract, file_name=file.path.name, given=given.revision),
            run_id=run_id,
            apply=apply,
            overruling=Overruling(given.accepted_guards, given.reason),
        )
        if given.dry_run:
            transaction.rollback()
            return replace(outcome, dry_run=True)
    return outcome


def archive(file: InboxFile, outcome: FileOutcome, *, home: Path, inbox: Path) -> Path:
    """Keep the file under ``home/archive`` and take it out of the inbox; files from elsewhere stay where they are.

    Done after the commit: a process killed in between leaves the file in the inbox, where the next run knows it by its
    content and only archives it.
    """
    folder = home / "archive" / file.contract.name
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    fingerprint = fingerprint_of(file.path)
    target = folder / f"{outcome.as_of}_{fingerprint.sha256[:12]}_{file.path.name}"
    if not target.exists():
        partial = target.with_name(f".{target.name}.part")
        shutil.copyfile(file.path, partial)
        partial.chmod(0o600)
        with partial.open("rb") as stream:
            os.fsync(stream.fileno())
        partial.replace(target)
    if file.path.resolve().parent == inbox.resolve():
        file.path.unlink(missing_ok=True)
    return target
