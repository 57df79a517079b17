"""A feed contract: what one sender's file must look like and what its headings, codes and gaps mean.

Contracts are Open Data Contract Standard v3.1 documents in ``data_contracts/feeds/*.yaml``; what the standard has no
field for stands in ``customProperties``. :mod:`tasks.feeds.contract_files` finds, merges (``extends``) and validates
them; this module turns the effective document into the frozen objects that the rest of the program reads. Whoever
may write a contract may run SQL with the rights of the flows: it is trusted like code.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.feeds import contract_files
from tasks.feeds.contract_files import Document
from tasks.feeds.dates import orders_contradict
from tasks.feeds.folding import fold

if TYPE_CHECKING:
    from open_data_contract_standard.model import CustomProperty, SchemaProperty

ABOVE = "*"
KINDS = ("text", "code", "date", "money", "quantity", "rate", "integer", "boolean")
_KIND_OF_LOGICAL_TYPE = {
    "string": "text",
    "date": "date",
    "number": "money",
    "integer": "integer",
    "boolean": "boolean",
}


@dataclass(frozen=True)
class Column:
    """One column: its canonical name, the headings it is known by, and how its cells are read.

    ``required`` cells may not be blank; a ``heading_required`` column must be in the file, its cells may be blank.
    ``constant`` replaces whatever the file says; ``default`` fills blanks; ``default_from`` fills blanks from another
    column. ``values`` maps folded spellings to canonical ones, ``allowed`` closes the list.

    ``derived_from``: the column as it is compared, worked out from another by leaving out what ``ignore`` names; no
    heading means it. ``composed_of`` fills blanks with other columns joined by ``joiner``; ``fill_down`` with the
    nearest row above that has the same value in that column, or with :data:`ABOVE` whatever row is above.
    """

    name: str
    kind: str
    heading: str
    required: bool = False
    heading_required: bool = False
    aliases: tuple[str, ...] = ()
    default: str | None = None
    default_from: str | None = None
    constant: str | None = None
    values: Mapping[str, str] = field(default_factory=dict)
    allowed: tuple[str, ...] = ()
    code_list: str | None = None
    date_formats: tuple[str, ...] = ()
    case: str | None = None
    separators: str | None = None
    scale: int | None = None
    integral_float: str = "keep"
    pattern: str | None = None
    max_length: int | None = None
    minimum: int | None = None
    maximum: int | None = None
    personal: bool = False
    staged: bool = True
    derived_from: str | None = None
    ignore: tuple[str, ...] = ()
    composed_of: tuple[str, ...] = ()
    joiner: str = " "
    fill_down: str | None = None
    cell_format: str | None = None
    description: str = ""


@dataclass(frozen=True)
class RowCheck:
    """A rule that a row must keep: ``sql`` is a boolean expression over its columns and ``as_of``.

    ``error`` quarantines the row, ``warn`` keeps and counts it. ``reason`` says in words what is wrong; ``{column}``
    stands for the row's value.
    """

    name: str
    sql: str
    columns: tuple[str, ...]
    severity: str
    reason: str


@dataclass(frozen=True)
class Dialect:
    """How the sender's files are written, as far as the file itself does not say it.

    ``mixed_day_and_month``: the sender mixes both orders; formats are tried as listed and the first that gives a day of
    the calendar counts. Without it a contract may name one order only. ``sheets_together``: every sheet with the
    headings is part of one table. ``header_rows``: over how many rows headings may be spread.
    """

    file_format: str = "table"
    encodings: tuple[str, ...] = ("utf-8",)
    delimiter: str = "auto"
    quote: str | None = '"'
    escape: str | None = None
    skip_initial_space: bool = False
    decimal: str = "auto"
    thousands: tuple[str, ...] = ()
    sheet: str | int | None = None
    sheet_pattern: str | None = None
    sheets_together: bool = False
    header_depth: int = 30
    header_rows: int = 1
    totals: tuple[str, ...] = ()
    mixed_day_and_month: bool = False
    excel_serial_dates: bool = False
    excel_epoch: int = 1900


@dataclass(frozen=True)
class AsOfRule:
    """Where the business date of a file is found: ``sources`` of command, file_name, title."""

    sources: tuple[str, ...] = ("command", "file_name", "title")
    file_name_pattern: str | None = None
    title_words: tuple[str, ...] = ()
    sequence_words: tuple[str, ...] = ()
    revision_pattern: str | None = None


@dataclass(frozen=True)
class FeedContract:
    """One sender's contract, with everything it inherits from the contracts it extends."""

    name: str
    version: str
    feed: str
    source: str
    mode: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    dialect: Dialect
    as_of: AsOfRule
    file_patterns: tuple[str, ...]
    checks: tuple[RowCheck, ...]
    missing_customer: str
    duplicate_rows: str
    negative_is_credit_note: bool
    sha256: str
    owner: str
    description: str
    path: str
    extends: tuple[str, ...] = ()
    group_headings: str | None = None
    sheet_names: str | None = None
    rows_need: tuple[str, ...] = ()
    no_overlap: tuple[str, str] | None = None
    blank_is_a_key: bool = False

    def column(self, name: str) -> Column:
        """Return the column of that canonical name; KeyError if the contract has none."""
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(name)

    @property
    def needed_key(self) -> tuple[str, ...]:
        """The columns of the key without which a row claims none; a blank in another one is a value like others."""
        if not self.blank_is_a_key:
            return self.key
        return tuple(name for name in self.key if self.column(name).required or self.column(name).derived_from)

    def origin(self, name: str) -> str:
        """The column that a person finds in the file where this one is only worked out from it."""
        return self.column(name).derived_from or name

    @property
    def column_names(self) -> tuple[str, ...]:
        """The canonical names in the order of the contract."""
        return tuple(column.name for column in self.columns)


