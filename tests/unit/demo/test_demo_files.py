"""The demo's files: the same every time, true to one ledger, and dirty exactly where they say they are."""

from __future__ import annotations

import csv
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from decimal import Decimal, InvalidOperation
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from python_calamine import CalamineWorkbook, SheetVisibleEnum
from stdnum.eu import vat as eu_vat
from stdnum.no import mva as no_vat

from tasks.demo.customers import COUNTRIES, HABITS
from tasks.demo.generate import LATE_MONDAY, DemoFile, DemoFiles, write_demo
from tasks.demo.ledger import MONDAYS, Item
from tasks.demo.names import WORDING, domain_part, plain_latin
from tasks.demo.sheets import HEADINGS

CANONICAL = {heading: name for headings in HEADINGS.values() for name, heading in headings.items()}
CREDIT_NOTES = {"Credit note", "Кредитно известие"}


@dataclass(frozen=True)
class Listed:
    """A data row as it stands in a file: its row number and the cells by canonical column."""

    row: int
    cells: dict[str, object]

    @property
    def number(self) -> str:
        return str(self.cells["invoice_number"] or "")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> DemoFiles:
    """The demo, written once."""
    return write_demo(tmp_path_factory.mktemp("demo"))


def raw_rows(path: Path) -> list[list[object]]:
    """All rows of a file, of its visible sheet if it is a workbook."""
    if path.suffix == ".csv":
        encoding = "cp1251" if path.name.startswith("open_items") else "utf-8-sig"
        with path.open(encoding=encoding, newline="") as file:
            return [list(row) for row in csv.reader(file, delimiter=";")]
    with CalamineWorkbook.from_path(str(path)) as workbook:
        visible = [s.name for s in workbook.sheets_metadata if s.visible is SheetVisibleEnum.Visible]
        assert len(visible) == 1
        return [list(row) for row in workbook.get_sheet_by_name(visible[0]).to_python(skip_empty_area=False)]


def listed(path: Path) -> tuple[list[Listed], list[dict[str, object]]]:
    """The data rows and the totals rows of a file."""
    rows = raw_rows(path)
    header = next(i for i, row in enumerate(rows) if _canonical(row[0]) is not None)
    names = [_canonical(heading) for heading in rows[header]]
    data: list[Listed] = []
    totals: list[dict[str, object]] = []
    for number, row in enumerate(rows[header + 1 :], start=header + 2):
        cells = {name: value for name, value in zip(names, row, strict=False) if name}
        if marker := re.fullmatch("(?:Total|Общо) ([A-Z]{3})", str(row[0])):
            totals.append({**cells, "currency": marker[1]})
        elif any(value != "" for value in row):
            data.append(Listed(number, cells))
    return data, totals


def _canonical(heading: object) -> str | None:
    return CANONICAL.get(" ".join(str(heading).split()))


def money(value: object) -> Decimal:
    """A cell as exact money, in the ways the demo's files write it."""
    text = str(value)
    if isinstance(value, str):
        text = text.replace("\N{NO-BREAK SPACE}", "").replace(",", ".")
        text = "-" + text[1:-1] if text.startswith("(") else text
    return Decimal(text).quantize(Decimal("0.01"))


def day(value: object) -> date | None:
    """A cell as a date, or None when it is none."""
    if isinstance(value, date):
        return value
    match = re.fullmatch(r"(\d\d)\.(\d\d)\.(\d{4})", str(value))
    try:
        return date(int(match[3]), int(match[2]), int(match[1])) if match else None
    except ValueError:
        return None


def weekly(demo: DemoFiles) -> list[DemoFile]:
    """The weekly files, one for each Monday."""
    files = [file for file in demo.files if file.contract == "open_items" and "(1)" not in file.path.name]
    return sorted(files, key=lambda file: file.as_of)


def customer_numbers(demo: DemoFiles) -> list[str]:
    """The customer numbers of both files of customers."""
    files = [file for file in demo.files if file.contract == "organizations"]
    return [str(row.cells["customer_number"]) for file in files for row in listed(file.path)[0]]


