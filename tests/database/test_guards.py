"""Each guard against its own defect, planted in a real week's file; the untouched file passes, and so does the year."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from openpyxl import load_workbook

from configs.settings import PROJECT_ROOT, Settings
from tasks.demo.generate import write_demo
from tasks.feeds.outcomes import FileOutcome
from tests.conftest import empty_database
from tests.kept_rows import KeptRows, keep_rows
from tests.ledgers import Books, write_csv

DAY = date(2012, 7, 16)
BEFORE = date(2011, 12, 1)
HIGHRADIUS = PROJECT_ROOT / "data_contracts" / "feeds" / "examples" / "highradius.yaml"
Row = dict[str, Any]


@dataclass
class Week:
    """A real week beside the ones before it: its rows, to be spoiled, and the books that know its past."""

    books: Books
    folder: Path
    ledgers: Path

    def rows(self, day: date) -> list[Row]:
        """The rows of a week's workbook by its headings, amounts as exact numbers."""
        sheet = load_workbook(self.ledgers / f"open_items_{day}.xlsx").active
        assert sheet is not None
        lines = list(sheet.iter_rows(min_row=3, values_only=True))
        return [dict(zip(map(str, lines[0]), map(_plain, line), strict=True)) for line in lines[1:-1]]

    def take_in(self, rows: list[Row], *, day: date = DAY, off: Decimal = Decimal(0), **given: Any) -> FileOutcome:
        """Take these rows in as the file of that day, below them a total that may be off."""
        total = sum((row["Open amount"] for row in rows), Decimal(0)) + off
        last = dict.fromkeys(rows[0], "") | {"Customer number": "Total", "Open amount": total}
        path = write_csv(self.folder / f"open_items_{day}.csv", [*rows, last])
        return self.books.take_in(path, "open_items", **given)


def _plain(cell: object) -> object:
    if hasattr(cell, "date"):
        return cell.date()
    return Decimal(str(cell)).quantize(Decimal("0.01")) if isinstance(cell, int | float) else cell


@pytest.fixture(scope="module")
def past(prepared: Settings, real_data: Path) -> Iterator[KeptRows]:
    """The customers and eight weeks up to the Monday before :data:`DAY`, taken in once."""
    empty_database(prepared)
    books = Books(prepared)
    folder = real_data / "receivables"
    books.take_in(folder / "customers.xlsx", "organizations", BEFORE)
    for back in range(8, 0, -1):
        outcome = books.take_in(folder / "weekly-2012" / f"open_items_{DAY - timedelta(weeks=back)}.xlsx", "open_items")
        assert outcome.state == "applied"
    with keep_rows(prepared) as kept:
        yield kept


@pytest.fixture
def week(kontor_settings: Settings, past: KeptRows, real_data: Path, tmp_path: Path) -> Week:
    """The books as they stand after those weeks."""
    past.bring_back()
    return Week(Books(kontor_settings), tmp_path, real_data / "receivables" / "weekly-2012")


def _guards(outcome: FileOutcome) -> set[str]:
    """The guards that refused, by the first word of each reason."""
    return {reason.split(":")[0] for reason in outcome.reasons}


def test_the_untouched_file_passes_every_guard(week: Week) -> None:
    """The real week is applied, and what its guards measured stands beside it with the rule that allowed it."""
    assert week.take_in(week.rows(DAY)).state == "applied"
    ((row),) = week.books.read("select guards, sums from landing.feed_files where as_of = :day", day=DAY)
    judged = {verdict["guard"]: verdict for verdict in row["guards"]}
    assert {verdict["state"] for verdict in judged.values()} == {"passed"}
    assert set(judged) == {
        "age", "vanished_share", "row_count", "currency_sums", "amounts_moved", "amounts_scaled", "dates_moved",
        "dates_swapped", "reappearing", "totals_row",
    }  # fmt: skip
    assert judged["vanished_share"]["measured"] == "0.2121"
    assert set(row["sums"]) == {"BGN", "EUR", "NOK", "PLN", "SEK"}


def _times(factor: str, currency: str | None = None) -> Callable[[list[Row]], list[Row]]:
    def multiply(rows: list[Row]) -> list[Row]:
        for row in rows:
            if currency in (None, row["Currency"]):
                for name in ("Amount", "Open amount"):
                    row[name] = (row[name] * Decimal(factor)).quantize(Decimal("0.01"))
        return rows

    return multiply


def _swap(day: date) -> date:
    return day.replace(month=day.day, day=day.month) if day.day <= 12 else day


def _swap_dates(rows: list[Row]) -> list[Row]:
    return [row | {name: _swap(row[name]) for name in ("Invoice date", "Due date")} for row in rows]


