"""A file opened by its first bytes, whatever it is called: the sheets of a workbook, or the ways to read a text."""

from __future__ import annotations

import codecs
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from tasks.feeds.bmecat import BmecatGrid
from tasks.feeds.contracts import FeedContract
from tasks.feeds.delimited import DelimitedText, NotText, Quoting, decodings, delimiters
from tasks.feeds.grids import Grid
from tasks.feeds.header_choice import best_row
from tasks.feeds.headings import alias_ranks
from tasks.feeds.packages import HostilePackage, check_package, is_encrypted_package
from tasks.feeds.workbooks import NotAWorkbook, read_sheets

_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_MARKUP = (b"<html", b"<!doctype", b"<table", b"<?xml", b"<meta", b"<head", b"mime-version")

_OTHERS = {
    b"%PDF": "a PDF document",
    b"\x1f\x8b": "a gzip archive",
    b"Rar!": "a RAR archive",
    b"7z\xbc\xaf": "a 7-Zip archive",
}
_OLD_EXCEL = (b"\x09\x00", b"\x09\x02", b"\x09\x04", b"\x09\x08")


def open_grids(path: Path, contract: FeedContract) -> Iterator[Grid]:
    """Yield each sheet of a workbook, or each way to read a text, in the order of preference.

    Raises:
        NotText: it cannot be opened, is empty, is something else, or is text in no encoding of the contract.
        NotAWorkbook: it is protected, damaged, hostile, or of a kind of workbook that cannot be read.
    """
    try:
        with path.open("rb") as file:
            start = file.read(4096)
    except OSError as error:
        raise NotText(f"it cannot be opened: {error.strerror}") from error
    if not start:
        raise NotText("it is empty (0 bytes)")
    if contract.dialect.file_format == "bmecat":
        yield BmecatGrid(path, complete=contract.mode == "snapshot", ranks=alias_ranks(contract))
    elif start.startswith(b"PK\x03\x04"):
        yield from read_sheets(path, contract.dialect, is_xlsx=_is_xlsx(path))
    elif start.startswith(_OLE):
        if is_encrypted_package(path):
            raise NotAWorkbook("it is protected by a password")
        yield from read_sheets(path, contract.dialect, is_xlsx=False)
    else:
        _refuse_what_only_looks_like_a_table(path, start)
        yield from _texts(path, contract)


def _is_xlsx(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as package:
            check_package(package, path.stat().st_size)
            names = set(package.namelist())
    except HostilePackage as reason:
        raise NotAWorkbook(str(reason)) from reason
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, OSError) as error:
        raise NotAWorkbook(
            "it is a damaged ZIP package, so not a readable workbook (was it cut off in transfer?)"
        ) from error
    if not names & {"xl/workbook.xml", "xl/workbook.bin", "content.xml"}:
        raise NotAWorkbook("it is a ZIP package but not a workbook")
    return "xl/workbook.xml" in names


def _refuse_what_only_looks_like_a_table(path: Path, start: bytes) -> None:
    begin = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if begin.startswith(_MARKUP):
        raise NotText(f"it is a web page or XML text, although it is called {path.suffix or 'a table'}")
    for mark, name in _OTHERS.items():
        if start.startswith(mark):
            raise NotText(f"it is {name}, not a table")
    if start.startswith(_OLD_EXCEL):
        raise NotAWorkbook("it is a bare workbook stream of a program older than Excel 97")


def _texts(path: Path, contract: FeedContract) -> Iterator[Grid]:
    """Yield the ways to read a text file; the first encoding under which a header is recognised ends the search."""
    found = False
    ranks = alias_ranks(contract)
    content, quoting = path.read_bytes(), Quoting.of(contract.dialect)
    for encoding, text in decodings(content, contract.dialect):
        utf8 = content.removeprefix(codecs.BOM_UTF8) if encoding == "utf-8-sig" else None
        grids = [DelimitedText(text, mark, encoding, utf8, quoting) for mark in delimiters(contract.dialect)]
        yield from grids
        found = True
        if any(best_row(grid, contract, ranks).match.score[0] for grid in grids):
            return
    if not found:
        tried = ", ".join(dict.fromkeys(("utf-8", *contract.dialect.encodings)))
        raise NotText(
            f"its bytes are not text in any encoding of the contract ({tried})", _code_page_hint(content, contract)
        )


# The code pages of the languages whose headings the contracts know; Windows programs write CSV in them.
_CODE_PAGES = {
    "windows-1250": "Polish and others",
    "windows-1251": "Bulgarian and others",
    "windows-1252": "Norwegian, Swedish and others",
}


def _code_page_hint(content: bytes, contract: FeedContract) -> str:
    """What would make the file readable: the code pages under which most of its headings are known, and how to say so.

    A code page cannot prove itself, so the sender or the contract must name it; where headings tell nothing, all are
    named.
    """
    ranks, quoting = alias_ranks(contract), Quoting.of(contract.dialect)
    found: dict[str, int] = {}
    for name in _CODE_PAGES:
        for encoding, text in decodings(content, replace(contract.dialect, encodings=(name,))):
            grids = [DelimitedText(text, mark, encoding, None, quoting) for mark in delimiters(contract.dialect)]
            found[name] = max(best_row(grid, contract, ranks).match.score[1] for grid in grids)
    best = [name for name, score in found.items() if score == max(found.values())]
    if not best:
        return ""
    pages = " or ".join(f"{name} ({_CODE_PAGES[name]})" for name in best)
    return (
        f"It reads as {pages}. Save it as UTF-8 (in Excel: CSV UTF-8), or import it with a contract that extends "
        f"{contract.name} and says `dialect: {{encodings: [{best[0]}]}}` among its customProperties."
    )
