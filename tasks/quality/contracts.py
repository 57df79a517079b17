"""Table contracts: what the rows of a table must keep, as frozen objects read from ``data_contracts/quality/*.yaml``.

The documents are Open Data Contract Standard v3.1 like those of feeds. What a rule means stands in the standard's own
fields where it has one (``metric``, ``arguments``, ``severity``, ``dimension``, ``description``), the rest in
``implementation`` and ``customProperties``. Whoever may write a contract may run SQL with the rights of the flows: it
is trusted like code. Pure but for reading the files.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

from tasks.errors import UsageError
from tasks.feeds.contract_files import read_document, refuse

CONTRACTS_FOLDER = Path(__file__).resolve().parents[2] / "data_contracts" / "quality"
SEVERITIES = ("info", "warn", "fail")
DUE_DAYS: Mapping[str, int] = {"fail": 2, "warn": 14, "info": 60}
_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
_TABLE = re.compile(r"[a-z_]+\.[a-z][a-z0-9_]{0,62}")
_PLACE = re.compile(r"\{(\w+)\}")

Kind = Literal["present", "allowed", "pattern", "unique", "at_most", "references", "holds", "columns", "rows", "usual"]


@dataclass(frozen=True)
class Rule:
    """One rule of a table contract.

    ``kind`` says how it is checked; ``columns`` are the ones it reads. ``condition`` (kind ``holds``) is SQL that is
    true of a good row; ``{threshold}`` in it stands for the number of the rule table. ``reason`` says in words what is
    wrong, with ``{column}`` for a value. A rule may fail for ``tolerance_percent`` of the rows and still pass.
    """

    rule_id: str
    kind: Kind
    columns: tuple[str, ...]
    severity: str
    dimension: str
    meaning: str
    owner: str
    account_owner_first: bool = False
    tolerance_percent: Decimal = Decimal(0)
    threshold: Decimal | None = None
    due_days: int = 14
    condition: str = ""
    pattern: str = ""
    allowed: tuple[str, ...] = ()
    references: str = ""
    reason: str = ""
    version: int = 0


@dataclass(frozen=True)
class ContractColumn:
    """A column that the table must have, with the type that PostgreSQL calls it by."""

    name: str
    physical_type: str
    required: bool
    personal: bool


@dataclass(frozen=True)
class TableContract:
    """What a table is checked for: ``rows`` is the query whose rows are judged, with ``:as_of`` for the day;
    empty means the table as it is.

    ``record_key`` is SQL that names a row for people and for good, without personal data; ``record`` its id;
    ``organization`` and ``invoice`` are columns of ``rows`` or empty.
    """

    name: str
    table: str
    rows: str
    record_key: str
    record: str
    organization: str
    invoice: str
    sums: Mapping[str, str]
    columns: tuple[ContractColumn, ...]
    rules: tuple[Rule, ...]

    @property
    def personal(self) -> frozenset[str]:
        """The columns whose values never stand in a reason."""
        return frozenset(column.name for column in self.columns if column.personal)


def load_table_contract(name_or_path: str | Path) -> TableContract:
    """Return the contract of that name (``invoices``) or at that path.

    Raises:
        UsageError: there is none; the hint names those that exist.
        BadInput: it is not valid; every defect is named.
    """
    path = Path(name_or_path)
    if not str(name_or_path).endswith((".yaml", ".yml")):
        path = CONTRACTS_FOLDER / f"{name_or_path}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(item.stem for item in CONTRACTS_FOLDER.glob("*.yaml")))
        raise UsageError(f"There is no table contract {str(name_or_path)!r}.", hint=f"Choose one of: {known}.")
    document = read_document(path, "table contract")
    refuse(path, list(_defects(document)), "table contract")
    return _compile(document)


def is_table_contract(name_or_path: str | Path) -> bool:
    """Whether a name or a path means a table contract; the contract of a feed names no key of stored records.

    Raises:
        BadInput: there is a file at that path and it is no contract at all.
    """
    path = Path(name_or_path)
    if not str(name_or_path).endswith((".yaml", ".yml")) or not path.is_file():
        return True
    return "recordKey" in _custom(read_document(path, "contract"))


def list_table_contracts(names: Sequence[str] = ()) -> list[TableContract]:
    """Return the contracts of these names, or all that the project ships, by name."""
    chosen = names or sorted(path.stem for path in CONTRACTS_FOLDER.glob("*.yaml"))
    return [load_table_contract(name) for name in chosen]


def _custom(element: Mapping[str, Any]) -> dict[str, Any]:
    return {item["property"]: item["value"] for item in element.get("customProperties", ())}


def _compile(document: Mapping[str, Any]) -> TableContract:
    custom = _custom(document)
    schema = document["schema"][0]
    properties = schema.get("properties", ())
    name = str(document["id"])
    rules = [
        *_built_in(name, schema),
        *(_rule(item, (str(column["name"]),), custom) for column in properties for item in column.get("quality", ())),
        *(_rule(item, (), custom) for item in schema.get("quality", ())),
    ]
    return TableContract(
        name=name,
        table=str(schema["physicalName"]),
        rows=_one_line(custom.get("rows", "")),
        record_key=_one_line(custom["recordKey"]),
        record=str(custom.get("record", "")),
        organization=str(custom.get("organization", "")),
        invoice=str(custom.get("invoice", "")),
        sums=dict(custom.get("sums", {})),
        columns=tuple(_column(item) for item in properties),
        rules=tuple(rules),
    )


def _one_line(text: object) -> str:
    return " ".join(str(text).split())


def _column(item: Mapping[str, Any]) -> ContractColumn:
    return ContractColumn(
        str(item["name"]),
        str(item.get("physicalType", "")),
        bool(item.get("required", False)),
        item.get("classification") == "personal",
    )


def _built_in(name: str, schema: Mapping[str, Any]) -> list[Rule]:
    """Rules that every table has without saying so: its columns are those described, its figures are as usual."""
    table = schema["physicalName"]
    shared: dict[str, Any] = {"columns": (), "owner": "data engineering"}
    drift = f"{table} has the columns that its contract describes, with their types; everything else stands on them."
    usual = f"The number of rows of {table}, its gaps and sums lie where they lay on such days before."
    return [
        Rule(f"{name}_columns", "columns", severity="fail", dimension="conformity", meaning=drift, due_days=2,
             **shared),
        Rule(f"{name}_as_usual", "usual", severity="warn", dimension="accuracy", meaning=usual, due_days=14,
             threshold=Decimal(6), **shared),
    ]  # fmt: skip


def _rule(item: Mapping[str, Any], columns: tuple[str, ...], contract: Mapping[str, Any]) -> Rule:
    custom = _custom(item)
    severity = str(item["severity"])
    threshold = custom.get("threshold", item.get("mustBeGreaterThan"))
    return Rule(
        rule_id=str(item["name"]),
        severity=severity,
        dimension=str(item["dimension"]),
        meaning=_one_line(item["description"]),
        owner=str(custom.get("owner", contract["owner"])),
        account_owner_first=bool(custom.get("accountOwner", False)),
        tolerance_percent=Decimal(str(custom.get("tolerancePercent", 0))),
        threshold=None if threshold is None else Decimal(str(threshold)),
        due_days=int(custom.get("dueDays", DUE_DAYS[severity])),
        **_check_of(item, columns),
    )


def _check_of(item: Mapping[str, Any], columns: tuple[str, ...]) -> dict[str, Any]:
    """What the standard's ``metric`` or our ``implementation`` asks for, as fields of a rule."""
    arguments: Mapping[str, Any] = item.get("arguments") or {}
    named = " and ".join(columns)
    match item.get("metric"):
        case "nullValues":
            return {"kind": "present", "columns": columns, "reason": f"{named} is missing"}
        case "invalidValues" if "validValues" in arguments:
            values = tuple(str(value) for value in arguments["validValues"])
            return {"kind": "allowed", "columns": columns, "allowed": values, "reason": f"{named} is {{{columns[0]}}}"}
        case "invalidValues":
            return {"kind": "pattern", "columns": columns, "pattern": str(arguments["pattern"]),
                    "reason": f"{named} is {{{columns[0]}}}"}  # fmt: skip
        case "duplicateValues":
            keyed = tuple(str(name) for name in arguments.get("properties", columns))
            return {
                "kind": "unique",
                "columns": keyed,
                "reason": f"the same {' and '.join(keyed)} stands elsewhere too",
            }
        case "rowCount":
            return {"kind": "rows", "columns": (), "reason": "there are fewer rows than there should be"}
    body: Mapping[str, Any] = item["implementation"]
    shared = {"columns": tuple(body["columns"]), "reason": _one_line(body["reason"])}
    if "references" in body:
        return {"kind": "references", "references": str(body["references"]), **shared}
    if "atMost" in body:
        return {"kind": "at_most", **shared, "columns": tuple(body["atMost"])}
    return {"kind": "holds", "condition": _one_line(body["sql"]), **shared}