def test_two_runs_write_the_same_bytes(demo: DemoFiles, tmp_path: Path) -> None:
    """Two runs into two folders give the same files, byte for byte, and the same list of what is planted."""
    again = write_demo(tmp_path)
    first = {file.path.name: file.path.read_bytes() for file in demo.files}
    second = {file.path.name: file.path.read_bytes() for file in again.files}
    assert len(first) == 17
    assert first == second
    assert demo.planted == again.planted
    assert {path.name for path in tmp_path.iterdir()} == set(first)


def test_files_arrive_in_the_told_order(demo: DemoFiles) -> None:
    """Customers come first, more of them after the third week, a file twice, and one Monday last of all."""
    names = [file.path.name for file in demo.files]
    assert names[:3] == ["organizations.xlsx", "contacts.csv", "settled_items_2026-08-31.xlsx"]
    assert names[names.index("open_items_2026-09-14.xlsx") + 1] == "organizations_2.xlsx"
    assert names[-2:] == ["open_items_2026-11-02 (1).xlsx", f"open_items_{LATE_MONDAY}.xlsx"]
    resent, original = demo.files[-2], next(f for f in demo.files if f.path.name == "open_items_2026-11-02.xlsx")
    assert resent.path.read_bytes() == original.path.read_bytes()
    assert [file.as_of for file in weekly(demo)] == list(MONDAYS)


def test_customers_are_spread_over_five_countries(demo: DemoFiles) -> None:
    """120 customers with names of their own country, unique numbers and names, and VAT numbers that hold."""
    rows = [row.cells for row in listed(demo.files[0].path)[0]]
    assert Counter(row["country"] for row in rows) == COUNTRIES
    assert len({row["customer_number"] for row in rows}) == len({row["name"] for row in rows}) == 120
    numbers = [str(row["vat_number"]) for row in rows if row["vat_number"]]
    assert len(numbers) > 90
    assert [n for n in numbers if not (no_vat if n.startswith("NO") else eu_vat).is_valid(n)] == []
    assert {row["currency"] for row in rows} == {"EUR", "PLN", "NOK", "SEK"}
    assert {row["language"] for row in rows} == {"bg", "pl", "nb", "sv", "en"}
    assert re.search("[А-я]", "".join(str(row["name"]) for row in rows if row["country"] == "BG"))


def test_contacts_lead_nowhere_real_and_some_customers_have_no_payments_contact(demo: DemoFiles) -> None:
    """Every address ends in .example, once per customer; four customers have no payments contact, two a past one."""
    rows = [row.cells for row in listed(demo.files[1].path)[0]]
    assert all(re.fullmatch(r"[a-z]+\.[a-z]+@[a-z0-9-]+\.example", str(row["email"])) for row in rows)
    assert max(Counter((row["customer_number"], row["email"]) for row in rows).values()) == 1
    payments = [row for row in rows if "payments" in str(row["roles"])]
    today = [row for row in payments if not row["valid_to"] or str(row["valid_to"]) >= "2026-11-16"]
    known = {str(row.cells["customer_number"]) for row in listed(demo.files[0].path)[0]}
    assert len(known - {row["customer_number"] for row in payments}) == 4
    assert len(known - {row["customer_number"] for row in today}) == 6


def test_totals_are_the_sum_of_the_rows_in_each_currency(demo: DemoFiles) -> None:
    """Good rows plus what the books hold for the damaged ones give each totals row to the cent."""
    for file in weekly(demo):
        rows, totals = listed(file.path)
        planted = {p.row: p for p in demo.planted if p.file_name == file.path.name}
        sums: defaultdict[str, Decimal] = defaultdict(Decimal)
        for row in rows:
            truth = planted.get(row.row)
            if truth is not None and truth.currency is not None and truth.booked is not None:
                sums[truth.currency] += truth.booked
            else:
                sums[str(row.cells["currency"])] += money(row.cells["open_amount"])
        assert {str(t["currency"]): money(t["open_amount"]) for t in totals} == dict(sums), file.path.name
        assert len(totals) == 4
        assert file.rows == len(rows)
        assert 250 <= len(rows) <= 450


