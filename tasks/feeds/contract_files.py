"""Contract files: found by name or path, merged along ``extends``, and validated before anything reads them.

The order matters: the YAML is read strictly (a key given twice is a defect, ``no`` stays a text), then validated
with the JSON Schema of the standard, then our custom properties are checked by name and type, and only the merged
document, valid again as a whole, is handed on. The library's own models drop misspelt keys without a word, so they
come last.

A contract is trusted like code: its checks are SQL that runs with the rights of the flows, and names of its columns
stand in statements. What is refused here catches slips and the obvious; it is no fence around a hostile author.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import pickle
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from tasks.errors import BadInput, UsageError
from tasks.feeds.custom_properties import COLUMN_PROPERTIES, CONTRACT_PROPERTIES, defects_of
from tasks.feeds.folding import fold

if TYPE_CHECKING:
    from jsonschema import Draft201909Validator

CONTRACTS_FOLDER = Path(__file__).resolve().parents[2] / "data_contracts" / "feeds"
EXAMPLES_FOLDER = CONTRACTS_FOLDER / "examples"
_CHECK_KEYS = {"sql", "columns", "reason"}
_SEVERITIES = ("error", "warning", "warn", "off")
_LONGEST_CHAIN = 8
# The id names a folder of the archive; names of columns and checks stand in statements as they are.
_ID = re.compile(r"[a-z][a-z0-9_-]{0,62}")
# Reserved by PostgreSQL (its documentation, appendix C), and what stands beside the columns where a check is asked.
_RESERVED_WORDS = """
all analyse analyze and any array as asc asymmetric authorization binary both case cast check collate collation column
concurrently constraint create cross current_catalog current_date current_role current_schema current_time
current_timestamp current_user default deferrable desc distinct do else end except false fetch for foreign freeze from
full grant group having ilike in initially inner intersect into is isnull join lateral leading left like limit localtime
localtimestamp natural not notnull null offset on only or order outer overlaps placing primary references returning
right select session_user similar some symmetric system_user table tablesample then to trailing true union unique user
using variadic verbose when where window with row_number as_of ctid xmin xmax cmin cmax tableoid
"""
RESERVED = frozenset(_RESERVED_WORDS.split())
_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
_QUOTED = re.compile(r"""'(?:[^']|'')*'|["](?:[^"]|"")*["]""")
_OTHER_QUOTING = re.compile(r"(?<![^\W\d])e•|['\"$]", re.IGNORECASE)  # it would hide the rest from what follows
_NOT_IN_A_CONDITION = re.compile(
    r";|--|/\*|\b(?:select|insert|update|delete|merge|copy|call|do|set|reset|with|from|table)\b", re.IGNORECASE
)


@dataclass(frozen=True)
class Document:
    """A contract as it takes effect: its own file merged over those it extends.

    ``chain`` names it and its ancestors, nearest first; ``sha256`` is taken over the merged document, so that a change
    in an ancestor is seen too.
    """

    path: Path
    chain: tuple[str, ...]
    effective: Mapping[str, Any]
    sha256: str


def find_document(name_or_path: str | Path, *, by_schema: bool = True) -> Document:
    """Return the merged and validated contract document of that name or path.

    Without ``by_schema`` the standard's JSON Schema is not asked, which takes ten times as long as all the rest: enough
    to learn which files a contract claims, not to read one by it.

    Raises:
        UsageError: no such contract.
        BadInput: defects, all of them at once.
    """
    path = _locate(name_or_path, CONTRACTS_FOLDER)
    objections = _schema_defects if by_schema else _none
    documents, chain = _ancestry(path, objections)
    effective: dict[str, Any] = {}
    for document in reversed(documents):
        effective = _merge_contracts(effective, document)
    refuse(path, [*objections(effective), *_effective_defects(effective)])
    text = json.dumps(effective, sort_keys=True, ensure_ascii=False)
    return Document(path, chain, effective, hashlib.sha256(text.encode()).hexdigest())


def read_document(path: Path, kind: str) -> dict[str, Any]:
    """Return a contract of another ``kind`` as it stands in its file: strict YAML that the standard's schema accepts.

    Raises:
        BadInput: it cannot be read, or defects, all of them at once.
    """
    document = _read_yaml(path)
    refuse(path, _schema_defects(document), kind)
    return document


