"""What somebody typed, who the customers are, and every secret: none of it reaches Prefect or a log.

Secrets are planted in the settings of every command; what Prefect's whole database and every file below the home then
hold is searched for them, tables of Kontor's own database and all mails included.
"""

from __future__ import annotations

import subprocess
import time
from functools import partial
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
# Settings with a secret in them, as an operator would have them; the marks are what is searched for.
MARKS = ("smtp-Zp41xq", "imap-Rt52wd", "target-Ks63vf", "login-Yb74ug")
SECRETS = {
    "KONTOR_SMTP_URL": f"smtp://mailer:{MARKS[0]}@localhost:1",
    "KONTOR_BOUNCES_URL": f"imaps://reader:{MARKS[1]}@localhost:1/INBOX",
    "KONTOR_BACKUP_TARGET_OPTIONS": f'{{"key": "{MARKS[2]}"}}',
}
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


def _everything_in(stage: Stage, database: str = "prefect") -> str:
    server = _server(stage)
    dsn = f"host={server.socket_dir} port={server.port} user={server.superuser} dbname={database}"
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
    return stage.processes.run("import", str(path), "--contract", "open_items", *more, **SECRETS)


def _secrets_in(stage: Stage) -> set[tuple[str, str]]:
    """Where a planted secret stands: in either database or in a file below the home, the server's own files apart."""
    home, server = stage.settings.home, _server(stage)
    files = [path for path in home.rglob("*") if path.is_file() and not path.is_relative_to(server.data_dir)]
    held = {str(path.relative_to(home)): path.read_bytes() for path in files}
    held |= {f"database {name}": _everything_in(stage, name).encode() for name in ("prefect", "kontor")}
    return {(place, mark) for place, text in held.items() for mark in MARKS if mark.encode() in text}


def test_no_word_that_somebody_typed_reaches_prefect(empty_stage: Stage, tmp_path: Path) -> None:
    """Names planted in files' names, sheets, contracts and reasons are told to who asked and kept nowhere else."""
    stage, run = empty_stage, partial(empty_stage.processes.run, **SECRETS)
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
    kept = _everything_in(stage)
    assert "was refused; nothing of it was applied" in kept
    assert "payment-sync-files" in kept
    logs = [path for path in stage.settings.home.rglob("*.log*") if path.is_file()]
    assert logs
    texts = {"Prefect's database": kept, **{path.name: path.read_text("utf-8", "replace") for path in logs}}
    found = {(place, word) for place, text in texts.items() for word in PLANTED if word in text}
    assert found == set()
    assert _secrets_in(stage) == set()


PEOPLE = ("Rozalinda", "Åkerblom-Dimova", "rozalinda@akerblom.example", "Akerblom Trading Sofia", "+359 88 7654321")
EVERYTHING = (
    "run overdue_reminders --live --as-of 2026-03-20",
    "run finance_report --live --as-of 2026-03-20",
    "run data_quality",
    "run quality_nudge --live",
    "run backup",
    "run restore_check",
    "run retention_purge",
    "run privacy_report --live",
    "run catalog_upsert",
    "backfill start payment_sync --from 2026-03-02 --to 2026-03-08 --reprocess all --reason audit --live",
    "run run_watch",
)


@pytest.mark.campaign
def test_a_full_run_leaves_no_secret_anywhere_and_no_person_in_prefect_or_a_log(
    empty_stage: Stage, tmp_path: Path
) -> None:
    """Every flow has run, with mails, reports, a backup and a backfill: no secret kept, people where they belong."""
    stage, person = empty_stage, ",".join(f'"{word}"' for word in (*PEOPLE[:2], PEOPLE[2], PEOPLE[4]))
    login = stage.settings.home / "prefect.login"
    login.write_text(f"admin:{MARKS[3]}-and-more")
    login.chmod(0o600)
    people = {"KONTOR_FINANCE_EMAILS": PEOPLE[2], "KONTOR_ENGINEER_EMAILS": PEOPLE[2], "KONTOR_MAIL_FROM": PEOPLE[2]}
    more = {"KONTOR_DATA_PROTECTION_EMAILS": PEOPLE[2], "KONTOR_PREFECT_AUTH_FILE": str(login)}
    assert MARKS[1] not in stage.processes.run("reminders", "bounces", **SECRETS).said
    run = partial(stage.processes.run, **{**SECRETS, **people, **more, "KONTOR_BOUNCES_URL": ""})
    named = f'customer_number,name,country,owner\nC-1,"{PEOPLE[3]}",BG,"{PEOPLE[0]}"\n'.encode()
    there = f"customer_number,first_name,last_name,email,phone,roles\nC-1,{person},payments\n".encode()
    for contract, content in (("organizations", named), ("contacts", there), ("open_items", _list(range(40)))):
        path = put(tmp_path, f"{contract}_2026-03-02.csv", content)
        assert run("import", str(path), "--contract", contract).code == 0
    ended = {line: run(*line.split()) for line in EVERYTHING}
    assert {name: end.said for name, end in ended.items() if end.code in (1, 2)} == {}
    assert sum(end.code == 0 for end in ended.values()) >= 8, [end.said for end in ended.values() if end.code]

    _wait_for_events(stage)
    logs = {path.name: path.read_text("utf-8", "replace") for path in stage.settings.home.rglob("*.log*")}
    told = {"Prefect's database": _everything_in(stage), **logs}
    assert all(mark in told["Prefect's database"] for mark in ("backfill-summary", "kontor-status"))
    assert {(place, word) for place, text in told.items() for word in PEOPLE if word in text} == set()
    assert PEOPLE[2] in _everything_in(stage, "kontor")
    login.unlink()
    assert _secrets_in(stage) == set()
