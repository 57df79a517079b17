"""Writes the demo company's files: customers, contacts, a year of settled items and twelve weekly ledgers.

``write_demo`` gives the same bytes every time; nothing in it depends on the day, the machine or the folder.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from random import Random
from types import MappingProxyType

from tasks.demo.customers import Contact, Customer, make_contacts, make_customers, make_late_customers
from tasks.demo.dirt import Blemish, Cell, Row, open_item_row, soil
from tasks.demo.ledger import MONDAYS, Item, make_ledger
from tasks.demo.names import COMPANY
from tasks.demo.sheets import Layout, Totals, write_csv, write_workbook

SEED = 20_260_831
LATE_MONDAY = date(2026, 10, 5)
"""The Monday whose file arrives last of all."""
RESENT_MONDAY = date(2026, 11, 2)
"""The Monday whose file arrives twice, the second time under another name."""
SECOND_CUSTOMERS_AFTER = date(2026, 9, 14)
"""The Monday after whose file the second file of customers arrives."""

OPEN_COLUMNS = (
    "customer_number", "customer_name", "invoice_number", "document_type", "issue_date", "due_date",
    "currency", "amount", "open_amount", "disputed", "note",
)  # fmt: skip
SETTLED_COLUMNS = (*OPEN_COLUMNS[:-1], "settled_date")
ORGANIZATION_COLUMNS = (
    "customer_number", "name", "country", "language", "vat_number", "currency", "payment_terms_days", "segment",
    "owner",
)  # fmt: skip
CONTACT_COLUMNS = (
    "customer_number", "first_name", "last_name", "email", "phone", "language", "roles", "valid_from", "valid_to",
)  # fmt: skip

DIRT: dict[date, tuple[str, ...]] = {
    MONDAYS[0]: ("nbsp_amount", "parenthesised_amount"),
    MONDAYS[2]: ("text_in_amount", "impossible_date", "unknown_customer"),
    MONDAYS[3]: ("missing_number", "lost_year", "nbsp_amount", "parenthesised_amount"),
    MONDAYS[6]: ("due_before_issue", "doubted_currency", "error_cell"),
    MONDAYS[7]: ("duplicate_number", "text_in_amount", "nbsp_amount"),
    MONDAYS[10]: ("impossible_date", "missing_number", "lost_year", "error_cell"),
    MONDAYS[11]: ("unknown_customer", "text_in_amount", "unknown_currency", "parenthesised_amount"),
}
"""What is planted in which week; the weeks that are not named are clean."""

_BULGARIAN = frozenset({MONDAYS[1], MONDAYS[3], MONDAYS[6], MONDAYS[8], MONDAYS[10]})
_AS_CSV = MONDAYS[3]
_REORDERED = ("customer_name", "customer_number", "due_date", "issue_date", "invoice_number", "document_type",
              "note", "disputed", "open_amount", "amount", "currency")  # fmt: skip


@dataclass(frozen=True)
class DemoFile:
    """One file: ``contract`` reads it, ``rows`` counts its data rows, ``remark`` says what is special about it."""

    path: Path
    contract: str
    as_of: date
    rows: int
    remark: str = ""


@dataclass(frozen=True)
class Planted:
    """One odd cell: where it is (``row`` counted from 1 in the file) and of which ``kind``.

    ``quarantined`` is false for what only looks odd. ``healed_by`` names the file whose arrival releases the row.
    ``currency`` and ``booked`` are what accounting's totals row counts for a weekly row, None elsewhere.
    """

    file_name: str
    row: int
    column: str
    kind: str
    quarantined: bool
    healed_by: str | None = None
    currency: str | None = None
    booked: Decimal | None = None


@dataclass(frozen=True)
class Story:
    """One invoice worth following: ``kind`` is reopened, part_paid, disputed, credited or promised."""

    kind: str
    customer_number: str
    invoice_number: str
    day: date


@dataclass(frozen=True)
class DemoFiles:
    """Every file in the order of arrival, what is planted in them, and invoices worth following."""

    folder: Path
    files: tuple[DemoFile, ...]
    planted: tuple[Planted, ...]
    stories: tuple[Story, ...]
    items: tuple[Item, ...]

    @property
    def quarantined(self) -> tuple[Planted, ...]:
        """The planted cells whose rows end in quarantine and stay there once every file has arrived."""
        return tuple(p for p in self.planted if p.quarantined and p.healed_by is None)


def write_demo(folder: Path) -> DemoFiles:
    """Writes the demo's files to ``folder`` (made if absent) and returns what they are and what is planted in them."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = Random(SEED)
    first = make_customers(rng)
    late = make_late_customers(rng, first)
    items = make_ledger(rng, first + late)
    contacts = make_contacts(rng, first + late[:1])

    masters, contact_dirt = _write_masters(folder, first, late, contacts)
    settled, settled_dirt = _write_settled(rng, folder, items)
    weeks = [_write_week(rng, folder, items, monday, late) for monday in MONDAYS]
    return DemoFiles(
        folder=folder,
        files=_arrivals(masters, settled, {file.as_of: file for file, _ in weeks}),
        planted=(*contact_dirt, *settled_dirt, *(planted for _, found in weeks for planted in found)),
        stories=tuple(_stories(items)),
        items=tuple(items),
    )