# --- defects ----------------------------------------------------------------------------------------------------------


def _defects(document: Mapping[str, Any]) -> Iterable[str]:
    """Yield what the standard allows and we cannot use."""
    custom = _custom(document)
    for name in ("owner", "recordKey"):
        if name not in custom:
            yield f"customProperties {name!r}: found none; expected one"
    if len(document.get("schema", ())) != 1:
        yield f"schema: found {len(document.get('schema', ()))} objects; expected 1, a contract speaks of one table"
        return
    schema = document["schema"][0]
    if not _TABLE.fullmatch(str(schema.get("physicalName"))):
        yield f"schema[0].physicalName: found {schema.get('physicalName')!r}; expected schema.table"
    seen: set[str] = set()
    for where, item, columns in _every_rule(schema):
        yield from _rule_defects(where, item, columns)
        if item.get("name") in seen:
            yield f"{where}: found the name twice; expected each rule once"
        seen.add(str(item.get("name")))


def _every_rule(schema: Mapping[str, Any]) -> Iterable[tuple[str, Mapping[str, Any], tuple[str, ...]]]:
    for column in schema.get("properties", ()):
        for item in column.get("quality", ()):
            yield f"{column['name']}.quality {item.get('name')!r}", item, (str(column["name"]),)
    for item in schema.get("quality", ()):
        yield f"quality {item.get('name')!r}", item, ()