def _later_due(rows: list[Row]) -> list[Row]:
    return [row | {"Due date": row["Due date"] + timedelta(days=1)} for row in rows]


def _strip_zeros(rows: list[Row]) -> list[Row]:
    return [row | {name: row[name].lstrip("0") for name in ("Customer number", "Invoice number")} for row in rows]


def _other_remainders(rows: list[Row]) -> list[Row]:
    return [
        row | {"Open amount": row["Open amount"] - Decimal(place) / 100 if place % 4 else row["Open amount"]}
        for place, row in enumerate(rows)
    ]


def _grow(rows: list[Row]) -> list[Row]:
    small = {"Amount": Decimal("0.01"), "Open amount": Decimal("0.01")}
    return rows + [row | small | {"Invoice number": f"N{n}-{row['Invoice number']}"} for n in range(2) for row in rows]


def _one_huge(rows: list[Row]) -> list[Row]:
    huge = {"Amount": Decimal(60_000), "Open amount": Decimal(60_000), "Invoice number": "HUGE-1"}
    return [*rows, rows[0] | huge]


@pytest.mark.parametrize(
    ("guard", "spoil", "told"),
    [
        pytest.param("vanished_share", lambda rows: rows[::2], "cut off", id="half the rows"),
        pytest.param("amounts_scaled", _times("10"), "the decimal mark slipped", id="times 10"),
        pytest.param("amounts_scaled", _times("100"), "changed by the factor 100 ", id="times 100"),
        pytest.param("amounts_scaled", _times("0.7"), "changed by the factor 0.7 ", id="times 0.7"),
        pytest.param("amounts_scaled", _times("0.7", "EUR"), "of Currency EUR changed", id="one currency times 0.7"),
        pytest.param("amounts_moved", _other_remainders, "another amount or remainder", id="other remainders"),
        pytest.param("dates_swapped", _swap_dates, "day and month have changed places", id="day and month swapped"),
        pytest.param("dates_moved", _later_due, "another date", id="due a day later"),
        pytest.param("leading_zeros", _strip_zeros, "such as 379-NEVHP in A2 where 0379-NEVHP is known", id="zeros"),
        pytest.param("row_count", _grow, "two exports in one file", id="three times the rows"),
        pytest.param("currency_sums", _one_huge, "EUR 61691.53 on 27 rows beside 1490.14 on 23", id="one huge amount"),
    ],
)
def test_a_planted_defect_is_refused_by_its_guard_alone(
    week: Week, guard: str, spoil: Callable[[list[Row]], list[Row]], told: str
) -> None:
    """The spoiled file is refused by exactly this guard, told with its cause and command; nothing of it is applied."""
    before = week.books.state()
    outcome = week.take_in(spoil(week.rows(DAY)))
    assert (outcome.state, _guards(outcome)) == ("refused", {guard})
    assert told in outcome.reasons[0]
    assert "allowed" in outcome.reasons[0]
    assert outcome.reasons[0].endswith(f"(rule {guard}, version 1)")
    assert (
        f"kontor import open_items_{DAY}.csv --contract open_items --as-of {DAY} --accept-guard {guard} --reason"
        in outcome.hint
    )
    assert week.books.state() == before
    assert week.take_in(spoil(week.rows(DAY)), accepted_guards=(guard,), reason="agreed").state == "applied"


def test_a_total_that_is_off_by_more_than_a_cent_is_refused(week: Week) -> None:
    """A cent of rounding passes, two cents and one unit do not."""
    rows = week.rows(DAY)
    assert _guards(week.take_in(rows, off=Decimal("0.02"))) == {"totals_row"}
    refused = week.take_in(rows, off=Decimal(-1))
    assert _guards(refused) == {"totals_row"}
    assert "off by 1.00" in refused.reasons[0]
    assert week.take_in(rows, off=Decimal("0.01")).state == "applied"


def test_a_row_in_quarantine_explains_a_total(week: Week) -> None:
    """The total counts a row whose amount cannot be read; that is no mismatch. A readable row in quarantine counts."""
    rows = week.rows(DAY)
    lost = dict(rows[3])
    total_with_all = lost["Open amount"]
    rows[3] = lost | {"Amount": "see note", "Open amount": Decimal(0)}
    path_rows = [*rows, dict.fromkeys(lost, "") | {"Customer number": "Total", "Open amount": Decimal("5977.12")}]
    path_rows[3] = lost | {"Amount": "see note", "Open amount": "see note"}
    outcome = week.books.take_in(write_csv(week.folder / f"open_items_{DAY}.csv", path_rows), "open_items")
    assert (outcome.state, outcome.quarantined) == ("applied", 1)
    assert total_with_all > 0


