"""The erasure ledger: a file outside the database that says who was erased, written before anything is destroyed.

``KONTOR_HOME/erasures/ledger.jsonl`` holds one JSON object a line, added to and never changed. A line carries the hash
of the one before it, so that a line that was changed, removed or put in is found. Nobody is named in it: a subject is
its immutable ``external_id`` and keyed hashes of its key and its address (:mod:`tasks.erasures.keys`).

    {"sequence": 1, "at": "2026-03-01T04:00:00+00:00", "kind": "erasure", "entity": "crm.contacts", "rule_id":
     "contacts-inactive", "rule_version": 1, "reference": "", "refers_to": [],
     "subjects": [["<external id>", "<key>", "<address>"]], "previous": "<hash>", "hash": "<hash>"}

The kinds of a line:

    erasure   subjects that a rule let go; a restored or replayed record of the same identity goes again
    request   subjects erased because they asked for it; whatever brings them back later goes too
    void      the lines in ``refers_to`` came to nothing: the process died before it destroyed what they name
    hold      subjects under a legal hold, ``reference`` is its number; a replay leaves them alone
    release   the hold of this ``reference`` has ended

A line is on the disk when :meth:`ErasureLedger.append` returns. A process that dies while it writes leaves a torn last
line, behind which nothing was destroyed; reading passes over it and the next writer cuts it off.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, NamedTuple, overload

from tasks.errors import BadInput, Refused

KINDS = ("erasure", "request", "void", "hold", "release")
NO_LINE = "0" * 64
_TAIL = 1 << 16


class Subject(NamedTuple):
    """One subject of a line; ``key`` and ``address`` are keyed hashes in hexadecimal, None where there is none."""

    external_id: str | None
    key: str | None = None
    address: str | None = None


class Listed(Sequence[Subject]):
    """Subjects as the database has listed them in JSON: they go into the ledger as they are, read only when needed."""

    def __init__(self, text: str, size: int) -> None:
        self.text = text
        self._size = size

    def __len__(self) -> int:
        return self._size

    @overload
    def __getitem__(self, place: int) -> Subject: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Subject]: ...
    def __getitem__(self, place: int | slice) -> Subject | Sequence[Subject]:
        return tuple(Subject(*subject) for subject in json.loads(self.text))[place]


# How SQL lists subjects: the text of one, and what goes between two, exactly as json.dumps has it.
SUBJECT_SQL = """'["' || {external_id} || '",' || coalesce('"' || {key_hash} || '"', 'null') || ',null]'"""


@dataclass(frozen=True)
class Entry:
    """What is to be written: everything of a line but its place in the chain."""

    at: datetime
    kind: str
    entity: str = ""
    rule_id: str = ""
    rule_version: int = 0
    reference: str = ""
    subjects: Sequence[Subject] = ()
    refers_to: Sequence[int] = ()


@dataclass(frozen=True)
class Line(Entry):
    """A line as it stands in the ledger, with its sequence number and its hash."""

    sequence: int = 0
    hash: str = NO_LINE


@dataclass(frozen=True)
class Extent:
    """How far a ledger goes: its lines, the subjects in them, and the number and hash of the newest line."""

    lines: int = 0
    subjects: int = 0
    sequence: int = 0
    hash: str = NO_LINE


@dataclass
class ErasureLedger:
    """The ledger at ``path``; several processes may hold one, writers come one after another."""

    path: Path
    _known: tuple[int, int, str] | None = field(default=None, repr=False)  # size, sequence and hash as we left them

    def append(self, entries: Sequence[Entry]) -> list[Line]:
        """Write these entries as one durable addition and return their lines.

        Raises:
            BadInput: the newest line cannot be read, so that nothing can be added behind it.
        """
        with self._opened() as stream:
            sequence, previous = self._end(stream)
            lines, text = [], []
            for entry in entries:
                sequence += 1
                body = _body(entry, sequence, previous)
                previous = _digest(body, entry.subjects)
                text.append(_text({**body, "hash": previous}, entry.subjects))
                lines.append(_line({**body, "hash": previous}, entry.subjects))
            stream.write(("".join(f"{line}\n" for line in text)).encode())
            stream.flush()
            os.fsync(stream.fileno())
            self._known = (stream.tell(), sequence, previous)
        return lines

    def read(self, after: int = 0) -> Iterator[Line]:
        """The lines behind sequence number ``after``, oldest first, each checked against the one before it.

        Raises:
            BadInput: a line was changed, removed or put in; the text says which.
        """
        previous, expected = NO_LINE, 1
        for raw in self._raw_lines():
            body = _parsed(raw, expected)
            if body["sequence"] != expected or body["previous"] != previous or _hashed(raw, body) != body["hash"]:
                raise _broken(expected)
            previous, expected = str(body["hash"]), expected + 1
            if expected - 1 > after:
                yield _line(body)

    def verify(self) -> Extent:
        """How far the ledger goes, every line of it checked; a ledger that does not exist has no lines.

        Raises:
            BadInput: the chain is broken; the text says where.
        """
        extent = Extent()
        for line in self.read():
            extent = Extent(extent.lines + 1, extent.subjects + len(line.subjects), line.sequence, line.hash)
        return extent

    def in_force(self, lines: Sequence[Line] | None = None) -> list[Line]:
        """The erasures and requests that were carried out, oldest first: all but the voided ones.

        ``lines`` are the ledger's own, where they have been read already.
        """
        lines = list(self.read()) if lines is None else lines
        voided = {number for line in lines if line.kind == "void" for number in line.refers_to}
        return [line for line in lines if line.kind in ("erasure", "request") and line.sequence not in voided]

    @contextmanager
    def _opened(self) -> Iterator[IO[bytes]]:
        """The file, made if need be, locked against other writers."""
        if not self.path.exists():
            self._create()
        with self.path.open("r+b") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            yield stream

    def _create(self) -> None:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))
        for folder in (self.path.parent, self.path.parent.parent):  # a new name is durable once its folder is
            handle = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)

    def _end(self, stream: IO[bytes]) -> tuple[int, str]:
        """Place the stream behind the newest whole line, cut off a torn one, and return that line's number and hash."""
        size = stream.seek(0, os.SEEK_END)
        if self._known is not None and self._known[0] == size:
            return self._known[1:]
        tail = _tail_with_a_line(stream, size)
        whole = tail.rfind(b"\n") + 1
        stream.truncate(size - len(tail) + whole)
        stream.seek(0, os.SEEK_END)
        newest = tail[:whole].splitlines()[-1:]
        if not newest:
            return 0, NO_LINE
        body = _parsed(newest[0].decode("utf-8", "replace"), None)
        return int(body["sequence"]), str(body["hash"])

    def _raw_lines(self) -> Iterator[str]:
        try:
            with self.path.open("rb") as stream:
                for raw in stream:
                    if raw.endswith(b"\n"):
                        yield raw.decode("utf-8", "replace")
        except FileNotFoundError:
            return