def refuse(path: Path, defects: Sequence[str], kind: str = "feed contract") -> None:
    """Raise BadInput with every defect, if there is one."""
    if defects:
        lines = "".join(f"\n  - {defect}" for defect in defects)
        raise BadInput(
            f"{path.name} is not a valid {kind}; {len(defects)} defect(s):{lines}",
            hint=f"Correct {path} and run the command again."
            if kind != "feed contract"
            else f"Correct {path} and run `kontor contracts check {path}`.",
        )


def _locate(name_or_path: str | Path, beside: Path) -> Path:
    text = str(name_or_path)
    if text.endswith((".yaml", ".yml")):
        candidates = [Path(text), beside / text]
    else:
        candidates = [folder / f"{text}.yaml" for folder in (beside, CONTRACTS_FOLDER, EXAMPLES_FOLDER)]
    for candidate in candidates:
        if candidate.is_file():
            return candidate.resolve()
    known = sorted(path.stem for folder in (CONTRACTS_FOLDER, EXAMPLES_FOLDER) for path in folder.glob("*.yaml"))
    near = difflib.get_close_matches(text, known, n=1)
    raise UsageError(
        f"There is no feed contract {text!r}; there are {', '.join(known)}.",
        hint=f"Did you mean {near[0]}?" if near else "Give one of these names, or the path of a .yaml file.",
    )


def _ancestry(
    path: Path, objections: Callable[[Mapping[str, Any]], Sequence[str]]
) -> tuple[list[dict[str, Any]], tuple[str, ...]]:
    """Return the document and all that it extends, nearest first, each valid by itself, with their names."""
    documents: list[dict[str, Any]] = []
    chain: list[str] = []
    here: Path | None = path
    while here is not None:
        document = _read_yaml(here)
        refuse(here, _defects(document, objections))
        documents.append(document)
        chain.append(str(document["id"]))
        if len(chain) > _LONGEST_CHAIN or len(set(chain)) < len(chain):
            refuse(
                path, [f"extends: found {' → '.join(chain)}; expected an end, of at most {_LONGEST_CHAIN} contracts"]
            )
        parent = _custom(document).get("extends")
        here = _locate(parent, here.parent) if parent else None
    return documents, tuple(chain)


class _StrictLoader(yaml.CSafeLoader):
    """YAML 1.2's plain words: only true and false are truth values, dates stay texts, no key twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            key = str(key_node.value)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"found key {key!r} twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


_StrictLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":bool", ":timestamp"))]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _word in ("true", "false"):
    _StrictLoader.yaml_implicit_resolvers.setdefault(_word[0], []).insert(
        0, ("tag:yaml.org,2002:bool", re.compile("^(?:true|false)$"))
    )


@lru_cache(maxsize=128)
def _parsed(text: str) -> bytes:
    """The document in a form of which everybody gets a copy: contracts extend the same few, and are listed each run."""
    return pickle.dumps(yaml.load(text, Loader=_StrictLoader))


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        document = pickle.loads(_parsed(path.read_text(encoding="utf-8")))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadInput(
            f"{path.name} cannot be read as YAML: {' '.join(str(error).split())}",
            hint=f"Correct {path}; it must be UTF-8 and valid YAML.",
        ) from error
    if not isinstance(document, dict):
        refuse(path, [f"top level: found {type(document).__name__}; expected a mapping with apiVersion, kind, id, …"])
    result: dict[str, Any] = document
    return result


@lru_cache(maxsize=1)
def _validator() -> Draft201909Validator:
    from jsonschema import Draft201909Validator

    schema = resources.files("open_data_contract_standard").joinpath("schema.json").read_text(encoding="utf-8")
    return Draft201909Validator(json.loads(schema))


_JUDGED: dict[bytes, tuple[str, ...]] = {}  # by content: contracts extend the same few, and none is judged twice


def _schema_defects(document: Mapping[str, Any]) -> Sequence[str]:
    """Return what the standard's own JSON Schema objects to, as "place: found, expected"."""
    content = hashlib.sha256(pickle.dumps(document)).digest()
    if content not in _JUDGED:
        found = _validator().iter_errors(_with_logical_types(document))
        errors = sorted(found, key=lambda error: (str(error.json_path), error.message))
        _JUDGED[content] = tuple(f"{error.json_path.removeprefix('$.')}: {error.message}" for error in errors)
    return _JUDGED[content]