def test_settled_items_that_come_back_in_bulk_are_refused(week: Week) -> None:
    """Twenty items that an earlier week listed and last week did not stand in this one again."""
    past, listed = week.rows(DAY - timedelta(weeks=5)), week.rows(DAY)
    last = {row["Invoice number"] for row in week.rows(DAY - timedelta(weeks=1))}
    gone = [row for row in past if row["Invoice number"] not in last]
    outcome = week.take_in(listed + gone[:20])
    assert _guards(outcome) == {"reappearing"}
    assert "20 of 120 items" in outcome.reasons[0]
    assert week.take_in(listed + gone[:11]).state == "applied", "eleven of 111 are less than a tenth"


def test_an_old_file_under_a_new_date_is_refused_for_all_that_is_wrong_with_it(week: Week) -> None:
    """All guards are told at once, and one command accepts them all."""
    outcome = week.take_in(week.rows(DAY - timedelta(weeks=8)))
    assert _guards(outcome) == {"age", "vanished_share", "reappearing"}
    assert "--accept-guard age --accept-guard vanished_share --accept-guard reappearing --reason" in outcome.hint


def test_the_same_bytes_under_another_date_are_refused(week: Week) -> None:
    """Last week's file sent again as this week's is named with its date; the one guard accepts it."""
    week.take_in(week.rows(DAY))
    again = week.folder / f"open_items_{DAY + timedelta(weeks=1)}.csv"
    shutil.copyfile(week.folder / f"open_items_{DAY}.csv", again)
    outcome = week.books.take_in(again, "open_items")
    assert _guards(outcome) == {"same_content"}
    assert f"byte for byte that of open_items_{DAY}.csv, dated {DAY}" in outcome.reasons[0]
    accepted = week.books.take_in(again, "open_items", accepted_guards=("same_content",), reason="a quiet week")
    assert accepted.state == "applied"


def test_a_first_file_without_a_recent_document_is_refused_for_its_age(
    kontor_settings: Settings, real_data: Path, tmp_path: Path
) -> None:
    """With nothing to compare with, the newest document still tells: 45 days pass, 46 do not."""
    folder = real_data / "receivables"
    week = Week(Books(kontor_settings), tmp_path, folder / "weekly-2012")
    week.books.take_in(folder / "customers.xlsx", "organizations", BEFORE)
    rows = week.rows(DAY)
    newest = max(row["Invoice date"] for row in rows)
    outcome = week.take_in(rows, day=newest + timedelta(days=46))
    assert _guards(outcome) == {"age"}
    assert f"46 days before the file's date {newest + timedelta(days=46)}; allowed are 45 days" in outcome.reasons[0]
    assert week.take_in(rows, day=newest + timedelta(days=45)).state == "applied"


def test_a_spoiled_week_between_two_good_ones_is_refused_too(week: Week) -> None:
    """A late file is compared with the week after it as well: what both list and it lacks has vanished from it."""
    after = DAY + timedelta(weeks=1)
    assert week.take_in(week.rows(after), day=after).state == "applied"
    assert _guards(week.take_in(week.rows(DAY)[::2])) == {"vanished_share", "reappearing"}
    assert _guards(week.take_in(_times("10")(week.rows(DAY)))) == {"amounts_scaled"}
    assert week.take_in(week.rows(DAY)).state == "applied"


def test_of_two_files_that_contradict_the_second_is_refused_whichever_it_is(week: Week) -> None:
    """A good week and a converted one refuse each other in both orders; with either alone the books are content."""
    after = DAY + timedelta(weeks=1)
    assert week.take_in(week.rows(after), day=after).state == "applied"
    assert _guards(week.take_in(_times("0.7")(week.rows(DAY)))) == {"amounts_scaled"}
    assert week.take_in(week.rows(DAY)).state == "applied"


def test_what_was_overruled_stays_known_with_who_and_why(week: Week) -> None:
    """The accepted file keeps the guard, what it measured and was allowed, who overruled it and why."""
    outcome = week.take_in(
        _times("0.7")(week.rows(DAY)), accepted_guards=("amounts_scaled",), reason="the ledger moved to euro"
    )
    assert (outcome.state, outcome.overruled) == ("applied", ("amounts_scaled",))
    ((row),) = week.books.read("select guards from landing.feed_files where as_of = :day", day=DAY)
    (kept,) = [verdict for verdict in row["guards"] if verdict["state"] == "overruled"]
    assert kept["measured"] > kept["allowed"]
    assert (kept["overruled_by"], kept["overruled_because"]) == ("test", "the ledger moved to euro")


