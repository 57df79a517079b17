"""Which rows a rule lets go: SQL conditions made from the rule, its exceptions and the day, with their bound values.

Pure: text in, text out. Only names of this code and of the schema, which lint has checked, stand in the text; days and
countries are bound.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from tasks.erasures.identities import IDENTITIES, not_held
from tasks.erasures.keys import hash_sql
from tasks.retention.clocks import horizon
from tasks.retention.entities import ENTITIES, Entity
from tasks.retention.policies import Blank, Policy, blanks_of, floors_of, other_countries


@dataclass(frozen=True)
class Selection:
    """The rows of ``entity`` (as ``r``) that a rule lets go: ``due`` by its clock, ``free`` of holds.

    ``horizon`` is the latest day on which a clock may have started; ``blanks`` what columns become, empty to delete.
    """

    entity: Entity
    due: str
    free: str
    bound: Mapping[str, object]
    horizon: date
    blanks: Mapping[str, str]

    @property
    def condition(self) -> str:
        """Due and free: what may be destroyed."""
        return f"{self.due} and {self.free}"


def select_due(
    policy: Policy,
    policies: Sequence[Policy],
    *,
    as_of: date,
    zone: str,
    references: Sequence[tuple[str, str]] = (),
    through: date | None = None,
) -> Selection:
    """The selection of one rule on a day; ``references`` are the columns elsewhere that refer to its table.

    ``through`` is the horizon of a plan, which never reaches further than the day's own.
    """
    entity = ENTITIES[policy.entity]
    own = min(filter(None, (horizon(as_of, policy.period), through)))
    floors = _floors(policy, policies, as_of, own)
    conditions = [_clock_condition(entity, policy, floors)]
    bound: dict[str, object] = {"zone": zone, "horizon": floors.get("*", own)}
    bound |= {f"horizon_{country.lower()}": day for country, day in floors.items() if country != "*"}
    if policy.country != "*":
        conditions.append(f"{entity.country} = :country")
        bound["country"] = policy.country
    elif others := other_countries(policy, policies):
        conditions.append(f"coalesce({entity.country}, '') <> all(:others)")
        bound["others"] = others
    blanks = {blank.column: blank_sql(blank) for blank in blanks_of(policy)} if policy.action == "anonymise" else {}
    conditions += (
        _unfinished(policy, blanks) if policy.entity in IDENTITIES or blanks else _unreferenced(entity, references)
    )
    free = not_held(*entity.subjects) if entity.subjects else "true"
    return Selection(entity, " and ".join(conditions), free, bound, floors.get("*", own), blanks)


def _floors(policy: Policy, policies: Sequence[Policy], as_of: date, own: date) -> dict[str, date]:
    """The horizon per country where an exception keeps rows longer, never later than the rule's own."""
    floors: dict[str, date] = {}
    for floor in floors_of(policy, policies):
        floors[floor.country] = min(own, horizon(as_of, floor.period))
    general = floors.get("*", own)
    return {country: min(day, general) for country, day in floors.items()}


def _clock_condition(entity: Entity, policy: Policy, floors: Mapping[str, date]) -> str:
    clock = entity.clocks[policy.clock]
    countries = sorted(country for country in floors if country != "*")
    if not countries:
        return f"{clock} <= cast(:horizon as date)"
    cases = " ".join(f"when '{country}' then cast(:horizon_{country.lower()} as date)" for country in countries)
    return f"{clock} <= case {entity.country} {cases} else cast(:horizon as date) end"


def _unfinished(policy: Policy, blanks: Mapping[str, str]) -> list[str]:
    """Something is left to blank: a row that was anonymised is not due for ever."""
    left = blanks or IDENTITIES[policy.entity].blanks
    return ["(" + " or ".join(f"r.{column} is distinct from {blank}" for column, blank in left.items()) + ")"]


def _unreferenced(entity: Entity, references: Sequence[tuple[str, str]]) -> list[str]:
    """Rows go after what refers to them: while something does, they wait."""
    return [f"not exists (select from {child} c where c.{column} = r.{entity.key})" for child, column in references]


def blank_sql(blank: Blank) -> str:
    """What a column becomes, as SQL; a keyed hash stays what it is when it is hashed again."""
    if blank.method == "fixed":
        return _literal(blank.argument)
    if blank.method == "first":
        return f"left(r.{blank.column}, {int(blank.argument)})"
    if blank.method == "hash":
        hashed = hash_sql(f"r.{blank.column}")
        return f"case when r.{blank.column} ~ '^[0-9a-f]{{64}}$' then r.{blank.column} else {hashed} end"
    return "null"


def _literal(text: str) -> str:
    """A text as an SQL literal of a type that the column decides; colons are no parameters."""
    return "'" + text.replace("'", "''").replace("\\", "").replace(":", "\\:") + "'"