def _rule_defects(where: str, item: Mapping[str, Any], columns: tuple[str, ...]) -> Iterable[str]:
    if not _NAME.fullmatch(str(item.get("name"))):
        yield f"{where}, name: found {item.get('name')!r}; expected {_NAME.pattern}"
    if item.get("severity") not in SEVERITIES:
        yield f"{where}, severity: found {item.get('severity')!r}; expected one of {', '.join(SEVERITIES)}"
    for name in ("description", "dimension"):
        if not item.get(name):
            yield f"{where}, {name}: found none; expected one"
    body = item.get("implementation")
    if isinstance(body, dict):
        yield from _body_defects(where, item, body)
    elif item.get("metric") in ("nullValues", "invalidValues") and not columns:
        yield f"{where}: found the metric {item['metric']} on the table; expected it on a column"
    elif item.get("metric") not in ("nullValues", "invalidValues", "duplicateValues", "rowCount"):
        yield f"{where}, metric: found {item.get('metric')!r}; expected a metric that we check, or an implementation"


def _body_defects(where: str, item: Mapping[str, Any], body: Mapping[str, Any]) -> Iterable[str]:
    if {"columns", "reason"} - set(body) or len({"sql", "atMost", "references"} & set(body)) != 1:
        yield f"{where}, implementation: found {', '.join(body)}; expected columns, reason and one check"
        return
    unknown = set(_PLACE.findall(body["reason"])) - set(body["columns"])
    if unknown:
        yield f"{where}, reason: found {', '.join(sorted(unknown))}; expected columns that the rule reads"
    if "{threshold}" in body.get("sql", "") and "threshold" not in _custom(item):
        yield f"{where}, threshold: found none; expected a number for {{threshold}}"
