"""Traces of people in files under KONTOR_HOME: held mail, the archive of what came in, reports, exports.

    a mail to the person                  goes
    a list (CSV, workbook)                stays, without the cells of the person's rows
    other text (HTML, JSON, logs)         stays, without addresses, numbers and names of the person
    anything else that shows the person   goes, and the certificate says so

A file is replaced in one move; a process that dies leaves the old one or the new one.
"""

from __future__ import annotations

import csv
import io
import os
import re
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from email import policy
from email.parser import BytesParser
from pathlib import Path
from typing import Any

from lxml import etree

from tasks.erasures.terms import ERASED, Terms, addresses_in

# The database's own files, keys and the ledger are no outputs; what lies in the inbox is still its sender's.
NOT_LOOKED_AT = ("postgres", "keys", "erasures", "certificates", "backups", "prefect", "inbox", "contracts")
_TEXTS = (".html", ".htm", ".txt", ".json", ".jsonl", ".md", ".log", ".xml")
_ENCODINGS = ("utf-8", "cp1251", "latin-1")
_SHEET = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"


@dataclass(frozen=True)
class FileTrace:
    """A file that speaks of the person, and what is done about it: ``removed`` or ``redacted``."""

    path: Path
    action: str


def output_files(home: Path) -> Iterator[Path]:
    """Every file under KONTOR_HOME in which people may stand, in order."""
    for folder in sorted(path for path in home.iterdir() if path.name not in NOT_LOOKED_AT):
        if folder.is_dir():
            yield from (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink())


def find_in_files(home: Path, terms: Terms) -> list[FileTrace]:
    """The files that speak of the person, and what erasing would do to each."""
    if terms.is_empty or not home.is_dir():
        return []
    found = []
    for path in output_files(home):
        action = _action(path, terms)
        if action is not None:
            found.append(FileTrace(path, action))
    return found


def erase_in_files(home: Path, terms: Terms) -> list[FileTrace]:
    """Erase the person from the files and return what was done; twice is once."""
    traces = find_in_files(home, terms)
    for trace in traces:
        if trace.action == "removed":
            trace.path.unlink(missing_ok=True)
        else:
            redact_file(trace.path, terms)
    return traces


def addresses_in_files(home: Path) -> set[str]:
    """Every e-mail address in the files, for a search by hashes alone."""
    return {address for path in output_files(home) for address in addresses_in_file(path)}


def addresses_in_file(path: Path) -> set[str]:
    """Every e-mail address in one file, as it is written."""
    return {address for cell in _texts_of(path) for address in addresses_in(cell)}


def mentions(path: Path, people: Terms, customers: Sequence[str]) -> bool:
    """Whether a file speaks of one of these people, or of one of these customers by its number.

    Raises:
        ValueError, KeyError, OSError, BadZipFile, LxmlError: the file is damaged or of a kind that cannot be read.
    """
    numbers = "|".join(re.escape(number) for number in customers)
    own = re.compile(rf"(?<!\w)(?:{numbers})(?!\w)") if numbers else None
    for row in _rows_of(path):
        text = " ".join(row)
        if people.is_row_of(row) or _names(text, people) or (own is not None and own.search(text)):
            return True
    return False


def _rows_of(path: Path) -> Iterator[list[str]]:
    if path.suffix.lower() == ".eml":
        yield _mail_texts(path)
    elif _is_workbook(path):
        yield from _workbook_rows(path)
    elif path.suffix.lower() in (".csv", ".tsv"):
        yield from (_fields(line) for line in _text(path).splitlines())
    else:
        text = path.read_bytes().decode("utf-8")
        if "\0" in text:
            raise ValueError("not a text")
        yield [text]


def _action(path: Path, terms: Terms) -> str | None:
    if path.suffix.lower() == ".eml":
        return "removed" if any(terms.is_row_of([part]) or _names(part, terms) for part in _texts_of(path)) else None
    if _is_workbook(path):
        return "redacted" if any(terms.is_row_of(row) for row in _workbook_rows(path)) else None
    text = _text(path)
    if path.suffix.lower() in (".csv", ".tsv"):
        return "redacted" if any(terms.is_row_of(_fields(line)) for line in text.splitlines()) else None
    if path.suffix.lower() in _TEXTS:
        return "redacted" if terms.is_strong_in(text) or _names(text, terms) else None
    return "removed" if terms.is_strong_in(text) else None


def _names(text: str, terms: Terms) -> bool:
    """Whether a whole name stands in a text that also names the person's customer."""
    own = any(re.search(rf"(?<!\w){re.escape(number)}(?!\w)", text) for number in terms.customers)
    return own and re.search(terms.name_pattern, text, re.IGNORECASE) is not None


def _texts_of(path: Path) -> list[str]:
    if path.suffix.lower() == ".eml":
        return _mail_texts(path)
    if _is_workbook(path):
        return [cell for row in _workbook_rows(path) for cell in row]
    return [_text(path)]


