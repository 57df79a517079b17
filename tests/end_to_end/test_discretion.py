"""What somebody typed, a file's name, a sheet's, a path, a reason, never reaches Prefect or a log."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest
import xlsxwriter

from tasks.local_stack import LocalPostgres, find_postgres
from tests.deliveries import put
from tests.nursery import Ended
from tests.stage import Stage

PLANTED = ("Ludmila", "Vassileva-Quist", "Övertorneå")
WHO = " ".join(PLANTED)
HEADINGS = "customer_number,invoice_number,issue_date,due_date,currency,amount,note"
CONTRACT = """
apiVersion: v3.1.0
kind: DataContract
id: of-{who}
name: of_somebody
version: 1.0.0
status: active
customProperties:
  - property: extends
    value: open_items
"""


def _list(numbers: range) -> bytes:
    rows = [f"C-1,A{n},2026-02-01,2026-03-01,EUR,{n + 10}.00," for n in numbers]
    return "\n".join([HEADINGS, *rows, ""]).encode()


def _two_sheets(path: Path) -> None:
    with xlsxwriter.Workbook(path) as book:
        for name in (PLANTED[0], PLANTED[1]):
            sheet = book.add_worksheet(name)
            for row, line in enumerate(_list(range(3)).decode().splitlines()):
                sheet.write_row(row, 0, line.split(","))


def _server(stage: Stage) -> LocalPostgres:
    server = find_postgres(stage.settings.home)
    if server is None:
        pytest.fail("the test server is not running")
    return server


def _everything_prefect_has(stage: Stage) -> str:
    server = _server(stage)
    dsn = f"host={server.socket_dir} port={server.port} user={server.superuser} dbname=prefect"
    done = subprocess.run(
        [str(server.programs_dir / "pg_dump"), "--inserts", dsn], capture_output=True, text=True, check=True
    )
    return done.stdout


def _wait_for_events(stage: Stage) -> None:
    """Prefect writes events and logs behind the flow's back: wait until no more come."""
    server, before = _server(stage), None
    dsn = f"host={server.socket_dir} port={server.port} user={server.superuser} dbname=prefect"
    with psycopg.connect(dsn, autocommit=True) as connection:
        for _ in range(20):
            row: Any = connection.execute(
                "select (select count(*) from events) + (select count(*) from log)"
            ).fetchone()
            if row == before:
                return
            before = row
            time.sleep(1.5)


def _import(stage: Stage, path: Path, *more: str) -> Ended:
    return stage.processes.run("import", str(path), "--contract", "open_items", *more)


def test_no_word_that_somebody_typed_reaches_prefect(empty_stage: Stage, tmp_path: Path) -> None:
    """Names planted in files' names, sheets, contracts and reasons are told to who asked and kept nowhere else."""
    stage, run = empty_stage, empty_stage.processes.run
    folder = tmp_path / WHO
    folder.mkdir()
    organizations = put(folder, f"organizations {WHO} 2026-01-01.csv", b"customer_number,name\nC-1,Firma\n")
    said = [run("import", str(organizations), "--contract", "organizations")]
    put(stage.settings.inbox_path, f"open_items {WHO} 2026-03-02.csv", _list(range(40)))
    said += [run("run", "payment_sync")]
    # Refused: by its sheets, by a guard that compares it with its neighbour, as a second truth, and by no contract.
    sheets = folder / f"{WHO} 2026-03-09.xlsx"
    _two_sheets(sheets)
    shrunk = put(folder, f"shrunk {WHO} 2026-03-09.csv", _list(range(4)))
    second = put(folder, f"second {WHO} 2026-03-02.csv", _list(range(39)))
    refused = [_import(stage, path) for path in (sheets, shrunk, second)]
    guard = "--accept-guard", "vanished_share", "--accept-guard", "row_count", "--accept-guard", "currency_sums"
    accepted = [_import(stage, shrunk, *guard, "--reason", f"{WHO} said so")]
    contract = folder / f"{WHO}.yaml"
    contract.write_text(CONTRACT.format(who=WHO))
    broken = [run("run", "payment_sync", "--param", f"files={shrunk}", "--param", f"contract={contract}")]
    # Rows given up with a reason, and a workbook that is none.
    bad = put(folder, f"bad {WHO} 2026-03-16.csv", _list(range(4)) + b"C-1,A9,2026-02-01,never,EUR,1.00,\n")
    said += [_import(stage, bad), run("quarantine", "reject", "1", "--reason", f"{WHO} paid in cash")]
    refused += [run("quarantine", "replay", str(sheets))]

    assert [ended.code for ended in said] == [0] * 4, said
    assert [ended.code for ended in refused] == [4] * 4, refused
    assert [ended.code for ended in accepted] == [0], accepted
    assert broken[0].code != 0
    for ended in refused[:3]:
        assert PLANTED[1] in ended.said  # who asked reads which file it was

    _wait_for_events(stage)
    kept = _everything_prefect_has(stage)
    assert "was refused; nothing of it was applied" in kept
    assert "payment-sync-files" in kept
    logs = [path for path in stage.settings.home.rglob("*.log*") if path.is_file()]
    assert logs
    texts = {"Prefect's database": kept, **{path.name: path.read_text("utf-8", "replace") for path in logs}}
    found = {(place, word) for place, text in texts.items() for word in PLANTED if word in text}
    assert found == set()
