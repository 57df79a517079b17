"""What goes wrong in accounting's files, planted row by row and written down, so that a test can ask for exactly it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import date, timedelta
from decimal import Decimal
from random import Random
from types import MappingProxyType

from tasks.demo.ledger import Item

NBSP = "\N{NO-BREAK SPACE}"


class ErrorCell(str):
    """The text of an Excel error, such as ``#N/A``, to be stored as an error and not as text."""

    __slots__ = ()


Cell = str | int | Decimal | date | ErrorCell | None


@dataclass(frozen=True)
class Blemish:
    """One odd cell: its column, what kind it is, and whether its row belongs in quarantine for it."""

    column: str
    kind: str
    quarantined: bool = True


@dataclass(frozen=True)
class Row:
    """One row on its way to a file: cells by canonical column, and what accounting's own books hold for it.

    ``currency`` and ``booked`` (the open amount) are the truth behind a damaged cell: the totals row counts them.
    """

    cells: MappingProxyType[str, Cell]
    currency: str
    booked: Decimal
    blemishes: tuple[Blemish, ...] = ()

    def but(self, blemish: Blemish, **cells: Cell) -> Row:
        """The same row with ``cells`` changed and ``blemish`` noted."""
        changed = MappingProxyType({**self.cells, **cells})
        return replace(self, cells=changed, blemishes=(*self.blemishes, blemish))


def open_item_row(item: Item, day: date, note: str) -> Row:
    """The row that accounting's file of ``day`` has for ``item``."""
    cells: dict[str, Cell] = {
        "customer_number": item.customer.number,
        "customer_name": item.customer.name,
        "invoice_number": item.number,
        "document_type": item.document_type,
        "issue_date": item.issued_on,
        "due_date": item.due_on,
        "currency": item.customer.currency,
        "amount": item.amount,
        "open_amount": item.open_amount(day),
        "disputed": "yes" if item.is_disputed(day) else None,
        "note": note or None,
    }
    return Row(MappingProxyType(cells), item.customer.currency, item.open_amount(day))


def soil(rng: Random, rows: list[Row], kinds: Iterable[str]) -> list[Row]:
    """``rows`` with each of ``kinds`` planted once, on a row of its own that had no blemish before."""
    for kind in kinds:
        fits = _FITS.get(kind, _is_plain_invoice)
        place = rng.choice([index for index, row in enumerate(rows) if not row.blemishes and fits(row)])
        rows = [*rows[:place], *_PLANT[kind](rows[place]), *rows[place + 1 :]]
    return rows


def _is_plain_invoice(row: Row) -> bool:
    plain = row.cells["document_type"] == "invoice" and row.cells["disputed"] is None and row.cells["note"] is None
    return plain and row.booked == row.cells["amount"]


def _is_over_a_thousand(row: Row) -> bool:
    return _is_plain_invoice(row) and 1000 < row.booked < 1_000_000


def _is_credit_note(row: Row) -> bool:
    return row.cells["document_type"] == "credit_note" and row.booked > -1000


def _due_on(row: Row) -> date:
    due_on = row.cells["due_date"]
    if not isinstance(due_on, date):
        raise TypeError("dirt is planted on rows whose due date is still a date")
    return due_on


def _text_in_amount(row: Row) -> list[Row]:
    return [row.but(Blemish("open_amount", "text_in_amount"), open_amount="виж писмото")]


def _impossible_date(row: Row) -> list[Row]:
    return [row.but(Blemish("due_date", "impossible_date"), due_date="31.09.2026")]


def _lost_year(row: Row) -> list[Row]:
    return [row.but(Blemish("due_date", "lost_year"), due_date=f"{_due_on(row):%d.%m.}")]


def _due_before_issue(row: Row) -> list[Row]:
    return [row.but(Blemish("due_date", "due_before_issue"), due_date=_due_on(row) - timedelta(days=365))]


def _unknown_currency(row: Row) -> list[Row]:
    return [row.but(Blemish("currency", "unknown_currency"), currency="EUX")]


def _doubted_currency(row: Row) -> list[Row]:
    """Whoever typed it was not sure; nobody else may be."""
    return [row.but(Blemish("currency", "doubted_currency"), currency="EURO?")]


def _error_cell(row: Row) -> list[Row]:
    return [row.but(Blemish("open_amount", "error_cell"), open_amount=ErrorCell("#N/A"))]


def _missing_invoice_number(row: Row) -> list[Row]:
    """A posting that nobody gave a number, beside the good row: both are the same customer's."""
    return [row, _extra(row, Decimal("118.40")).but(Blemish("invoice_number", "missing_number"), invoice_number=None)]


def _duplicate_number(row: Row) -> list[Row]:
    """One number, two amounts: neither can be believed, so both rows are at fault."""
    blemish = Blemish("invoice_number", "duplicate_number")
    other = row.booked + Decimal("90.00")
    return [row.but(blemish), replace(row, booked=other).but(blemish, amount=other, open_amount=other)]


def _unknown_customer(row: Row) -> list[Row]:
    """An invoice to a number that no file of customers ever brings."""
    stranger = _extra(row, Decimal("764.20")).but(
        Blemish("customer_number", "unknown_customer"), customer_number="009417", customer_name="Клиент 9417"
    )
    return [row, stranger]


def _nbsp_amount(row: Row) -> list[Row]:
    return [row.but(Blemish("open_amount", "nbsp_amount", quarantined=False), open_amount=nbsp_text(row.booked))]


def _parenthesised_amount(row: Row) -> list[Row]:
    text = f"({nbsp_text(-row.booked)})"
    return [row.but(Blemish("open_amount", "parenthesised_amount", quarantined=False), open_amount=text)]


def _extra(row: Row, amount: Decimal) -> Row:
    number = f"{int(str(row.cells['invoice_number'])) + 800_000_000:010d}"
    cells: dict[str, Cell] = {**row.cells, "invoice_number": number, "amount": amount, "open_amount": amount}
    return replace(row, cells=MappingProxyType(cells), booked=amount)


def nbsp_text(amount: Decimal) -> str:
    """``amount`` as a Bulgarian accountant types it: 1518.44 → ``1 518,44`` with a no-break space."""
    return f"{amount:,.2f}".replace(",", NBSP).replace(".", ",")


_PLANT: dict[str, Callable[[Row], list[Row]]] = {
    "text_in_amount": _text_in_amount,
    "impossible_date": _impossible_date,
    "lost_year": _lost_year,
    "due_before_issue": _due_before_issue,
    "unknown_currency": _unknown_currency,
    "doubted_currency": _doubted_currency,
    "error_cell": _error_cell,
    "missing_number": _missing_invoice_number,
    "duplicate_number": _duplicate_number,
    "unknown_customer": _unknown_customer,
    "nbsp_amount": _nbsp_amount,
    "parenthesised_amount": _parenthesised_amount,
}
_FITS: dict[str, Callable[[Row], bool]] = {
    "nbsp_amount": _is_over_a_thousand,
    "parenthesised_amount": _is_credit_note,
}