def _mail_texts(path: Path) -> list[str]:
    message = BytesParser(policy=policy.default).parsebytes(path.read_bytes())
    texts = [" ".join(str(value) for value in message.values())]
    for part in message.walk():
        if part.get_content_maintype() == "text":
            texts.append(str(part.get_content()))
    return texts


def _text(path: Path) -> str:
    data = path.read_bytes()
    for encoding in _ENCODINGS:
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            continue
    return ""


# --- redaction --------------------------------------------------------------------------------------------------------


def redact_file(path: Path, terms: Terms) -> None:
    """Take the person out of a file that stays."""
    if _is_workbook(path):
        _replace(path, _redacted_workbook(path, terms))
        return
    data = path.read_bytes()
    encoding = next(name for name in _ENCODINGS if _decodes(data, name))
    lines = data.decode(encoding).splitlines(keepends=True)
    redact = _redacted_line if path.suffix.lower() in (".csv", ".tsv") else _redacted_text
    _replace(path, "".join(redact(line, terms) for line in lines).encode(encoding))


def _decodes(data: bytes, encoding: str) -> bool:
    try:
        data.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def _replace(path: Path, data: bytes) -> None:
    partial, was = path.with_name(f".{path.name}.part"), path.stat()
    with partial.open("wb") as stream:
        os.fchmod(stream.fileno(), was.st_mode & 0o777)
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    os.utime(partial, ns=(was.st_atime_ns, was.st_mtime_ns))  # it is as old as before, and goes when it would have
    partial.replace(path)


def _redacted_text(line: str, terms: Terms) -> str:
    pattern = f"{terms.strong_pattern}|{terms.name_pattern}"
    return re.sub(pattern, ERASED, line, flags=re.IGNORECASE)


def _delimiter(line: str) -> str:
    return max((";", ",", "\t", "|"), key=line.count)


def _fields(line: str) -> list[str]:
    return next(csv.reader(io.StringIO(line), delimiter=_delimiter(line)), [])


def _redacted_line(line: str, terms: Terms) -> str:
    """A row of the person keeps its customer's number and what is no text; any other row stays as it is."""
    fields = _fields(line)
    if not terms.is_row_of(fields):
        return line
    ending = line[len(line.rstrip("\r\n")) :]
    out = io.StringIO()
    csv.writer(out, delimiter=_delimiter(line), lineterminator="").writerow(_kept_cells(fields, terms))
    return out.getvalue() + ending


def _kept_cells(cells: list[str], terms: Terms) -> list[str]:
    return [cell if _may_stay(cell, terms) else "" for cell in cells]


def _may_stay(cell: str, terms: Terms) -> bool:
    if cell.strip() in terms.customers:
        return True
    if terms.is_firm:  # its items stay, and a backfill must be able to read them
        return not (terms.is_strong_in(cell) or re.search(terms.name_pattern, cell, re.IGNORECASE))
    is_value = re.fullmatch(r"[\d\s.,:/+-]*", cell) is not None
    return is_value and not terms.is_strong_in(cell)


# --- workbooks --------------------------------------------------------------------------------------------------------


def _is_workbook(path: Path) -> bool:
    return path.suffix.lower() in (".xlsx", ".xlsm") and zipfile.is_zipfile(path)


def _parse(data: bytes) -> Any:
    parser = etree.XMLParser(resolve_entities=False, no_network=True, huge_tree=False)
    return etree.fromstring(data, parser)


def _sheets(names: list[str]) -> list[str]:
    return [name for name in names if re.fullmatch(r"xl/worksheets/[^/]+\.xml", name)]


def _shared(archive: zipfile.ZipFile) -> list[str]:
    if "xl/sharedStrings.xml" not in archive.namelist():
        return []
    root = _parse(archive.read("xl/sharedStrings.xml"))
    return ["".join(item.itertext(f"{_SHEET}t")) for item in root.iter(f"{_SHEET}si")]


def _cell_text(cell: Any, shared: list[str]) -> str:
    if cell.get("t") == "inlineStr":
        return "".join(cell.itertext(f"{_SHEET}t"))
    value = cell.findtext(f"{_SHEET}v") or ""
    if cell.get("t") == "s" and value.isdigit() and int(value) < len(shared):
        return shared[int(value)]
    return value


def _workbook_rows(path: Path) -> Iterator[list[str]]:
    with zipfile.ZipFile(path) as archive:
        shared = _shared(archive)
        for name in _sheets(archive.namelist()):
            for row in _parse(archive.read(name)).iter(f"{_SHEET}row"):
                yield [_cell_text(cell, shared) for cell in row.iter(f"{_SHEET}c")]


def _redacted_workbook(path: Path, terms: Terms) -> bytes:
    """The same workbook without the cells of the person's rows."""
    return _rewritten_workbook(path, lambda root, shared: _blank_rows(root, shared, terms))


