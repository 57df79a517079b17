"""Incidents out as a workbook and back: what a person mends is checked, taken in, told and kept with who and what."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path
from typing import Any

import openpyxl
from sqlalchemy import text

from configs.settings import PROJECT_ROOT
from tasks import database
from tests.ledgers import Books, item, write_csv
from tests.stage import Stage

FIRMS: list[dict[str, object]] = [
    {"customer_number": "1", "name": "Alfa", "country": "", "language": "bg", "vat_number": "BG175074753",
     "payment_terms_days": 30, "owner": "petar"},
    {"customer_number": "2", "name": "Beta", "country": "", "language": "", "vat_number": "BG175074752",
     "payment_terms_days": 30, "owner": "petar"},
    {"customer_number": "3", "name": "Gamma", "country": "NO", "language": "nb", "vat_number": "x",
     "payment_terms_days": 30, "owner": "rosen"},
]  # fmt: skip


def _filled(stage: Stage, folder: Path) -> Books:
    """Three customers with gaps and a wrong tax number, checked today."""
    books = Books(stage.settings)
    today = books.read("select ops.business_today() as today")[0]["today"]
    books.take_in(write_csv(folder / "organizations.csv", FIRMS), "organizations", today - timedelta(days=250))
    ended = stage.processes.start_flow("data_quality").wait()
    assert ended.code == 0, ended.said
    return books


def _edit(path: Path, changes: dict[tuple[str, str], str]) -> dict[str, list[str]]:
    """Fill cells by customer number and heading, save, and return what stood in each column."""
    workbook = openpyxl.load_workbook(path)
    sheet = workbook["Corrections"]
    headings = {str(cell.value): cell.column for cell in sheet[2] if cell.value}
    column = {name: [str(sheet.cell(row, at).value or "") for row in range(3, sheet.max_row + 1)]
              for name, at in headings.items()}  # fmt: skip
    for (customer, heading), value in changes.items():
        row = column["Customer number"].index(customer) + 3
        sheet.cell(row, headings[heading]).value = value
    workbook.save(path)
    return column


def _changes(books: Books) -> list[dict[str, Any]]:
    return books.read(
        "select o.customer_number, l.column_names, l.old_values, l.new_values, l.actor from history.change_log l"
        " join crm.organizations o on o.organization_id = l.record_id where l.table_name = 'organizations'"
        " and l.operation = 'update' order by l.entry_id"
    )


def test_incidents_go_out_are_mended_and_come_back(empty_stage: Stage, tmp_path: Path) -> None:
    """A right value is taken in and told, a wrong one waits, a reason rests the incident; twice changes nothing."""
    books, run = _filled(empty_stage, tmp_path), empty_stage.processes.run
    sheet = tmp_path / "petar.xlsx"
    written = run("quality", "export", "--owner", "petar", "--out", str(sheet))
    assert written.code == 0, written.said
    before = _changes(books)
    columns = _edit(sheet, {("1", "Country"): "BG", ("2", "Kontor decision"): "reject",
                            ("2", "Why it is rejected"): "asked them"})  # fmt: skip
    assert sorted(columns["Customer number"]) == ["1", "2"]
    assert "country is missing" in columns["Why not: Country"]
    tried = run("quality", "replay", str(sheet), "--dry-run")
    assert tried.code == 0, tried.said
    assert _changes(books) == before
    done = run("quality", "replay", str(sheet))
    assert done.code == 0, done.said
    assert "1 record mended" in done.said
    [change] = _changes(books)[len(before) :]
    assert (change["customer_number"], change["new_values"]["country"]) == ("1", "BG")
    assert "country" not in change["old_values"]
    assert change["actor"]
    stored = books.read("select name, country, language, owner from crm.organizations where customer_number = '1'")
    assert stored == [{"name": "Alfa", "country": "BG", "language": "bg", "owner": "petar"}]
    told = books.read(
        "select i.record_key, i.rule_id, e.event, e.reason from ops.quality_incident_events e"
        " join ops.quality_incidents i using (incident_id) where e.event <> 'opened' order by 1, 2"
    )
    assert ("1", "organization_country_present", "corrected", "changed: Customer number, Country") in [
        tuple(row.values()) for row in told
    ]
    assert {row["event"] for row in told if row["record_key"] == "2"} == {"waived"}
    again = run("quality", "replay", str(sheet))
    assert again.code == 6, again.said
    assert len(_changes(books)) == len(before) + 1
    assert list((empty_stage.settings.home / "corrections").glob("*")) == []


def test_a_value_that_cannot_be_used_waits_in_quarantine(empty_stage: Stage, tmp_path: Path) -> None:
    """It is no correction until quarantine takes it in; the other rows of the workbook are."""
    books, run = _filled(empty_stage, tmp_path), empty_stage.processes.run
    sheet = tmp_path / "all.xlsx"
    assert run("quality", "export", "--out", str(sheet)).code == 0
    _edit(sheet, {("1", "Country"): "Atlantis", ("2", "Country"): "BG"})
    done = run("quality", "replay", str(sheet))
    assert "1 record mended, 1 record waiting" in done.said
    waiting = books.read("select contract, state from report.quarantine")
    assert waiting == [{"contract": "corrected_organizations", "state": "open"}]
    assert books.read("select country from crm.organizations order by customer_number") == [
        {"country": None}, {"country": "BG"}, {"country": "NO"},
    ]  # fmt: skip


def test_a_cell_that_nobody_opened_is_not_taken(empty_stage: Stage, tmp_path: Path) -> None:
    """Nothing was wrong with it, so the line is told of and nothing of it is kept; a changed record likewise."""
    books, run = _filled(empty_stage, tmp_path), empty_stage.processes.run
    sheet = tmp_path / "all.xlsx"
    assert run("quality", "export", "--out", str(sheet)).code == 0
    _edit(sheet, {("1", "Language"): "nb", ("2", "Country"): "BG"})
    with database.engine_for(books.settings, database.OWNER).begin() as connection:
        connection.execute(text("update crm.organizations set segment = 'wholesale' where customer_number = '2'"))
    before = _changes(books)
    done = run("quality", "replay", str(sheet))
    assert done.code == 6
    assert "language changed although nothing was wrong there" in done.said
    assert "was changed since this workbook was exported" in done.said
    assert _changes(books) == before


def test_the_draft_of_a_feed_is_asked_of_archived_files(empty_stage: Stage, tmp_path: Path) -> None:
    """The command tells a table's rules from a feed's contract by what the draft says, and prints the money."""
    run = empty_stage.processes.run
    write_csv(tmp_path / "organizations.csv", FIRMS)
    write_csv(tmp_path / "items.csv", [item("1", "A", "7,50", date(2026, 3, 2))])
    assert run("import", str(tmp_path / "organizations.csv"), "--contract", "organizations").code == 0
    assert run("import", str(tmp_path / "items.csv"), "--contract", "open_items", "--as-of", "2026-03-02").code == 0
    shipped = (PROJECT_ROOT / "data_contracts" / "feeds" / "open_items.yaml").read_text("utf-8")
    draft = tmp_path / "draft.yaml"
    draft.write_text(shipped.replace("decimal: auto", 'decimal: "."'), "utf-8")
    told = run("quality", "backtest", str(draft))
    assert told.code == 0, told.said
    assert "1 archived file with 1 row read by both contracts." in told.said
    assert "-7.5000" in told.said