def _arrivals(masters: Sequence[DemoFile], settled: DemoFile, weeks: dict[date, DemoFile]) -> tuple[DemoFile, ...]:
    """The order in which the files reach the inbox: one Monday late, one file twice, more customers in between."""
    organizations, contacts, more_organizations = masters
    files = [organizations, contacts, settled]
    for monday, file in weeks.items():
        if monday != LATE_MONDAY:
            files.append(file)
        if monday == SECOND_CUSTOMERS_AFTER:
            files.append(more_organizations)
    return (*files, _resend(weeks[RESENT_MONDAY]), weeks[LATE_MONDAY])


def _resend(file: DemoFile) -> DemoFile:
    """The same content under the name that a browser gives a second download."""
    path = file.path.with_name(f"{file.path.stem} (1){file.path.suffix}")
    path.write_bytes(file.path.read_bytes())
    return DemoFile(path, file.contract, file.as_of, file.rows, f"the same bytes as {file.path.name}")


# --- customers and contacts -------------------------------------------------------------------------------------------


def _write_masters(
    folder: Path, first: list[Customer], late: list[Customer], contacts: list[Contact]
) -> tuple[list[DemoFile], list[Planted]]:
    organizations = DemoFile(folder / "organizations.xlsx", "organizations", MONDAYS[0], len(first))
    more = DemoFile(
        folder / "organizations_2.xlsx", "organizations", SECOND_CUSTOMERS_AFTER, len(late), "customers new this autumn"
    )
    people = DemoFile(folder / "contacts.csv", "contacts", MONDAYS[0], len(contacts))
    layout = Layout(ORGANIZATION_COLUMNS, sheet="Organizations")
    write_workbook(organizations.path, layout, [_organization(customer) for customer in first])
    write_workbook(more.path, layout, [_organization(customer) for customer in late])
    write_csv(people.path, Layout(CONTACT_COLUMNS), [_contact(contact) for contact in contacts])
    unknown = {customer.number for customer in late}
    blemish = Blemish("customer_number", "customer_arrives_later")
    planted = [
        _planted(people.path, row, blemish, healed_by=more.path.name)
        for row, contact in enumerate(contacts, start=2)
        if contact.customer_number in unknown
    ]
    return [organizations, people, more], planted


def _organization(customer: Customer) -> dict[str, Cell]:
    return {
        "customer_number": customer.number,
        "name": customer.name,
        "country": customer.country,
        "language": customer.language,
        "vat_number": customer.vat_number or None,
        "currency": customer.currency,
        "payment_terms_days": customer.terms_days,
        "segment": customer.segment,
        "owner": customer.owner,
    }


def _contact(contact: Contact) -> dict[str, Cell]:
    return {name: getattr(contact, name) for name in CONTACT_COLUMNS}


# --- the ledger -------------------------------------------------------------------------------------------------------


def _write_settled(rng: Random, folder: Path, items: list[Item]) -> tuple[DemoFile, list[Planted]]:
    """The past year's settled items; one settlement date in it is impossible."""
    day = MONDAYS[0]
    settled = [item for item in items if item.settled_on <= day]
    rows = [_settled_row(item) for item in settled]
    bad = rng.randrange(len(rows))
    rows[bad] = rows[bad].but(Blemish("settled_date", "impossible_date"), settled_date="31.02.2026")
    path = folder / f"settled_items_{day}.xlsx"
    layout = Layout(SETTLED_COLUMNS, titles=(f"Settled items as of {day}",), sheet="Settled items")
    write_workbook(path, layout, [row.cells for row in rows])
    file = DemoFile(path, "settled_items", day, len(rows), "one year of settled items")
    return file, [_planted(path, layout.header_row + 1 + bad, rows[bad].blemishes[0])]


def _settled_row(item: Item) -> Row:
    row = open_item_row(item, item.issued_on, "")
    disputed = "yes" if item.disputed else None
    cells = {**row.cells, "open_amount": Decimal(0), "disputed": disputed, "settled_date": item.settled_on}
    return Row(MappingProxyType(cells), row.currency, Decimal(0))


