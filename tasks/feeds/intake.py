"""From a file on disk to its outcome: read, cast, dated, taken in, archived. What a step of Prefect calls.

A file that is refused leaves a line in ``landing.feed_files`` with every reason, and nothing else. A file that was
taken in is kept under ``KONTOR_HOME/archive``, so that a past period can be read again.
"""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from datetime import date
from fnmatch import fnmatch
from pathlib import Path

from sqlalchemy import Engine
from sqlalchemy.exc import DataError

from tasks.erasures.keys import ErasureKey
from tasks.errors import DependencyDown, FileRefused, UsageError
from tasks.feeds.business_date import find_as_of, find_revision, find_sequence
from tasks.feeds.casting import CastTable, cast_table
from tasks.feeds.confined import read_confined
from tasks.feeds.contracts import FeedContract, list_contracts, load_contract
from tasks.feeds.guards_store import Overruling
from tasks.feeds.inbox import UNFINISHED, shown_name
from tasks.feeds.outcomes import Apply, FileOutcome, Fingerprint
from tasks.feeds.preview_store import preview
from tasks.feeds.raw_table import RawTable
from tasks.feeds.store import record_refusal, take_in

SETTLE_SECONDS = 2.0
_CHUNK = 1 << 20
_LONGEST_NAME = 240  # of 255 bytes, less what a partial copy is marked with

Look = tuple[int, int]  # size in bytes and time of the last change in nanoseconds


@dataclass(frozen=True)
class Given:
    """What the person or the flow says about a file, beside the file itself."""

    business_today: date
    as_of: date | None = None
    revision: int | None = None
    accepted_guards: tuple[str, ...] = ()
    dry_run: bool = False
    reason: str = ""
    erasure_key: ErasureKey | None = None  # recognises those who asked to be erased


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
        BadInput: a contract that claims one is not valid; the files that others claim wait too.
        UsageError: two contracts that do not build on each other claim the same file.
    """
    if not inbox.is_dir():
        return []
    found, whole = [], functools.cache(load_contract)
    for path in sorted(inbox.iterdir()):
        if not path.is_file() or any(fnmatch(path.name, pattern) for pattern in UNFINISHED):
            continue
        contract = _claimed_by(path, contracts)
        if contract is not None:
            found.append(InboxFile(path, whole(contract.path)))
    return found


def look_at(path: Path) -> Look | None:
    """What a file looks like from outside, None where there is none; two equal looks mean nobody wrote in between."""
    try:
        seen = path.stat()
    except FileNotFoundError:
        return None
    return seen.st_size, seen.st_mtime_ns


def settled_files(
    files: Sequence[InboxFile],
    *,
    clock: Callable[[], float] = time.time,
    pause: Callable[[float], None] = time.sleep,
) -> list[InboxFile]:
    """The files that nobody is writing any more, in the same order; the rest is for the next run.

    A file that was changed within the last ``SETTLE_SECONDS`` is looked at again after that time, all such files
    together, and taken if it stood still. So a run waits once and only when something has just arrived. A sender who
    stops for longer in the middle of a file is caught by what judges files: a workbook without its end is refused, a
    list that lost half its rows or its totals is stopped by a guard.
    """
    first = {file.path: look_at(file.path) for file in files}
    # A time of change that lies ahead is another machine's clock; such a file is looked at twice, too.
    young = {path for path, look in first.items() if look and clock() - look[1] / 1e9 < SETTLE_SECONDS}
    if young:
        pause(SETTLE_SECONDS)
    moving = {path for path in young if look_at(path) != first[path]}
    return [file for file in files if file.path not in moving and first[file.path] is not None]


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
            names={path.name: "A file"},
        )
    return nearest[0] if nearest else None


def fingerprint_of(path: Path) -> Fingerprint:
    """The file's name, SHA-256 and size."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return Fingerprint(shown_name(path), digest.hexdigest(), path.stat().st_size)


def take_in_file(engine: Engine, file: InboxFile, *, given: Given, run_id: int, apply: Apply) -> FileOutcome:
    """Take one file in and return its outcome; a refused file is an outcome too, with its reasons.

    Raises:
        DependencyDown and other database errors; then nothing of the file was applied.
    """
    seen = look_at(file.path)
    fingerprint = fingerprint_of(file.path)
    as_of = given.as_of
    try:
        raw, typed = _opened(file)
        _refuse_changed(file, seen)
        as_of = _business_date(file, raw, given)
        with _values_that_fit(file):
            sequence = _sequence(file, raw, seen)
            outcome = _apply(engine, file, fingerprint, raw, typed, as_of, sequence, given, run_id, apply)
        return replace(outcome, sha256=fingerprint.sha256, remarks=raw.remarks)
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
            fingerprint.file_name,
            file.contract.name,
            as_of,
            "refused",
            reasons=refusal.reasons,
            hint=refusal.hint,
            sha256=fingerprint.sha256,
            mentions=tuple(refusal.names),
        )