def faults(rows: list[Listed], known: set[str]) -> Iterator[tuple[int, str]]:
    """The rows that a strict reader would not take, each with the column at fault; credit notes are due at once."""
    seen = Counter(row.number for row in rows)
    for row in rows:
        cells = row.cells
        if cells["customer_number"] not in known:
            yield row.row, "customer_number"
        if not row.number or seen[row.number] > 1:
            yield row.row, "invoice_number"
        if cells["currency"] not in {"EUR", "PLN", "NOK", "SEK"}:
            yield row.row, "currency"
        try:
            money(cells["open_amount"])
        except InvalidOperation:
            yield row.row, "open_amount"
        issued, due = day(cells["issue_date"]), day(cells["due_date"])
        if due is None or (issued is not None and due < issued):
            yield row.row, "due_date"


def test_a_strict_reader_finds_exactly_the_planted_rows(demo: DemoFiles) -> None:
    """Judged once all customers are known, the rows at fault are the ones listed as planted, by row and column."""
    known = set(customer_numbers(demo))
    found = {
        (file.path.name, row, column) for file in weekly(demo) for row, column in faults(listed(file.path)[0], known)
    }
    told = {(p.file_name, p.row, p.column) for p in demo.quarantined if p.file_name.startswith("open_items")}
    assert len(told) >= 15
    assert found == told


def test_every_planted_cell_is_where_it_is_said_to_be(demo: DemoFiles) -> None:
    """Each kind of dirt is found at its file, row and column, and each kind is planted at least once."""
    looks = {
        "text_in_amount": "виж писмото",
        "impossible_date": r"31\.0[29]\.2026",
        "lost_year": r"\d\d\.\d\d\.",
        "due_before_issue": r"2025-\d\d-\d\d",
        "unknown_currency": "EUX",
        "doubted_currency": r"EURO\?",
        "error_cell": r"#N/A|",
        "missing_number": "",
        "duplicate_number": r"\d{10}",
        "unknown_customer": "009417",
        "customer_arrives_later": r"00112[123]",
        "nbsp_amount": r"\d{1,3}(\xa0\d{3})+,\d\d",
        "parenthesised_amount": r"\((\d+\xa0)?\d+,\d\d\)",
    }
    assert {p.kind for p in demo.planted} == set(looks)
    rows = {file.path.name: {r.row: r for r in listed(file.path)[0]} for file in demo.files}
    for planted in demo.planted:
        value = rows[planted.file_name][planted.row].cells[planted.column]
        assert re.fullmatch(looks[planted.kind], str(value)), planted


def test_an_error_cell_is_stored_as_an_error(demo: DemoFiles) -> None:
    """The #N/A in an amount is an Excel error with a formula behind it, not the text of one."""
    openpyxl = pytest.importorskip("openpyxl")
    planted = [p for p in demo.planted if p.kind == "error_cell"]
    assert len(planted) == 2
    for cell in planted:
        sheet = openpyxl.load_workbook(demo.folder / cell.file_name, data_only=True).active
        assert [(c.value, c.data_type) for c in sheet[cell.row] if c.data_type == "e"] == [("#N/A", "e")]


def test_no_item_is_listed_outside_its_life(demo: DemoFiles) -> None:
    """A week lists an item from its issue to the day before it is settled, save while its payment was believed."""
    items = {item.number: item for item in demo.items}
    for file in weekly(demo):
        known = {row.number for row in listed(file.path)[0]} & set(items)
        assert known == {item.number for item in demo.items if item.is_open(file.as_of)}, file.path.name
        late = [n for n in known if items[n].settled_on <= file.as_of or items[n].issued_on > file.as_of]
        assert late == []


def test_reopened_items_vanish_for_one_monday_and_come_back(demo: DemoFiles) -> None:
    """Two items are gone from exactly one weekly file between files that list them, and a story tells of each."""
    numbers = [{row.number for row in listed(file.path)[0]} for file in weekly(demo)]
    reopened = []
    for item in demo.items:
        weeks = [index for index, listed_numbers in enumerate(numbers) if item.number in listed_numbers]
        if weeks and len(weeks) < weeks[-1] - weeks[0] + 1:
            assert weeks[-1] - weeks[0] + 1 - len(weeks) == 1
            reopened.append(item.number)
    assert len(reopened) == 2
    assert set(reopened) == {story.invoice_number for story in demo.stories if story.kind == "reopened"}


