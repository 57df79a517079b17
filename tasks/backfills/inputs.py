"""The files that speak of a past period: in the archive, in the inbox and in a folder that a person names.

A file that was taken in before is known by its content, so nothing is read twice to learn its day; only files that
nobody has seen yet are opened.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from sqlalchemy import Connection, text

from tasks.backfills.windows import Input
from tasks.errors import FileRefused, KontorError
from tasks.feeds.business_date import find_as_of
from tasks.feeds.confined import read_confined
from tasks.feeds.contracts import FeedContract, load_contract
from tasks.feeds.intake import InboxFile, find_inbox_files, fingerprint_of

_ARCHIVED = re.compile(r"(?P<as_of>\d{4}-\d{2}-\d{2})_[0-9a-f]{12}_")


@dataclass(frozen=True)
class Undated:
    """A file whose day cannot be told, and why not: it belongs to no window."""

    path: str
    reason: str


@dataclass(frozen=True)
class Found:
    """Every file that was found: ``inputs`` by day, ``undated`` beside them."""

    inputs: tuple[Input, ...]
    undated: tuple[Undated, ...]


def find_inputs(
    connection: Connection, *, contracts: Sequence[FeedContract], archive: Path, folders: Sequence[Path]
) -> Found:
    """Return the files of these contracts in the archive and the folders, each content once, ordered by day.

    The archive comes first: what Kontor has kept is preferred to another copy of the same bytes.
    """
    copies: dict[tuple[str, str], list[InboxFile]] = {}
    everywhere = (
        *_archived(archive, contracts),
        *(f for folder in folders for f in find_inbox_files(folder, contracts)),
    )
    for file in everywhere:
        copies.setdefault((file.contract.name, fingerprint_of(file.path).sha256), []).append(file)
    known = _known(connection, [sha256 for _, sha256 in copies])
    inputs: list[Input] = []
    undated: list[Undated] = []
    for (contract, sha256), files in copies.items():
        as_of, state = known.get((contract, sha256), (None, "new"))
        # The same bytes under a wrong name must not hide the copy whose name is right.
        file, day = (files[0], as_of) if as_of else _first_dated(files)
        if isinstance(day, Undated):
            undated.append(day)
        else:
            inputs.append(Input(str(file.path), sha256, contract, day, state))
    return Found(tuple(sorted(inputs, key=lambda i: (i.as_of, i.contract, i.path))), tuple(undated))


def contract_reference(home: Path, name: str) -> str:
    """What a contract is loaded by: the path of a sender's own, else the name of one that Kontor ships."""
    own = home / "contracts" / f"{name}.yaml"
    return str(own) if own.is_file() else name


def files_of(home: Path, inputs: Sequence[Input]) -> list[InboxFile]:
    """The inputs as files with the contracts that read them; what has an unreadable contract is left to its turn."""
    files = []
    for item in inputs:
        with suppress(KontorError):
            files.append(InboxFile(Path(item.path), _loaded(contract_reference(home, item.contract))))
    return files


@functools.lru_cache(maxsize=32)
def _loaded(reference: str) -> FeedContract:
    return load_contract(reference)


def _archived(archive: Path, contracts: Sequence[FeedContract]) -> Iterator[InboxFile]:
    for contract in contracts:
        folder = archive / contract.name
        for path in sorted(folder.iterdir()) if folder.is_dir() else []:
            if path.is_file() and _ARCHIVED.match(path.name):
                yield InboxFile(path, contract)


def _known(connection: Connection, digests: Sequence[str]) -> Mapping[tuple[str, str], tuple[date | None, str]]:
    """What became of each content under each contract; the word of a file taken in stands over a refusal."""
    rows = connection.execute(text(_KNOWN), {"digests": list(digests)})
    return {(row.contract, row.sha256): (row.as_of, row.state) for row in rows}


_KNOWN = """
select distinct on (contract, sha256) contract, sha256, as_of, state
from landing.feed_files
where sha256 = any(:digests)
order by contract, sha256, array_position(array['refused', 'superseded', 'applied'], state) desc, as_of desc
"""


def _first_dated(files: Sequence[InboxFile]) -> tuple[InboxFile, date | Undated]:
    days = [(file, _day_of(file)) for file in files]
    return next((found for found in days if not isinstance(found[1], Undated)), days[0])


def _day_of(file: InboxFile) -> date | Undated:
    archived = _ARCHIVED.match(file.path.name)
    if archived is not None:
        return date.fromisoformat(archived["as_of"])
    try:
        titles = read_confined(file.path, file.contract).titles
        return find_as_of(file.contract, file_name=file.path.name, titles=titles, given=None)
    except FileRefused as refusal:
        return Undated(str(file.path), refusal.reasons[0])