def _rewritten_workbook(path: Path, blank: Callable[[Any, list[str]], None]) -> bytes:
    """The same workbook after ``blank`` took cells out of each sheet, also out of the texts that cells share."""
    out = io.BytesIO()
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as made:
        shared = _shared(archive)
        parts: dict[str, bytes] = {}
        used: set[int] = set()
        for name in _sheets(archive.namelist()):
            root = _parse(archive.read(name))
            blank(root, shared)
            used |= {int(c.findtext(f"{_SHEET}v") or -1) for c in root.iter(f"{_SHEET}c") if c.get("t") == "s"}
            parts[name] = etree.tostring(root, xml_declaration=True, encoding="UTF-8", standalone=True)
        if shared:
            parts["xl/sharedStrings.xml"] = _without_unused(archive.read("xl/sharedStrings.xml"), used)
        for item in archive.infolist():
            made.writestr(item, parts.get(item.filename, archive.read(item.filename)))
    return out.getvalue()


def _blank_rows(root: Any, shared: list[str], terms: Terms) -> None:
    for row in root.iter(f"{_SHEET}row"):
        cells = list(row.iter(f"{_SHEET}c"))
        texts = [_cell_text(cell, shared) for cell in cells]
        if not terms.is_row_of(texts):
            continue
        for cell, said in zip(cells, texts, strict=True):
            if not _may_stay(said, terms):
                _empty(cell)


def _empty(cell: Any) -> None:
    cell.attrib.pop("t", None)
    for child in list(cell):
        cell.remove(child)


def _without_unused(data: bytes, used: set[int]) -> bytes:
    """Shared texts that no cell shows any more become empty; their places stay, because cells count by them."""
    root = _parse(data)
    for place, item in enumerate(root.iter(f"{_SHEET}si")):
        if place not in used:
            for child in list(item):
                item.remove(child)
            etree.SubElement(item, f"{_SHEET}t")
    return bytes(etree.tostring(root, xml_declaration=True, encoding="UTF-8", standalone=True))


# --- firms, which stay by their number ----------------------------------------------------------------------------


@dataclass
class _Columns:
    """Which columns of a list say what a firm is called, known from its headings on; rows are given in their order."""

    names: Callable[[str], bool]
    numbers: frozenset[str]
    places: frozenset[str] = frozenset()

    def to_blank(self, row: Sequence[tuple[str, str]]) -> frozenset[str]:
        """The places, among ``row``'s pairs of place and text, in which a firm of these numbers is named."""
        headings = frozenset(place for place, said in row if self.names(said))
        if headings:
            self.places = headings
            return frozenset()
        theirs = any(said.strip().casefold() in self.numbers for _, said in row)
        return frozenset(place for place, said in row if theirs and place in self.places and said not in ("", ERASED))


def unname_firms(path: Path, numbers: frozenset[str], names: Callable[[str], bool]) -> int:
    """Blank what says the name of these firms in a list that stays, below the headings that ``names`` tells.

    ``numbers`` are customers' numbers, case-folded. Their items stay, as bookkeeping wants them. Returns the rows that
    were changed; 0 for a file of another kind.
    """
    if _is_workbook(path):
        changed: list[int] = []
        data = _rewritten_workbook(path, lambda root, shared: _unname_sheet(root, shared, numbers, names, changed))
    elif path.suffix.lower() in (".csv", ".tsv"):
        data, changed = _unnamed_lines(path.read_bytes(), _Columns(names, numbers))
    else:
        return 0
    if changed:
        _replace(path, data)
    return len(changed)


def _unname_sheet(
    root: Any, shared: list[str], numbers: frozenset[str], names: Callable[[str], bool], changed: list[int]
) -> None:
    columns = _Columns(names, numbers)
    for row in root.iter(f"{_SHEET}row"):
        cells = {re.sub(r"\d", "", cell.get("r") or str(at)): cell for at, cell in enumerate(row.iter(f"{_SHEET}c"))}
        places = columns.to_blank([(place, _cell_text(cell, shared)) for place, cell in cells.items()])
        for place in places:
            _empty(cells[place])
        changed += [1] * bool(places)


def _unnamed_lines(data: bytes, columns: _Columns) -> tuple[bytes, list[int]]:
    encoding = next(name for name in _ENCODINGS if _decodes(data, name))
    lines, changed = data.decode(encoding).splitlines(keepends=True), []
    for at, line in enumerate(lines):
        fields = _fields(line)
        places = columns.to_blank([(str(place), said) for place, said in enumerate(fields)])
        if places:
            ending, out = line[len(line.rstrip("\r\n")) :], io.StringIO()
            kept = [ERASED if str(place) in places else said for place, said in enumerate(fields)]
            csv.writer(out, delimiter=_delimiter(line), lineterminator="").writerow(kept)
            lines[at] = out.getvalue() + ending
            changed.append(1)
    return "".join(lines).encode(encoding), changed