def test_what_is_open_of_an_item_only_falls(demo: DemoFiles) -> None:
    """From week to week the open amount of an invoice stays or falls, and never exceeds its amount."""
    dirty = {(p.file_name, p.row) for p in demo.planted if p.quarantined}
    last: dict[str, Decimal] = {}
    part_paid = set()
    for file in weekly(demo):
        for row in listed(file.path)[0]:
            if (file.path.name, row.row) in dirty or row.cells["document_type"] in CREDIT_NOTES:
                continue
            remains, amount = money(row.cells["open_amount"]), money(row.cells["amount"])
            assert 0 < remains <= min(amount, last.get(row.number, amount))
            last[row.number] = remains
            part_paid |= {row.number} if remains < amount else set()
    assert part_paid >= {story.invoice_number for story in demo.stories if story.kind == "part_paid"} & set(last)
    assert len(part_paid) >= 8


def days_late(items: list[Item]) -> dict[str, Decimal]:
    """The mean days late of the settled, undisputed invoices of each customer."""
    late: defaultdict[str, list[int]] = defaultdict(list)
    for item in items:
        if item.document_type == "invoice" and item.disputed is None:
            late[item.customer.number].append((item.settled_on - item.due_on).days)
    return {number: Decimal(sum(days)) / len(days) for number, days in late.items()}


def test_the_settled_year_shows_how_each_customer_pays(demo: DemoFiles) -> None:
    """The punctual average at most 2 days late, the hesitant 5 to 17, the disloyal 40 or more; the new have none."""
    habits = {item.customer.number: item.customer.habit for item in demo.items}
    evidence = days_late([item for item in demo.items if item.settled_on <= MONDAYS[0]])
    bounds = {"punctual": (-8, 2), "hesitant": (5, 17), "disloyal": (40, 80)}
    for number, mean in evidence.items():
        if habits[number] in bounds:
            low, high = bounds[habits[number]]
            assert low <= mean <= high, (number, habits[number], mean)
    assert {number for number in habits if number not in evidence} == {n for n, h in habits.items() if h == "new"}
    rows, _ = listed(demo.folder / "settled_items_2026-08-31.xlsx")
    settled = [day(row.cells["settled_date"]) for row in rows]
    assert settled.count(None) == 1
    assert max(value for value in settled if value) <= MONDAYS[0]
    assert HABITS["punctual"] > HABITS["hesitant"] > HABITS["disloyal"]


def test_about_a_fifth_of_the_open_money_is_overdue(demo: DemoFiles) -> None:
    """In the last week 15 to 30 per cent of the open euros are overdue, and some items are disputed."""
    open_now = [item for item in demo.items if item.is_open(MONDAYS[-1]) and item.customer.currency == "EUR"]
    total = sum(item.open_amount(MONDAYS[-1]) for item in open_now)
    overdue = sum(item.open_amount(MONDAYS[-1]) for item in open_now if item.due_on < MONDAYS[-1])
    assert Decimal("0.15") < overdue / total < Decimal("0.30")
    assert any(item.is_disputed(MONDAYS[-1]) for item in demo.items)


LETTERS = "".join(
    letter
    for wording in WORDING.values()
    for word in (*wording.words, *wording.places, *wording.forms)
    for letter in word
)


@given(st.text(alphabet=st.sampled_from(sorted(set(LETTERS))), min_size=1, max_size=40))
def test_any_name_becomes_a_domain_label(text: str) -> None:
    """Every letter that the demo's names use has a Latin spelling, so that no letter of a name is lost."""
    assert len(plain_latin(text)) >= len(text)
    assert re.fullmatch(r"([a-z0-9]+(-[a-z0-9]+)*)?", domain_part(text))


@pytest.mark.parametrize(
    ("name", "latin"),
    [("Цветелина Щерева", "Tsvetelina Shtereva"), ("Łucja Gołąb", "Lucja Golab"), ("Bjørg Ødegård", "Bjorg Odegard")],
)
def test_names_are_spelled_in_latin(name: str, latin: str) -> None:
    """Cyrillic follows the transliteration act; Polish and Nordic letters lose their marks."""
    assert plain_latin(name) == latin