def test_another_guard_is_not_accepted_along(week: Week) -> None:
    """Accepting the conversion does not accept the rows that are missing beside it."""
    outcome = week.take_in(_times("0.7")(week.rows(DAY))[::2], accepted_guards=("amounts_scaled",), reason="agreed")
    assert _guards(outcome) == {"vanished_share"}


def test_a_threshold_of_its_own_lets_a_sender_differ(week: Week) -> None:
    """A row for one sender wins over the row for all, from its first day on."""
    from sqlalchemy import text

    from tasks import database

    with database.engine_for(week.books.settings, database.OWNER).begin() as connection:
        connection.execute(
            text(
                "insert into rules.quality_threshold (rule_id, version, guard, feed, source, threshold,"
                " minimum_evidence, window_days, valid, author, reason) values ('accounting_vanished', 1,"
                " 'vanished_share', 'open_items', 'accounting', 0.9, 20, 31, '[2012-07-01,)', 'test', 'a clearance')"
            )
        )
    try:
        assert week.take_in(week.rows(DAY)[::2]).state == "applied"
    finally:
        with database.engine_for(week.books.settings, database.OWNER).begin() as connection:
            connection.execute(text("delete from rules.quality_threshold where rule_id = 'accounting_vanished'"))


def test_customers_whose_numbers_lost_their_zeros_are_refused(week: Week, real_data: Path) -> None:
    """A list of customers in which a spreadsheet dropped the zeros would make every such customer a second time."""
    sheet = load_workbook(real_data / "receivables" / "customers.xlsx").active
    assert sheet is not None
    headings, *lines = sheet.iter_rows(values_only=True)
    place = [str(name).lower() for name in headings].index("customer number")
    rows = [dict(zip(map(str, headings), line, strict=True)) for line in lines]
    path = write_csv(
        week.folder / "organizations_2012-07-16.csv",
        [row | {str(headings[place]): str(row[str(headings[place])]).lstrip("0")} for row in rows],
    )
    outcome = week.books.take_in(path, "organizations", DAY)
    assert (outcome.state, _guards(outcome)) == ("refused", {"leading_zeros"})


@pytest.mark.campaign
def test_the_year_passes_in_any_order(kontor_settings: Settings, real_data: Path) -> None:
    """All 53 real weeks, shuffled, are applied with the seeded thresholds and nobody's help."""
    books = Books(kontor_settings)
    books.take_in(real_data / "receivables" / "customers.xlsx", "organizations", BEFORE)
    weeks = sorted((real_data / "receivables" / "weekly-2012").glob("*.xlsx"))
    random.Random(53).shuffle(weeks)
    outcomes = [books.take_in(path, "open_items") for path in weeks]
    assert [(o.file_name, o.reasons) for o in outcomes if o.state != "applied"] == []
    assert len(outcomes) == 53


def test_a_company_code_that_was_converted_is_named_with_its_factor(kontor_settings: Settings, real_data: Path) -> None:
    """The same ledger a week later with 704 amounts times 0.7: the code, the count and the factor are told."""
    books = Books(kontor_settings)
    folder = real_data / "receivables" / "highradius"
    first, second = date(2020, 4, 1), date(2020, 4, 8)
    books.take_in(folder / "A_iso_leading_zeros_floats.csv", HIGHRADIUS, first)
    refused = books.take_in(folder / "D_iso_dates.csv", HIGHRADIUS, second)
    assert _guards(refused) == {"amounts_scaled"}
    assert "704 of 704 changed amounts of business_code CA02 changed by the factor 0.7" in refused.reasons[0]
    assert "probably a currency conversion" in refused.reasons[0]
    assert {row["as_of"] for row in books.read("select as_of from report.feed_files where state = 'applied'")} == {
        first
    }
    accepted = books.take_in(
        folder / "D_iso_dates.csv", HIGHRADIUS, second, accepted_guards=("amounts_scaled",), reason="now in dollars"
    )
    assert (accepted.state, accepted.updated, accepted.overruled) == ("applied", 704, ("amounts_scaled",))


def test_every_file_of_the_demo_passes(kontor_settings: Settings, tmp_path: Path) -> None:
    """The demo's files, dirt, late Monday and all, meet no guard that refuses."""
    books = Books(kontor_settings)
    demo = write_demo(tmp_path)
    outcomes = [books.take_in(file.path, file.contract, file.as_of) for file in demo.files]
    assert len(outcomes) >= 17
    assert [(o.file_name, o.reasons) for o in outcomes if o.state == "refused"] == []