def load_contract(name_or_path: str | Path) -> FeedContract:
    """Return the contract of that name (``open_items``) or at that path (``senders/acme.yaml``).

    Raises:
        UsageError: there is no such contract; the hint names those that exist.
        BadInput: it is not a valid contract; every defect is named with file, key, what was found and what is expected.
    """
    return _compile(contract_files.find_document(name_or_path))


def list_contracts(folder: Path | None = None) -> list[FeedContract]:
    """Return the contracts of the folder (default: those the project ships, without the examples), by name.

    They say which files they claim. What only the standard's JSON Schema objects to is told by :func:`load_contract`,
    which whoever reads a file by one of them asks once more: judging all of them takes a second and more.

    Raises:
        BadInput: one is no contract at all, or has a defect in what is Kontor's own.
    """
    where = folder or contract_files.CONTRACTS_FOLDER
    return [_listed(path) for path in sorted(where.glob("*.yaml"))]


def _listed(path: Path) -> FeedContract:
    try:
        return _compile(contract_files.find_document(path, by_schema=False))
    except (AttributeError, KeyError, TypeError, ValueError):  # not of a contract's shape, or with a word too many
        return load_contract(path)  # which says so in words


def _compile(document: Document) -> FeedContract:
    # The process that reads a file is handed its contract ready made, and need not load what makes one.
    from open_data_contract_standard.model import OpenDataContractStandard

    model = OpenDataContractStandard(**document.effective)
    schema = (model.schema_ or [])[0]
    custom = _custom(model.customProperties)
    columns = tuple(_column(item, custom) for item in schema.properties or [])
    contract = FeedContract(
        name=str(model.id),
        version=str(model.version),
        feed=str(custom.get("feed", document.chain[-1])),
        source=str(custom.get("source", model.id)),
        mode=str(custom.get("mode", "records")),
        columns=columns,
        key=_key(schema.properties or []),
        dialect=_dialect(custom.get("dialect", {})),
        as_of=_as_of(custom.get("asOf", {})),
        file_patterns=tuple(custom.get("filePatterns", ())),
        checks=tuple(_checks(schema.quality or [])),
        missing_customer=str(custom.get("missingCustomer", "quarantine")),
        duplicate_rows=str(custom.get("duplicateRows", "quarantine")),
        negative_is_credit_note=bool(custom.get("negativeIsCreditNote", True)),
        sha256=document.sha256,
        owner=str(custom.get("owner", "")),
        description=(model.description.purpose or "") if model.description else "",
        path=str(document.path),
        extends=document.chain[1:],
        group_headings=custom.get("groupHeadings"),
        sheet_names=custom.get("sheetNames"),
        rows_need=tuple(custom.get("rowsNeed", ())),
        blank_is_a_key=bool(custom.get("blankIsAKey", False)),
        no_overlap=_no_overlap(custom.get("noOverlap")),
    )
    contract_files.refuse(document.path, _contradictions(contract))
    return contract


