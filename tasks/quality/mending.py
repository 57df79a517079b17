"""Incidents of stored records as a workbook in which their owners mend them, and what came back as small files. Pure.

A record goes out as a quarantined row does (:mod:`tasks.feeds.corrections`): under a token of its incident and a
checksum of what it held, with only the cells open that a failed rule reads. What comes back is compared in the same
way, so a workbook that comes late or twice changes nothing twice. The changes become files of the feed that the records
came from, one for each set of columns, which are taken in like any other: checked, quarantined where they cannot be
used, and kept in history with who, when, old and new value.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from tasks.feeds.cells import shown
from tasks.feeds.contracts import FeedContract
from tasks.feeds.corrections import CorrectedRow, HeldRow
from tasks.quality.contracts import Rule

# Which contract takes a table's corrections, what names a record in its files, and what may be mended there. A
# contact is known by its address: another address is another contact, which only the contact list can say.
CONTRACTS: Mapping[str, str] = {
    "crm.organizations": "corrected_organizations",
    "crm.contacts": "corrected_contacts",
    "crm.contact_roles": "corrected_contacts",
}
NAMED_BY: Mapping[str, tuple[str, ...]] = {
    "corrected_organizations": ("customer_number",),
    "corrected_contacts": ("customer_number", "email"),
}
ROLES = ("roles", "valid_from", "valid_to")
MENDABLE: Mapping[str, tuple[str, ...]] = {
    "crm.organizations": (
        "name", "country", "language", "vat_number", "currency", "payment_terms_days", "segment", "owner",
        "contacted_on",
    ),
    "crm.contacts": ("first_name", "last_name", "phone", "language", "roles"),
    "crm.contact_roles": ROLES,
}  # fmt: skip
# A rule may read what was made of a column; mended is the column.
_MADE_OF: Mapping[str, str] = {
    "vat_key": "vat_number",
    "phone_key": "phone",
    "has_role": "roles",
    "contacted_last": "contacted_on",
}
# Who can mend what no workbook can: facts that another one states, and where.
ELSEWHERE: Mapping[str, str] = {
    "crm.invoices": "accounting, in its ledger: what it says of an item is never changed here",
    "crm.organizations": "whoever keeps the customer list; of a customer that only accounting names, add it there",
    "crm.contacts": "whoever keeps the contact list: an address, a missing one, or a contact without one",
    "crm.contact_roles": "whoever keeps the contact list",
    "crm.products": "whoever sends the catalogue",
    "crm.product_prices": "whoever sends the catalogue",
    "landing.feed_files": "whoever sends the file; `kontor status` names it",
    "landing.quarantined_rows": "`kontor quarantine export`: the row waits there with its reason",
}
NOBODY_ELSE = "data engineering"


@dataclass(frozen=True)
class Broken:
    """A stored record with its incidents, oldest first: each its number, rule, reason, first day and state.

    Of a role ``standing`` has all roles of its contact: each its id, name, first and last day, as text.
    """

    table: str
    record_id: int
    record_key: str
    values: Mapping[str, Any]
    incidents: tuple[Mapping[str, Any], ...]
    standing: tuple[Mapping[str, Any], ...] = ()

    @property
    def contract(self) -> str:
        """The contract that takes its corrections."""
        return CONTRACTS[self.table]


@dataclass(frozen=True)
class MendedFile:
    """A file to be taken in: its contract, its headings, its rows as text, and the incidents that each row mends.

    A row without incidents stands beside others so that the file says the whole of what it speaks of.
    """

    contract: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    incidents: tuple[tuple[int, ...], ...]


def mendable_columns(rule: Rule, table: str) -> tuple[str, ...]:
    """The columns of a record that may change to mend what the rule says; none where it speaks of something else."""
    made = (name for name in rule.condition.split() if name in _MADE_OF)
    read = [_MADE_OF.get(name, name) for name in (*rule.columns, *made)]
    return tuple(name for name in MENDABLE[table] if name in read)


def handed_out(record: Broken, rules: Mapping[str, Rule], contract: FeedContract) -> HeldRow | None:
    """The record as a row of the workbook; None where nothing of it can be mended there."""
    columns = (*NAMED_BY[contract.name], *MENDABLE[record.table])
    texts = {name: "" if record.values[name] is None else str(record.values[name]) for name in columns}
    reasons = [
        {"column_name": name, "cell": "", "code": incident["rule_id"], "reason": incident["reason"]}
        for incident in record.incidents
        if incident["state"] == "open" and incident["rule_id"] in rules
        for name in mendable_columns(rules[incident["rule_id"]], record.table)
    ]
    if not reasons and any(incident["state"] == "open" for incident in record.incidents):
        return None
    first = record.incidents[0]
    return HeldRow(
        row_id=int(first["incident_id"]),
        feed_file_id=0,
        row_number=record.record_id,
        cells={contract.column(name).heading: text for name, text in texts.items()},
        staged={},
        reasons=tuple(reasons),
        content=json.dumps(texts, sort_keys=True),
        state="open" if reasons else "corrected",
        file_name=", ".join(str(incident["incident_id"]) for incident in record.incidents),
        file_state="applied",
        contract=contract.name,
        feed=contract.feed,
        as_of=_first_day(record),
        columns=frozenset(columns),
    )


def _first_day(record: Broken) -> date:
    days: list[date] = [incident["first_seen"] for incident in record.incidents]
    return min(days)


def mended_files(
    wanted: Sequence[CorrectedRow],
    records: Mapping[int, Broken],
    contracts: Mapping[str, FeedContract],
    today: date,
) -> list[MendedFile]:
    """What came back as files, one for each contract and set of changed columns, in a fixed order.

    A contact's roles are what a file says of them as a whole, so all roles of a contact go into one, changed or not. A
    role that is given to a contact without one begins ``today``.
    """
    groups: dict[tuple[str, tuple[str, ...]], list[CorrectedRow]] = defaultdict(list)
    roles: list[CorrectedRow] = []
    for row in wanted:
        if set(row.changes) & set(ROLES):
            roles.append(row)
        if changed := tuple(sorted(set(row.changes) - set(ROLES))):
            groups[records[row.row_id].contract, changed].append(row)
    found = [_file(contracts[name], columns, rows, records) for (name, columns), rows in sorted(groups.items())]
    return [*found, _file_of_roles(contracts["corrected_contacts"], roles, records, today)] if roles else found


def _file(
    contract: FeedContract, columns: Sequence[str], rows: Sequence[CorrectedRow], records: Mapping[int, Broken]
) -> MendedFile:
    headings = (*NAMED_BY[contract.name], *columns)
    return MendedFile(
        contract.name,
        tuple(contract.column(column).heading for column in headings),
        tuple(_cells(row, records[row.row_id], headings) for row in rows),
        tuple(_open_ones(records[row.row_id]) for row in rows),
    )


def _file_of_roles(
    contract: FeedContract, rows: Sequence[CorrectedRow], records: Mapping[int, Broken], today: date
) -> MendedFile:
    people: dict[tuple[str, str], list[CorrectedRow]] = defaultdict(list)
    for row in rows:
        values = records[row.row_id].values
        people[str(values["customer_number"]), str(values["email"])].append(row)
    lines: list[tuple[tuple[str, ...], tuple[int, ...]]] = []
    for person, changed in sorted(people.items()):
        spoken_of = {records[row.row_id].record_id for row in changed if records[row.row_id].table != "crm.contacts"}
        lines += [((*person, *_role_cells(row, records[row.row_id], today)), _open_ones(records[row.row_id]))
                  for row in changed]  # fmt: skip
        lines += [((*person, *(str(role[name] or "") for name in ROLES)), ())
                  for role in records[changed[0].row_id].standing if role["id"] not in spoken_of]  # fmt: skip
    headings = tuple(contract.column(name).heading for name in ("customer_number", "email", *ROLES))
    return MendedFile(contract.name, headings, tuple(cells for cells, _ in lines), tuple(ids for _, ids in lines))


def _role_cells(row: CorrectedRow, record: Broken, today: date) -> tuple[str, ...]:
    before = record.values if record.table != "crm.contacts" else {"valid_from": today.isoformat()}
    said = {name: shown(text) for name, text in row.changes.items()}
    return tuple(str(said.get(name, before.get(name)) or "") for name in ROLES)


def _cells(row: CorrectedRow, record: Broken, headings: Iterable[str]) -> tuple[str, ...]:
    return tuple(shown(row.changes[name]) if name in row.changes else str(record.values[name]) for name in headings)


def _open_ones(record: Broken) -> tuple[int, ...]:
    """The open incidents of the record; which of them are mended the next check says."""
    return tuple(int(incident["incident_id"]) for incident in record.incidents if incident["state"] == "open")