def _none(_document: Mapping[str, Any]) -> Sequence[str]:
    """No objections: the schema is not asked."""
    return ()


def _with_logical_types(document: Mapping[str, Any]) -> dict[str, Any]:
    # The bundled schema (of v3.2) takes a property without logicalType for a map, and a contract that extends
    # another leaves it out.
    schemas = document.get("schema")
    if not isinstance(schemas, list) or not all(isinstance(item, dict) for item in schemas):
        return dict(document)
    completed = []
    for schema in schemas:
        properties = schema.get("properties")
        if isinstance(properties, list) and all(isinstance(item, dict) for item in properties):
            schema = schema | {"properties": [{"logicalType": "string"} | item for item in properties]}
        completed.append(schema)
    return {**document, "schema": completed}


def _custom(element: Mapping[str, Any]) -> dict[str, Any]:
    return {item["property"]: item["value"] for item in element.get("customProperties", ())}


def _defects(document: Mapping[str, Any], objections: Callable[[Mapping[str, Any]], Sequence[str]]) -> list[str]:
    """What the standard and what we object to in one file; of another shape than a contract's, the standard's alone."""
    found = [*objections(document)]
    try:
        return [*found, *_own_defects(document)]
    except (AttributeError, KeyError, TypeError):
        if not found:
            raise
        return found


def _own_defects(document: Mapping[str, Any]) -> Iterable[str]:
    """Yield what our vocabulary objects to in one file, before merging."""
    yield from defects_of("customProperties", document.get("customProperties", ()), CONTRACT_PROPERTIES)
    if not _ID.fullmatch(str(document.get("id"))):
        yield f"id: found {document.get('id')!r}; expected {_ID.pattern}, it names a folder of the archive"
    schemas = document.get("schema", [])
    if len(schemas) != 1:
        yield f"schema: found {len(schemas)} objects; expected 1, a feed file holds one kind of row"
    for number, schema in enumerate(schemas):
        for item in schema.get("properties", ()):
            where = f"schema[{number}].properties {item.get('name')!r}"
            if not _NAME.fullmatch(str(item.get("name"))):
                yield f"{where}, name: found {item.get('name')!r}; expected {_NAME.pattern}, it stands in SQL"
            elif item.get("name") in RESERVED:
                yield f"{where}, name: found a word that means something else where checks are made; expected another"
            yield from defects_of(where, item.get("customProperties", ()), COLUMN_PROPERTIES)
        for check in schema.get("quality", ()):
            yield from _check_defects(f"schema[{number}].quality {check.get('name')!r}", check)


def _check_defects(where: str, check: Mapping[str, Any]) -> Iterable[str]:
    if not check.get("name"):
        yield f"{where}, name: found none; expected a name, so that a contract that extends this one can refer to it"
    elif not _NAME.fullmatch(str(check["name"])):
        yield f"{where}, name: found {check['name']!r}; expected {_NAME.pattern}"
    if check.get("severity", "error") not in _SEVERITIES:
        yield f"{where}, severity: found {check['severity']!r}; expected one of {', '.join(_SEVERITIES)}"
    body = check.get("implementation", {})
    keys = set(body) if isinstance(body, dict) else {"(text)"}
    if not keys <= _CHECK_KEYS:
        yield f"{where}, implementation: found {', '.join(sorted(keys))}; expected {', '.join(sorted(_CHECK_KEYS))}"
    elif "sql" in body:
        yield from (f"{where}, implementation.sql: {defect}" for defect in _condition_defects(body["sql"]))


def _condition_defects(sql: object) -> Iterable[str]:
    """Yield what shows that the text is more than a condition on one row; what stands in quotation marks is not read.

    Without ``select`` and ``table`` no other table can be reached, and with its parentheses in pairs the condition
    stays inside of the statement that asks it. Functions are not restricted.
    """
    if not isinstance(sql, str) or not sql.strip():
        yield f"found {sql!r}; expected a condition on the row's columns"
        return
    bare = _QUOTED.sub("•", sql)
    for found in dict.fromkeys(match[0].lower().replace("•", "'") for match in _OTHER_QUOTING.finditer(bare)):
        yield f"found {found} outside of quotation marks; expected texts in plain '…', doubled within"
    for found in dict.fromkeys(match[0].lower() for match in _NOT_IN_A_CONDITION.finditer(bare)):
        yield f"found {found}; expected one condition on the row's columns, without statements and comments"
    depths = list(accumulate({"(": 1, ")": -1}.get(letter, 0) for letter in bare))
    if depths[-1] or min(depths) < 0:
        yield "found parentheses that do not pair; expected each one closed after it was opened"


