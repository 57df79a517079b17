"""Packages that must not be unpacked, and what a package holds beside its cells; nothing here unpacks much itself.

A workbook of today is a ZIP package. Its directory says what is inside before anything is unpacked, and a directory
that lies is refused: a reader that believes one copy of a part and a check that believes another would not speak of
the same file.
"""

from __future__ import annotations

import mmap
import re
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

_MIB = 1 << 20
_MOST_PARTS = 10_000
_MOST_UNPACKED = 1024 * _MIB
_MOST_RATIO = 150  # ledgers pack ten- to fiftyfold
_HARMLESS_UNPACKED = 64 * _MIB  # below this a ratio says nothing: a sheet of one repeated word packs a thousandfold
_PROLOGUE = 4096
_ENTITIES = re.compile(rb"<!(?:DOCTYPE|ENTITY)|<\0!\0(?:D\0O\0C|E\0N\0T)", re.IGNORECASE)
_ENCRYPTED_PACKAGE = "EncryptedPackage".encode("utf-16-le")
_HIDDEN_ROW = re.compile(rb"<(?:\w+:)?row\b[^>]*\bhidden=\"(?:1|true)\"")
SEARCHED_FOR_HIDDEN_ROWS = 16 * _MIB


class HostilePackage(Exception):
    """The package is one that no spreadsheet program writes; the message says what is wrong, measured and allowed."""


def check_package(package: zipfile.ZipFile, size: int) -> None:
    """Look through the package's directory and the first bytes of its XML parts.

    Raises:
        HostilePackage: too many parts, too much in them, parts that overlap or share a name, a password, or XML that
            declares entities.
    """
    parts = package.infolist()
    unpacked = sum(part.file_size for part in parts)
    if len(parts) > _MOST_PARTS:
        raise HostilePackage(f"it is a package of {len(parts)} parts, {_MOST_PARTS} are allowed")
    if unpacked > _MOST_UNPACKED or (unpacked > _HARMLESS_UNPACKED and unpacked > _MOST_RATIO * size):
        raise HostilePackage(
            f"it would unpack from {size / _MIB:.1f} MB to {unpacked / _MIB:.0f} MB; allowed are {_MOST_RATIO} times "
            f"its size and {_MOST_UNPACKED // _MIB} MB: that is how a ZIP bomb looks"
        )
    if sum(part.compress_size for part in parts) > size:
        raise HostilePackage("its parts overlap each other: that is how a ZIP bomb looks")
    repeated = [name for name, count in Counter(part.filename.casefold() for part in parts).items() if count > 1]
    if repeated:
        raise HostilePackage(f"{len(repeated)} of its parts are there twice, so two programs would read it differently")
    if any(part.flag_bits & 1 for part in parts):
        raise HostilePackage("it is protected by a password")
    for part in parts:
        if part.filename.endswith((".xml", ".rels")) and _declares_entities(package, part):
            raise HostilePackage("its XML declares entities of its own, which no spreadsheet program writes")


def is_encrypted_package(path: Path) -> bool:
    """Return whether an OLE file holds a workbook encrypted with a password; nothing of it can be read then."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(_ENCRYPTED_PACKAGE) >= 0


def remarks_on(names: Sequence[str]) -> Iterator[str]:
    """Yield what the package brings beside its cells, and what was done about it."""
    if any(name.lower().endswith("vbaproject.bin") for name in names):
        yield "it contains macros; they were not run"
    if any("/externallinks/" in name.lower() for name in names):
        yield "it refers to other workbooks; their values were taken as stored at its last save"


def remark_on_rows(content: bytes) -> Iterator[str]:
    """Yield how many rows of an .xlsx sheet are hidden; sheets above 16 MB are not searched for them."""
    hidden = len(_HIDDEN_ROW.findall(content))
    if hidden:
        yield f"{hidden} of its rows are hidden; they were read like the others"


def _declares_entities(package: zipfile.ZipFile, part: zipfile.ZipInfo) -> bool:
    with package.open(part) as file:
        return _ENTITIES.search(file.read(_PROLOGUE)) is not None
