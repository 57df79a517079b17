"""Retention policies: how a rule is read, which columns it speaks of, and what is wrong with a set of them.

Pure: rules, tables and personal columns come in as arguments. ``columns`` of a rule is ``*`` for every personal column
(a row that is deleted, or an exception for a whole table), a list of names for an exception, or names with what each
becomes: ``note=null; file_name=fixed:[erased]; email=hash; phone=first:3``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal
from fnmatch import fnmatch
from graphlib import CycleError, TopologicalSorter

from tasks.errors import Refused
from tasks.retention.clocks import Period

_OUTPUTS = "files."
METHODS = ("null", "fixed", "hash", "first")


@dataclass(frozen=True)
class Policy:
    """One version of a rule, as it stands in ``rules.retention_policy``."""

    rule_id: str
    version: int
    position: int
    entity: str
    country: str
    purpose: str
    legal_basis: str
    source: str
    clock: str
    period_months: int
    period_days: int
    from_year_end: bool
    action: str
    columns: str
    largest_share: Decimal
    always_allowed: int
    owner: str

    @property
    def period(self) -> Period:
        """How long the rule keeps."""
        return Period(self.period_months, self.period_days, self.from_year_end)

    @property
    def destroys(self) -> bool:
        """Whether the rule lets something go; an exception does not."""
        return self.action != "keep"


@dataclass(frozen=True)
class Schema:
    """What lint knows of the database: columns by table, those that are personal, which take no null, and references.

    ``references`` are pairs (child, parent) of tables in which deleting a parent is refused while a child stands.
    ``clocks`` names the clocks that there are by table.
    """

    columns: Mapping[str, frozenset[str]]
    personal: Mapping[str, frozenset[str]]
    required: Mapping[str, frozenset[str]]
    references: frozenset[tuple[str, str]]
    clocks: Mapping[str, frozenset[str]]


@dataclass(frozen=True)
class Blank:
    """What one column becomes: ``method`` of METHODS with its argument."""

    column: str
    method: str
    argument: str = ""


def purposes_of(policies: Sequence[Policy], tables: Iterable[str]) -> list[dict[str, str]]:
    """Why each of these tables is kept, on which basis and for how long, in their order (GDPR Art. 15(1)(a), (d))."""
    told = []
    for table in tables:
        for policy in policies:
            if fnmatch(table, policy.entity) and policy.destroys:
                told.append(
                    {
                        "table": table,
                        "purpose": policy.purpose,
                        "legal_basis": policy.legal_basis,
                        "kept": _length_in_words(policy),
                        "then": "deleted" if policy.action == "delete" else f"anonymised: {policy.columns}",
                    }
                )
    return told


def _length_in_words(policy: Policy) -> str:
    parts = [f"{policy.period_months} months"] * bool(policy.period_months)
    parts += [f"{policy.period_days} days"] * bool(policy.period_days)
    begins = "the end of the year of " if policy.from_year_end else ""
    return f"{' and '.join(parts) or 'no longer'} from {begins}{policy.clock.replace('_', ' ')}"


def blanks_of(policy: Policy) -> list[Blank]:
    """What each column of an anonymising rule becomes, in the order of the rule."""
    blanks = []
    for part in _parts(policy):
        column, _, method = part.partition("=")
        name, _, argument = method.strip().partition(":")
        blanks.append(Blank(column.strip(), name, argument))
    return blanks


def names_of(policy: Policy, personal: Iterable[str]) -> frozenset[str]:
    """The personal columns that a rule speaks of."""
    if policy.columns.strip() == "*":
        return frozenset(personal)
    return frozenset(part.partition("=")[0].strip() for part in _parts(policy))


def _parts(policy: Policy) -> list[str]:
    return [part.strip() for part in policy.columns.split(";") if part.strip()]


def digest_of(policies: Sequence[Policy]) -> str:
    """A fingerprint of a set of rules: a plan made under other rules is not applied."""
    rows = [{name: str(value) for name, value in asdict(policy).items()} for policy in policies]
    return hashlib.sha256(json.dumps(sorted(rows, key=lambda row: row["rule_id"])).encode()).hexdigest()


def other_countries(policy: Policy, policies: Sequence[Policy]) -> list[str]:
    """The countries for which a rule of their own stands beside this one, which speaks for all the others."""
    return sorted(
        other.country
        for other in policies
        if other.country != "*" and (other.entity, other.action, other.clock) == _group(policy)
    )


def floors_of(policy: Policy, policies: Sequence[Policy]) -> list[Policy]:
    """The exceptions that keep rows longer than a deleting rule would: same table and clock, any country.

    Where the two differ the longer period holds, so that no rule can delete what a law keeps.
    """
    if policy.action != "delete":
        return []
    return [
        other
        for other in policies
        if not other.destroys and (other.entity, other.clock) == (policy.entity, policy.clock)
    ]


def _group(policy: Policy) -> tuple[str, str, str]:
    return policy.entity, policy.action, policy.clock


def check(policies: Sequence[Policy], schema: Schema) -> None:
    """Refuse a set of rules that is not sound. A column without a rule stops nothing: what has one goes all the same.

    Raises:
        Refused: naming everything that is wrong.
    """
    wrong = unsound(policies, schema)
    if wrong:
        raise Refused(
            f"{len(wrong)} thing(s) are wrong with the retention policies; nothing was planned."
            + "".join(f"\n  - {problem}" for problem in wrong),
            hint="Correct the rules in rules.retention_policy; `kontor retention lint` checks them again.",
        )


def lint(policies: Sequence[Policy], schema: Schema) -> list[str]:
    """Everything that is wrong with a set of rules, personal columns without one included; empty for a good one."""
    return [*unsound(policies, schema), *_uncovered(policies, schema)]


def unsound(policies: Sequence[Policy], schema: Schema) -> list[str]:
    """What keeps a set of rules from being applied."""
    return [
        *(problem for policy in policies for problem in _wrong_with(policy, schema)),
        *_unreachable(policies),
        *_wrong_order(policies, schema),
    ]


def _wrong_with(policy: Policy, schema: Schema) -> Iterator[str]:
    if not policy.source.strip() or not policy.legal_basis.strip():
        yield f"{policy.rule_id}: names no legal basis or no source"
    if not policy.destroys:
        if not any(fnmatch(table, policy.entity) for table in schema.columns):
            yield f"{policy.rule_id}: no table is called {policy.entity}"
        elif policy.clock != "none" and policy.clock not in schema.clocks.get(policy.entity, ()):
            yield f"{policy.rule_id}: {policy.entity} has no clock {policy.clock}"
        return
    if policy.entity.startswith(_OUTPUTS) and (policy.action, policy.country) != ("delete", "*"):
        yield f"{policy.rule_id}: files are deleted, and in every country alike"
    if policy.entity not in schema.clocks or policy.entity not in schema.columns:
        yield f"{policy.rule_id}: nothing is known to let go of in {policy.entity}"
        return
    if policy.clock not in schema.clocks[policy.entity]:
        there = ", ".join(sorted(schema.clocks[policy.entity]))
        yield f"{policy.rule_id}: {policy.entity} has no clock {policy.clock}, only {there}"
    if policy.action == "anonymise":
        yield from _wrong_blanks(policy, schema)


def _wrong_blanks(policy: Policy, schema: Schema) -> Iterator[str]:
    blanks = blanks_of(policy)
    if not blanks:
        yield f"{policy.rule_id}: says of no column what it becomes"
    for blank in blanks:
        if blank.column not in schema.columns[policy.entity]:
            yield f"{policy.rule_id}: {policy.entity} has no column {blank.column}"
        elif blank.method not in METHODS or (blank.method == "first" and not blank.argument.isdigit()):
            yield f"{policy.rule_id}: {blank.column} cannot become {blank.method!r}; one of {', '.join(METHODS)}"
        elif blank.method == "null" and blank.column in schema.required[policy.entity]:
            yield f"{policy.rule_id}: {blank.column} must not be null"


def _uncovered(policies: Sequence[Policy], schema: Schema) -> Iterator[str]:
    for table, personal in schema.personal.items():
        covered: set[str] = set()
        for policy in policies:
            if fnmatch(table, policy.entity) and policy.country == "*":
                covered |= names_of(policy, personal)
        for column in sorted(personal - covered):
            yield f"{table}.{column} is personal and no rule for every country says how long it is kept"


def _unreachable(policies: Sequence[Policy]) -> Iterator[str]:
    yield from _idle_floors(policies)
    seen: dict[tuple[str, ...], Policy] = {}
    for policy in sorted(policies, key=lambda p: p.position):
        if not policy.destroys:
            continue
        key = (*_group(policy), policy.country, policy.columns)
        if key in seen:
            yield f"{policy.rule_id}: never applies, {seen[key].rule_id} comes first"
        seen.setdefault(key, policy)
        for other in policies:
            if _outlives(policy, other):
                yield f"{policy.rule_id}: never applies, {other.rule_id} deletes the rows before or on the same day"


def _idle_floors(policies: Sequence[Policy]) -> Iterator[str]:
    used = {floor.rule_id for policy in policies for floor in floors_of(policy, policies)}
    for policy in policies:
        if not policy.destroys and policy.clock != "none" and policy.rule_id not in used:
            yield f"{policy.rule_id}: never applies, nothing deletes {policy.entity} by the clock {policy.clock}"


def _outlives(policy: Policy, other: Policy) -> bool:
    """Whether a rule that anonymises waits for as long as one that deletes, by the same clock in the same country."""
    if policy.action != "anonymise" or other.action != "delete" or policy.entity != other.entity:
        return False
    same = policy.clock == other.clock and policy.country == other.country
    return same and _length(policy) >= _length(other)


def _length(policy: Policy) -> int:
    return policy.period_months * 31 + policy.period_days + (366 if policy.from_year_end else 0)


def _wrong_order(policies: Sequence[Policy], schema: Schema) -> Iterator[str]:
    """Rows go before what they refer to: children have the smaller position, and there is no circle."""
    first: dict[str, Policy] = {}
    for policy in sorted(policies, key=lambda p: -p.position):
        if policy.action == "delete":
            first[policy.entity] = policy
    edges = [
        (child, parent) for child, parent in schema.references if {child, parent} <= set(first) and child != parent
    ]
    try:
        sorter: TopologicalSorter[str] = TopologicalSorter()
        for child, parent in edges:
            sorter.add(parent, child)
        sorter.prepare()
    except CycleError as circle:
        yield f"tables refer to each other in a circle: {' → '.join(circle.args[1])}"
        return
    for child, parent in sorted(edges):
        if first[child].position > first[parent].position:
            yield f"{first[parent].rule_id}: {parent} would go before {child}, which refers to it"