@contextmanager
def _values_that_fit(file: InboxFile) -> Iterator[None]:
    """Make a value that the database cannot hold the file's fault, so that it never stops the files behind it.

    Raises:
        FileRefused: with the SQLSTATE; the database's own text would quote the value.
    """
    try:
        yield
    except DataError as error:
        raise FileRefused(
            shown_name(file.path),
            [f"a value in it cannot be stored (SQLSTATE {getattr(error.orig, 'sqlstate', 'none')})"],
            hint="Look for control characters and for numbers out of all proportion, and send the file again.",
        ) from None


def read_file(file: InboxFile) -> tuple[RawTable, CastTable]:
    """The file's rows as text and typed, read in a confined process; needs no database.

    Raises:
        FileRefused: it cannot be read, or none of its rows can.
    """
    raw = read_confined(file.path, file.contract)
    return raw, _typed(file, raw)


def _typed(file: InboxFile, raw: RawTable) -> CastTable:
    cast = cast_table(raw, file.contract)
    _refuse_without_a_good_row(file, cast)
    return cast


# Who reads the files that are taken in; reading ahead puts itself here.
reader: ContextVar[Callable[[InboxFile], tuple[RawTable, CastTable]]] = ContextVar("reader", default=read_file)


def _opened(file: InboxFile) -> tuple[RawTable, Callable[[], CastTable]]:
    """The file's rows as text, and what types them when it is asked to, beside other work.

    What was read ahead is typed already.
    """
    read = reader.get()
    if read is not read_file:
        raw, cast = read(file)
        return raw, lambda: cast
    raw = read_confined(file.path, file.contract)
    return raw, functools.partial(_typed, file, raw)


def _refuse_changed(file: InboxFile, seen: Look | None) -> None:
    """A file that is written while it is read would be registered by one content and believed by another.

    Raises:
        FileRefused: it looks different now.
    """
    now = look_at(file.path)
    if now != seen:
        told = [f"{look[0]} bytes" if look else "not there" for look in (seen, now)]
        raise FileRefused(
            file.path.name,
            [f"it was being written while it was read ({told[0]} at first, then {told[1]})"],
            hint="Run the flow again when the sender has finished; nothing else is to be done.",
        )


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


def _sequence(file: InboxFile, raw: RawTable, seen: Look | None) -> str:
    written = seen[1] if seen else 0
    return find_sequence(file.contract, file_name=file.path.name, titles=raw.titles, written_ns=written)


def _apply(
    engine: Engine,
    file: InboxFile,
    fingerprint: Fingerprint,
    raw: RawTable,
    typed: Callable[[], CastTable],
    as_of: date,
    sequence: str,
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
            typed=typed,
            as_of=as_of,
            revision=find_revision(file.contract, file_name=file.path.name, given=given.revision),
            run_id=run_id,
            apply=apply,
            sequence=sequence,
            overruling=Overruling(given.accepted_guards, given.reason),
            erasure_key=given.erasure_key,
        )
        if given.dry_run:
            seen = preview(connection, file.contract, fingerprint, as_of)
            transaction.rollback()
            return replace(outcome, dry_run=True, preview=seen)
    return outcome


def archive(file: InboxFile, outcome: FileOutcome, *, home: Path, inbox: Path, seen: Look | None = None) -> Path | None:
    """Keep the file under ``home/archive``, take it out of the inbox and return where it is kept.

    Files from elsewhere stay where they are. Where the file no longer looks as when it was ``seen``, its name stands
    for something that nobody has read: it is left to the next run, and the answer is None.

    Done after the commit: a process killed in between leaves the file in the inbox, where the next run knows it by its
    content and only archives it.

    Raises:
        DependencyDown: it cannot be kept, for example because the disk is full; it stays in the inbox.
    """
    folder = home / "archive" / file.contract.name
    try:
        target = _keep(file, outcome, folder, seen)
        if target is not None and file.path.resolve().parent == inbox.resolve():
            file.path.unlink(missing_ok=True)
    except OSError as error:
        raise DependencyDown(
            f"{file.path.name} was taken in, but cannot be moved to {folder}: {error.strerror}. It stays in the inbox.",
            hint="Free space there or correct its rights, then run the flow again: it knows the file and moves it.",
            names={file.path.name: "A file", str(folder): "the archive"},
        ) from error
    return target


def _archive_name(path: Path, as_of: date | None, fingerprint: Fingerprint) -> str:
    """Day, content and name; a name too long for a file system loses its middle, never its ending."""
    head = f"{as_of}_{fingerprint.sha256[:12]}_"
    room = _LONGEST_NAME - len(head) - len(os.fsencode(path.suffix))
    return head + os.fsdecode(os.fsencode(path.stem)[:room]) + path.suffix


def _keep(file: InboxFile, outcome: FileOutcome, folder: Path, seen: Look | None) -> Path | None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    fingerprint = fingerprint_of(file.path)
    target = folder / _archive_name(file.path, outcome.as_of, fingerprint)
    partial = target.with_name(f".{target.name}.part")
    try:
        if not target.exists():
            shutil.copyfile(file.path, partial)
            partial.chmod(0o600)
            written = file.path.stat().st_mtime_ns
            os.utime(partial, ns=(written, written))  # tells files of one day apart when they are read again
            with partial.open("rb") as stream:
                os.fsync(stream.fileno())
        if seen is not None and look_at(file.path) != seen:
            return None
        if partial.exists():
            partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return target