def _custom(properties: Iterable[CustomProperty] | None) -> dict[str, Any]:
    return {str(item.property): item.value for item in properties or ()}


def _column(item: SchemaProperty, contract_custom: Mapping[str, Any]) -> Column:
    custom = _custom(item.customProperties)
    options = item.logicalTypeOptions or {}
    date_formats = custom.get("dateFormats", contract_custom.get("dialect", {}).get("dateFormats", ()))
    values = {fold(str(key)) or str(key): str(value) for key, value in custom.get("values", {}).items()}
    return Column(
        name=str(item.name),
        kind=str(custom.get("kind", _KIND_OF_LOGICAL_TYPE[str(item.logicalType)])),
        heading=item.physicalName or str(item.businessName or item.name),
        required=bool(item.required),
        heading_required=bool(custom.get("headingRequired", False)),
        aliases=tuple(custom.get("aliases", ())),
        default=_text(custom.get("default")),
        default_from=custom.get("defaultFrom"),
        constant=_text(custom.get("constant")),
        values=values,
        allowed=_allowed(item),
        code_list=custom.get("codeList"),
        date_formats=tuple(date_formats),
        case=custom.get("case"),
        separators=custom.get("separators"),
        scale=custom.get("scale"),
        integral_float=str(custom.get("integralFloat", "keep")),
        pattern=options.get("pattern"),
        max_length=options.get("maxLength"),
        minimum=options.get("minimum"),
        maximum=options.get("maximum"),
        personal=item.classification == "personal",
        staged=bool(custom.get("staged", True)),
        derived_from=custom.get("derivedFrom"),
        ignore=tuple(custom.get("ignore", ())),
        composed_of=tuple(custom.get("composedOf", ())),
        joiner=str(custom.get("joiner", " ")),
        fill_down=custom.get("fillDown"),
        cell_format=custom.get("format"),
        description=item.description or "",
    )


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _allowed(item: SchemaProperty) -> tuple[str, ...]:
    for quality in item.quality or ():
        if quality.metric == "invalidValues":
            return tuple(str(value) for value in (quality.arguments or {}).get("validValues", ()))
    return ()


def _key(properties: Iterable[SchemaProperty]) -> tuple[str, ...]:
    keyed = [item for item in properties if item.primaryKey]
    return tuple(str(item.name) for item in sorted(keyed, key=lambda item: item.primaryKeyPosition or 0))


def _no_overlap(custom: Mapping[str, str] | None) -> tuple[str, str] | None:
    return (custom["from"], custom["to"]) if custom else None


def _dialect(custom: Mapping[str, Any]) -> Dialect:
    default = Dialect()
    return Dialect(
        file_format=str(custom.get("format", default.file_format)),
        encodings=tuple(custom.get("encodings", default.encodings)),
        delimiter=str(custom.get("delimiter", default.delimiter)),
        quote=_character(custom.get("quote", default.quote)),
        escape=_character(custom.get("escape", default.escape)),
        skip_initial_space=bool(custom.get("skipInitialSpace", False)),
        decimal=str(custom.get("decimal", default.decimal)),
        thousands=tuple(custom.get("thousands", default.thousands)),
        sheet=custom.get("sheet"),
        sheet_pattern=custom.get("sheetPattern"),
        sheets_together=bool(custom.get("sheetsTogether", default.sheets_together)),
        header_depth=int(custom.get("headerDepth", default.header_depth)),
        header_rows=int(custom.get("headerRows", default.header_rows)),
        totals=tuple(custom.get("totals", default.totals)),
        mixed_day_and_month=bool(custom.get("mixedDayAndMonth", False)),
        excel_serial_dates=bool(custom.get("excelSerialDates", False)),
        excel_epoch=int(custom.get("excelEpoch", default.excel_epoch)),
    )