def _effective_defects(document: Mapping[str, Any]) -> Iterable[str]:
    """Yield what is missing once everything is merged."""
    for item in document["schema"][0].get("properties", ()):
        if "logicalType" not in item:
            yield f"schema[0].properties {item['name']!r}, logicalType: found none; expected string, date, number, …"
    for check in document["schema"][0].get("quality", ()):
        missing = _CHECK_KEYS - set(check.get("implementation", {}))
        if missing:
            yield f"schema[0].quality {check['name']!r}, implementation: {', '.join(sorted(missing))} not found"


def _merge_contracts(parent: Mapping[str, Any], child: Mapping[str, Any]) -> dict[str, Any]:
    """Return the child over its parent: scalars replace, maps and named lists merge, aliases go in front."""
    if not parent:
        return _plain_aliases(child)
    child = _plain_aliases(child)
    merged = {**parent, **{key: value for key, value in child.items() if key not in ("schema", "customProperties")}}
    merged["customProperties"] = _merge_custom(_without_source(parent), child)
    schema, own = dict(parent["schema"][0]), child["schema"][0]
    schema |= {key: value for key, value in own.items() if key not in ("properties", "quality", "customProperties")}
    schema["properties"] = _merge_named(schema.get("properties", ()), own.get("properties", ()))
    schema["quality"] = _merge_named(schema.get("quality", ()), own.get("quality", ()))
    merged["schema"] = [schema]
    return merged


def _without_source(parent: Mapping[str, Any]) -> dict[str, Any]:
    # Whose ledger it is does not pass on by itself: one sender's list must never settle another's by oversight.
    kept = [item for item in parent["customProperties"] if item["property"] != "source"]
    return {**parent, "customProperties": kept}


def _merge_named(parent: Iterable[Mapping[str, Any]], child: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    merged = {str(item["name"]): dict(item) for item in parent}
    for item in child:
        below = merged.get(str(item["name"]), {})
        above = below | dict(item)
        for key in ("implementation", "logicalTypeOptions"):
            if isinstance(below.get(key), dict) and isinstance(item.get(key), dict):
                above[key] = below[key] | item[key]
        if "customProperties" in below or "customProperties" in item:
            above["customProperties"] = _merge_custom(below, item)
        merged[str(item["name"])] = above
    return list(merged.values())


def _merge_custom(parent: Mapping[str, Any], child: Mapping[str, Any]) -> list[dict[str, Any]]:
    below, above = _custom(parent), _custom(child)
    merged = dict(below)
    for key, value in above.items():
        old = below.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            merged[key] = _merge_maps(old, value)
        elif key == "aliases":
            merged[key] = _first_of_each([*value, *(old or ())])
        else:
            merged[key] = value
    merged.pop("extends", None)
    return [{"property": key, "value": value} for key, value in merged.items() if value is not None]


def _merge_maps(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = {**below, **above}
    if "totals" in below and "totals" in above:  # a sender adds its word for "total"; the known ones stay
        merged["totals"] = _first_of_each([*above["totals"], *below["totals"]])
    return merged


def _first_of_each(texts: Iterable[str]) -> list[str]:
    first: dict[str, str] = {}
    for text in texts:
        first.setdefault(fold(text) or text, text)
    return list(first.values())


def _plain_aliases(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the document with aliases by language turned into one list, in the order written."""
    result = {**document, "schema": [dict(schema) for schema in document["schema"]]}
    for schema in result["schema"]:
        schema["properties"] = [_with_plain_aliases(item) for item in schema.get("properties", ())]
    return result


def _with_plain_aliases(item: Mapping[str, Any]) -> dict[str, Any]:
    custom = _custom(item)
    aliases = custom.get("aliases")
    if isinstance(aliases, dict):
        custom["aliases"] = _first_of_each(alias for group in aliases.values() for alias in group)
    plain = [{"property": key, "value": value} for key, value in custom.items()]
    return {**item, **({"customProperties": plain} if plain else {})}