def _write_week(
    rng: Random, folder: Path, items: list[Item], monday: date, late: list[Customer]
) -> tuple[DemoFile, list[Planted]]:
    rows = soil(rng, _open_rows(items, monday, late), DIRT.get(monday, ()))
    layout = _layout(monday)
    cells = [row.cells for row in rows]
    if monday == _AS_CSV:
        path = folder / f"open_items_{monday}.csv"
        write_csv(path, layout, cells, _totals(rows), encoding="cp1251")
    else:
        path = folder / f"open_items_{monday}.xlsx"
        write_workbook(path, layout, cells, _totals(rows))
    first_row = layout.header_row + 1 if monday != _AS_CSV else len(layout.titles) + 2
    planted = [
        _planted(path, first_row + index, blemish, row=row)
        for index, row in enumerate(rows)
        for blemish in row.blemishes
    ]
    return DemoFile(path, "open_items", monday, len(rows), _remark(monday)), planted


def _open_rows(items: list[Item], monday: date, late: list[Customer]) -> list[Row]:
    """The items open at the end of ``monday`` by customer, due date and number.

    Up to the arrival of the second file of customers, a row of one of ``late`` is noted as one that waits for it.
    """
    open_items = [item for item in items if item.is_open(monday)]
    open_items.sort(key=lambda item: (item.customer.number, item.due_on, item.number))
    rows = [open_item_row(item, monday, _note(item, monday)) for item in open_items]
    if monday > SECOND_CUSTOMERS_AFTER:
        return rows
    waiting = {customer.number for customer in late}
    blemish = Blemish("customer_number", "customer_arrives_later")
    return [row.but(blemish) if row.cells["customer_number"] in waiting else row for row in rows]


def _note(item: Item, day: date) -> str:
    bulgarian = day in _BULGARIAN
    if item.credits:
        return f"към фактура {item.credits}" if bulgarian else f"credit for invoice {item.credits}"
    if item.is_disputed(day):
        return "рекламация" if bulgarian else "complaint about the goods"
    if until := item.promised_until(day):
        return f"обещано плащане до {until:%d.%m.%Y}" if bulgarian else f"payment promised by {until}"
    if item.unsettled and item.unsettled[1] < day:
        return "върнато плащане" if bulgarian else "payment returned by the bank"
    return ""


def _totals(rows: Iterable[Row]) -> Totals:
    amounts: defaultdict[str, Decimal] = defaultdict(Decimal)
    remainders: defaultdict[str, Decimal] = defaultdict(Decimal)
    for row in rows:
        amount = row.cells["amount"]
        amounts[row.currency] += amount if isinstance(amount, Decimal) else row.booked
        remainders[row.currency] += row.booked
    return {currency: (amounts[currency], remainders[currency]) for currency in amounts}


def _layout(monday: date) -> Layout:
    """How the file of ``monday`` looks: no two weeks are quite alike."""
    if monday in _BULGARIAN:
        title = f"Отворени позиции към {monday:%d.%m.%Y}"
        return Layout(
            columns=_REORDERED if monday == MONDAYS[8] else OPEN_COLUMNS,
            language="bg",
            titles=(title,) if monday == _AS_CSV else (COMPANY, title),
            sheet="Отворени",
            date_format="dd.mm.yyyy",
            empty_rows_after=1500 if monday == MONDAYS[6] else 0,
        )
    return Layout(
        columns=OPEN_COLUMNS,
        titles=(f"Open items as of {monday}",),
        sheet="Open items",
        headings={"invoice_number": "Invoice\nnumber"} if monday == MONDAYS[2] else {},
        hidden_sheet=monday == MONDAYS[4],
        empty_rows_after=40 if monday == MONDAYS[9] else 0,
    )


def _remark(monday: date) -> str:
    remarks = {
        MONDAYS[1]: "headings in Bulgarian",
        MONDAYS[2]: "a line break in a heading; rows of a customer who is not known yet",
        MONDAYS[3]: "text in code page 1251 with decimal commas",
        MONDAYS[4]: "a hidden sheet in front",
        LATE_MONDAY: "arrives last, six newer files are already in",
        MONDAYS[6]: "1,500 formatted empty rows below the totals",
        MONDAYS[8]: "the columns in another order",
    }
    return remarks.get(monday, "")


def _planted(
    path: Path, place: int, blemish: Blemish, *, row: Row | None = None, healed_by: str | None = None
) -> Planted:
    later = "organizations_2.xlsx" if blemish.kind == "customer_arrives_later" else None
    return Planted(
        file_name=path.name,
        row=place,
        column=blemish.column,
        kind=blemish.kind,
        quarantined=blemish.quarantined,
        healed_by=healed_by or later,
        currency=row.currency if row else None,
        booked=row.booked if row else None,
    )


def _stories(items: Iterable[Item]) -> Iterable[Story]:
    """Items of this autumn that show something, each with the day on which it begins."""
    for item in items:
        events = {
            "reopened": item.unsettled and item.unsettled[1] + timedelta(days=1),
            "part_paid": item.part_paid_on,
            "disputed": item.disputed and item.disputed[0],
            "promised": item.promise and item.promise[0],
            "credited": item.issued_on if item.credits else None,
        }
        for kind, day in events.items():
            if day and MONDAYS[0] <= day <= MONDAYS[-1]:
                yield Story(kind, item.customer.number, item.number, day)