def ledger_of(home: Path) -> ErasureLedger:
    """The erasure ledger of an installation, under its ``KONTOR_HOME``."""
    return ErasureLedger(home / "erasures" / "ledger.jsonl")


def longest_ledger(ledgers: Iterable[ErasureLedger]) -> ErasureLedger:
    """Of several copies of one ledger, such as those beside backups, the one that goes furthest.

    Raises:
        BadInput: one of them is broken.
        Refused: two of them say different things, so that no one can tell which people were erased.
    """
    found = sorted(((ledger.verify().sequence, ledger) for ledger in ledgers), key=lambda pair: -pair[0])
    if not found:
        raise Refused("There is no copy of the erasure ledger to choose from.", hint="Name at least one copy.")
    newest = {line.sequence: line.hash for line in found[0][1].read()}
    for _, other in found[1:]:
        if any(newest[line.sequence] != line.hash for line in other.read()):
            raise Refused(
                f"Two copies of the erasure ledger differ: {found[0][1].path.name} and {other.path}.",
                hint="Find out which is genuine; replay both before the data is used if you cannot.",
            )
    return found[0][1]


def _tail_with_a_line(stream: IO[bytes], size: int) -> bytes:
    """The end of the file, long enough to hold one whole line in front of anything torn."""
    length = _TAIL
    while True:
        stream.seek(max(0, size - length))
        tail = stream.read()
        if tail.count(b"\n") >= 2 or length >= size:
            return tail
        length *= 8


def _body(entry: Entry, sequence: int, previous: str) -> dict[str, Any]:
    if entry.kind not in KINDS:
        raise ValueError(f"no kind of line: {entry.kind}")
    return {
        "sequence": sequence,
        "at": entry.at.astimezone(UTC).isoformat(),
        "kind": entry.kind,
        "entity": entry.entity,
        "rule_id": entry.rule_id,
        "rule_version": entry.rule_version,
        "reference": entry.reference,
        "refers_to": list(entry.refers_to),
        "subjects": [] if isinstance(entry.subjects, Listed) else [list(subject) for subject in entry.subjects],
        "previous": previous,
    }


def _text(body: dict[str, Any], subjects: Sequence[Subject] = ()) -> str:
    text = json.dumps(body, ensure_ascii=True, separators=(",", ":"), sort_keys=True)
    if isinstance(subjects, Listed):  # "subjects" sorts last
        return f"{text.removesuffix('[]}')}{subjects.text}}}"
    return text


def _digest(body: dict[str, Any], subjects: Sequence[Subject] = ()) -> str:
    return hashlib.sha256(_text(body, subjects).encode()).hexdigest()


def _hashed(raw: str, body: Mapping[str, Any]) -> str:
    """The hash of a line as it stands there, which is that of its text without the hash: nothing is written anew."""
    return hashlib.sha256(raw.rstrip("\n").replace(f'"hash":"{body["hash"]}",', "", 1).encode()).hexdigest()


def _parsed(raw: str, expected: int | None) -> dict[str, Any]:
    try:
        body = json.loads(raw)
    except ValueError:
        raise _broken(expected) from None
    if not isinstance(body, dict) or not {"sequence", "previous", "kind", "at", "hash"} <= set(body):
        raise _broken(expected)
    return body


def _line(body: dict[str, Any], subjects: Sequence[Subject] = ()) -> Line:
    return Line(
        at=datetime.fromisoformat(body["at"]),
        kind=body["kind"],
        entity=body["entity"],
        rule_id=body["rule_id"],
        rule_version=body["rule_version"],
        reference=body["reference"],
        subjects=subjects if isinstance(subjects, Listed) else tuple(Subject(*subject) for subject in body["subjects"]),
        refers_to=tuple(body["refers_to"]),
        sequence=body["sequence"],
        hash=body["hash"],
    )


def _broken(expected: int | None) -> BadInput:
    place = "at its end" if expected is None else f"at line {expected}"
    return BadInput(
        f"The erasure ledger is broken {place}: a line was changed, removed or put in. Nothing was erased or replayed.",
        hint="Compare it with the copies beside the backups and put the longest whole one in its place.",
    )