def _character(value: str | None) -> str | None:
    return None if value == "none" else value


def _as_of(custom: Mapping[str, Any]) -> AsOfRule:
    default = AsOfRule()
    return AsOfRule(
        sources=tuple(custom.get("sources", default.sources)),
        file_name_pattern=custom.get("fileNamePattern"),
        title_words=tuple(custom.get("titleWords", ())),
        sequence_words=tuple(custom.get("sequenceWords", ())),
        revision_pattern=custom.get("revisionPattern"),
    )


def _checks(quality: Iterable[Any]) -> Iterable[RowCheck]:
    for item in quality:
        if item.severity == "off":
            continue  # a child contract switched an inherited check off
        body = item.implementation
        yield RowCheck(
            name=item.name,
            sql=" ".join(body["sql"].split()),
            columns=tuple(body["columns"]),
            severity="warn" if item.severity in ("warn", "warning") else "error",
            reason=" ".join(body["reason"].split()),
        )


def _contradictions(contract: FeedContract) -> list[str]:
    """Return what is well formed but cannot be meant."""
    names = set(contract.column_names)
    found = []
    if not contract.key:
        found.append("schema[0].properties: found no primaryKey; expected at least one column that identifies a row")
    for check in contract.checks:
        found.extend(
            f"schema[0].quality {check.name!r}: found column {name!r}; expected one of {', '.join(sorted(names))}"
            for name in check.columns
            if name not in names
        )
    for column in contract.columns:
        found.extend(_column_contradictions(column, names, contract.dialect))
    named = {
        "groupHeadings": (contract.group_headings,),
        "sheetNames": (contract.sheet_names,),
        "rowsNeed": contract.rows_need,
    }
    for name, others in (named | {"noOverlap": contract.no_overlap or ()}).items():
        found.extend(
            f"customProperties, {name}: found {other!r}; expected one of {', '.join(sorted(names))}"
            for other in others
            if other is not None and other not in names
        )
    return found + _shared_aliases(contract)


def _column_contradictions(column: Column, names: set[str], dialect: Dialect) -> Iterable[str]:
    where = f"schema[0].properties {column.name!r}"
    within = None if column.fill_down == ABOVE else column.fill_down
    meant = {"defaultFrom": column.default_from, "derivedFrom": column.derived_from, "fillDown": within}
    for name, other in [*meant.items(), *(("composedOf", part) for part in column.composed_of)]:
        if other is not None and other not in names:
            yield f"{where}, {name}: found {other!r}; expected a column of this contract"
    if orders_contradict(column.date_formats) and not dialect.mixed_day_and_month:
        found = ", ".join(column.date_formats)
        yield f"{where}, dateFormats: found {found}; expected one order of day and month, or mixedDayAndMonth"
    for key, value in column.values.items():
        if column.allowed and value not in column.allowed:
            yield f"{where}, values: {key!r} maps to {value!r}; expected one of {', '.join(column.allowed)}"
    for name in ("default", "constant"):
        value = getattr(column, name)
        if value is not None and column.allowed and value not in column.allowed:
            yield f"{where}, {name}: found {value!r}; expected one of {', '.join(column.allowed)}"


def _shared_aliases(contract: FeedContract) -> list[str]:
    owners: dict[str, str] = {}
    found = []
    for column in contract.columns:
        for alias in (column.name, column.heading, *column.aliases):
            owner = owners.setdefault(fold(alias), column.name)
            if owner != column.name:
                found.append(f"aliases: {alias!r} means both {owner} and {column.name}; expected one of them")
    return found
