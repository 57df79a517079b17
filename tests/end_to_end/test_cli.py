"""The `kontor` command as a person and a script use it, on the demo's own home: messages, exit codes, forms."""

from __future__ import annotations

import csv
import html
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path

import openpyxl
import pytest
from sqlalchemy import Connection, text

from configs.settings import Settings
from flows.commands.demo import program
from tasks.database import OWNER, engine_for
from tasks.local_stack import find_postgres
from tests.nursery import Nursery
from tests.reader import Reader, listing, look

KONTOR = [sys.executable, "-m", "flows.cli"]
LAST = "2026-11-16"


def _environment(home: Path, **more: str) -> dict[str, str]:
    mine = {key: value for key, value in os.environ.items() if not key.startswith(("PREFECT_", "KONTOR_"))}
    return {**mine, "KONTOR_HOME": str(home), "NO_COLOR": "1", **more}


def kontor(home: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own and return what it printed and how it ended."""
    return subprocess.run(
        [*KONTOR, *arguments], env=_environment(home, **more), capture_output=True, text=True, timeout=600, check=False
    )


@pytest.fixture(scope="module")
def played(reader: Reader) -> subprocess.CompletedProcess[str]:
    """The demo, which has run once for all tests here and the tutorial's."""
    assert reader.played.returncode == 0, reader.played.stdout[-2000:] + reader.played.stderr[-2000:]
    return reader.played


@pytest.fixture
def home(reader: Reader, played: subprocess.CompletedProcess[str]) -> Path:
    """A home in which the demo has run."""
    return reader.home


# --- the demo ---------------------------------------------------------------------------------------------------------


def test_the_demo_ends_with_a_screen_that_says_who_owes_what(
    home: Path, played: subprocess.CompletedProcess[str]
) -> None:
    """The demo names every file, the money per currency, the payer classes, dirt with its cell, and what to do next."""
    shown = played.stdout
    assert "\x1b" not in shown
    assert shown.count("open_items_2026-") >= 13
    for words in ("Who owes what", "EUR", "NOK", "PLN", "SEK", "● disloyal (red)", "What could not be read"):
        assert words in shown
    assert "http://127.0.0.1:" in shown
    assert "set aside" in shown
    assert "export KONTOR_HOME=.kontor/demo" in shown


def test_the_demos_figures_are_those_of_the_report(home: Path, played: subprocess.CompletedProcess[str]) -> None:
    """What the last screen says is owed in EUR is the sum of the aging report."""
    rows = listing(look(home, "report", "aging", "--as-of", LAST, "--format", "json"))
    total = sum(Decimal(str(row["total"])) for row in rows if row["currency"] == "EUR")
    assert f"EUR {total:,.2f}" in played.stdout


def test_the_commands_that_the_demo_suggests_work_as_printed(
    home: Path, played: subprocess.CompletedProcess[str], tmp_path: Path
) -> None:
    """Every suggested command but the one that stops everything ends well."""
    after = played.stdout.split("Try next", 1)[1]
    commands = re.findall(r"^  (?:\S*/)?kontor (.*?)(?: {3,}|\n)", after, re.MULTILINE)
    assert len(commands) >= 6
    for command in [command.split() for command in commands if command.strip() != "down"]:
        arguments = [str(tmp_path / part) if part.endswith(".xlsx") else part for part in command]
        done = look(home, *arguments)
        assert done.returncode == 0, (command, done.stderr)
        assert done.stdout or arguments != command


def test_commands_are_suggested_in_the_way_they_were_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Started as a module it is suggested as one, and as a program by the path where it lies."""
    monkeypatch.setattr(sys, "argv", ["flows/cli.py"])
    assert program().endswith("python -m flows.cli")
    monkeypatch.setattr(sys, "argv", ["/opt/somewhere/kontor"])
    assert program() == "/opt/somewhere/kontor"


def test_a_demo_never_begins_in_a_home_that_it_did_not_make(tmp_path: Path) -> None:
    """Where a database stands already the demo refuses, and so it does with a database of one's own."""
    (tmp_path / "postgres" / "data").mkdir(parents=True)
    done = look(tmp_path, "demo")
    assert done.returncode == 3
    assert "no demo made" in done.stderr
    mine = look(tmp_path, "demo", KONTOR_DATABASE_URL="postgresql://nobody@127.0.0.1:1/nothing")
    assert mine.returncode == 3
    assert "Nothing was done" in mine.stderr


# --- reports ----------------------------------------------------------------------------------------------------------

REPORTS = (
    "open-invoices", "overdue_invoices", "aging", "payer-classes", "settled_invoices", "quarantine", "feed-files",
    "feed-freshness", "organization-card", "runs",
)  # fmt: skip


@pytest.mark.parametrize("name", REPORTS)
def test_json_keys_are_the_columns_of_the_view(home: Path, name: str) -> None:
    """Every report prints an array of objects whose keys are its view's columns, in their order."""
    rows = listing(look(home, "report", name, "--format", "json", "--limit", "2"))
    assert rows
    with engine_for(Settings(home=home)).connect() as connection:
        columns = connection.scalars(
            text(
                "select column_name from information_schema.columns"
                " where table_schema = 'report' and table_name = :name order by ordinal_position"
            ),
            {"name": name.replace("-", "_")},
        ).all()
    assert list(rows[0]) == columns


def test_money_is_text_and_days_are_iso(home: Path) -> None:
    """In JSON an amount is text with its currency's digits and a day is ISO 8601."""
    rows = listing(look(home, "report", "overdue-invoices", "--as-of", LAST, "--format", "json"))
    assert len(rows) > 50
    for row in rows:
        assert re.fullmatch(r"-?\d+\.\d{2}", str(row["open_amount"]))
        assert re.fullmatch(r"\d{4}-\d\d-\d\d", str(row["due_on"]))


def test_a_past_day_answers_with_what_was_true_then(home: Path) -> None:
    """The same report as of an earlier day is another one; nothing that was due later is overdue in it."""
    early = listing(look(home, "report", "overdue-invoices", "--as-of", "2026-09-14", "--format", "json"))
    assert early
    assert max(str(row["due_on"]) for row in early) < "2026-09-14"


def test_one_customer_with_the_leading_zeros(home: Path) -> None:
    """--customer keeps the rows of that number; a number that nobody has is a usage error."""
    rows = listing(look(home, "report", "aging", "--as-of", LAST, "--format", "json"))
    number = str(rows[0]["customer_number"])
    mine = listing(look(home, "report", "open-invoices", "--as-of", LAST, "--customer", number, "--format", "json"))
    assert {row["customer_number"] for row in mine} == {number}
    nobody = look(home, "report", "aging", "--customer", number.lstrip("0") + "9999")
    assert (nobody.returncode, nobody.stdout) == (2, "")
    assert "leading zeros" in nobody.stderr


def test_the_file_name_says_the_form(home: Path, tmp_path: Path) -> None:
    """--out report.xlsx, .csv and .html write what their names say, all with the same rows."""
    for name in ("aging.xlsx", "aging.csv", "aging.html"):
        done = look(home, "report", "aging", "--as-of", LAST, "--out", str(tmp_path / name))
        assert (done.returncode, done.stdout) == (0, "")
    sheet = openpyxl.load_workbook(tmp_path / "aging.xlsx").active
    assert sheet is not None
    lines = list(csv.reader(io.StringIO((tmp_path / "aging.csv").read_text("utf-8"))))
    assert sheet.max_row == len(lines) > 50
    assert [cell.value for cell in sheet[1]] == lines[0]
    assert (tmp_path / "aging.html").read_text("utf-8").count("<tr>") == len(lines)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["aging.csv", "aging.html", "aging.xlsx"]


@pytest.mark.filterwarnings("ignore:.*extension is not supported:UserWarning")
def test_finances_report_in_every_form(home: Path, tmp_path: Path) -> None:
    """The report of a day is printed as text and as one JSON object, and written as page and workbook."""
    figures = json.loads(look(home, "report", "finance", "--as-of", LAST, "--format", "json").stdout)
    aging = listing(look(home, "report", "aging", "--as-of", LAST, "--format", "json"))
    for totals in figures["now"]["totals"]:
        mine = [Decimal(str(row["total"])) for row in aging if row["currency"] == totals["currency"]]
        assert Decimal(totals["open_amount"]) == sum(mine)
    assert figures["as_of"] == LAST
    for name in ("finance.html", "finance.xlsx", "finance.txt"):
        assert look(home, "report", "finance", "--as-of", LAST, "--out", str(tmp_path / name)).returncode == 0
    page = (tmp_path / "finance.html").read_text("utf-8")
    assert not re.search(r"<(script|link|iframe)|https?://|url\(|@import", page)
    assert "Overdue" in openpyxl.load_workbook(tmp_path / "finance.xlsx").sheetnames
    assert look(home, "report", "finance", "--as-of", LAST).stdout == (tmp_path / "finance.txt").read_text("utf-8")
    for more in (["--customer", "001035"], ["--limit", "3"], ["--format", "csv"]):
        assert look(home, "report", "finance", *more).returncode == 2


@pytest.mark.campaign
def test_the_finance_report_runs_as_a_flow(home: Path) -> None:
    """Run without --live it writes three files below the home, stands in the ledger as a trial, and mails nobody."""
    done = kontor(home, "run", "finance-report", "--as-of", LAST)
    assert done.returncode == 0, done.stderr
    folder = home / "reports" / "finance" / LAST
    assert sorted(path.name for path in folder.iterdir()) == [
        f"finance-{LAST}.{end}" for end in ("html", "txt", "xlsx")
    ]
    run = listing(look(home, "report", "runs", "--format", "json", "--limit", "1"))[0]
    assert (run["flow"], run["state"], run["dry_run"]) == ("finance_report", "done", True)
    refused = kontor(home, "run", "finance-report", "--as-of", LAST, "--live")
    assert refused.returncode == 2
    assert "KONTOR_FINANCE_EMAILS" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["report", "nonsense"], "overdue-invoices"),
        (["report", "quarantine", "--as-of", LAST], "cannot answer for 2026-11-16"),
        (["report", "feed-freshness", "--customer", "001035"], "no column customer_number"),
        (["report", "aging", "--as-of", "2026-02-30"], "YYYY-MM-DD"),
        (["report", "aging", "--format", "xlsx"], "--out"),
        (["run", "nonsense"], "payment_sync"),
        (["run", "payment-sync", "--param", "revision=x", "--param", "nonsense=1"], "nonsense"),
        (["run", "payment-sync", "--param", "revision"], "NAME=VALUE"),
        (["import", "nonsense.xlsx"], "does not exist"),
        (["contracts", "show", "nonsense"], "open_items"),
        (["quarantine", "list", "--state", "lost"], "open, replayed"),
        (["payer-class", "set", "001035", "golden", "--until", "2027-01-01", "--reason", "r"], "strict"),
        (["nonsense"], "No such command"),
    ],
)
def test_wrong_use_ends_with_2_and_names_what_there_is(home: Path, arguments: Sequence[str], words: str) -> None:
    """A wrong name, option or value is a usage error whose text names the right ones; nothing goes to stdout."""
    done = look(home, *arguments, COLUMNS="200")
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_quarantine_lists_cells_and_reasons_and_can_be_narrowed(home: Path) -> None:
    """The list holds the view's open rows; a file's own rows are those of that file."""
    every = listing(look(home, "quarantine", "list", "--format", "json"))
    assert {row["state"] for row in every} == {"open"}
    assert all(row["reason"] for row in every)
    name = str(every[0]["file_name"])
    mine = listing(look(home, "quarantine", "list", "--file", name, "--format", "json"))
    assert mine == [row for row in every if row["file_name"] == name]
    everything = listing(look(home, "quarantine", "list", "--state", "all", "--format", "json"))
    assert len(everything) > len(every)


# --- status -----------------------------------------------------------------------------------------------------------


def test_status_holds_lines_feeds_runs_quarantine_classes_and_refusals(home: Path) -> None:
    """The status as JSON has seven sections; a feed has its age and a word for it; the classes are all four."""
    done = look(home, "status", "--format", "json")
    assert done.returncode == 0
    found = json.loads(done.stdout)
    assert list(found) == ["lines", "feeds", "runs", "quarantine", "payer_classes", "refused_files", "unclaimed_files"]
    assert {"feeds", "runs", "quarantine"} <= {row["area"] for row in found["lines"]}
    assert [row["rank"] for row in found["lines"]] == sorted(row["rank"] for row in found["lines"])
    assert all(row["next_command"] for row in found["lines"] if row["colour"] in ("yellow", "red"))
    assert {row["feed"] for row in found["feeds"]} == {"organizations", "contacts", "open_items", "settled_items"}
    assert {row["freshness"] for row in found["feeds"]} <= {"fresh", "late", "stale"}
    assert {row["payer_class"] for row in found["payer_classes"]} == {"strict", "hesitant", "disloyal", "unrated"}
    assert sum(row["customers"] for row in found["payer_classes"]) == 123
    assert found["runs"][0]["state"] == "done"


def test_status_for_people_ends_with_what_to_do_next(home: Path) -> None:
    """The status in words has the ages in words and suggests commands."""
    shown = look(home, "status").stdout
    assert re.search(r"open_items +accounting +2026-11-16 +\d+ days? +● \w+ \(\w+\)", shown)
    assert "Next" in shown
    assert "kontor quarantine list" in shown


def test_status_is_one_page_that_needs_nothing_from_outside(home: Path, tmp_path: Path) -> None:
    """--out status.html writes the verdict, every line and the sections below them into one file."""
    lines = json.loads(look(home, "status", "--format", "json").stdout)["lines"]
    assert look(home, "status", "--out", str(tmp_path / "status.html")).returncode == 0
    page = (tmp_path / "status.html").read_text("utf-8")
    assert not re.search(r"<(script|link|iframe)|https?://|url\(|@import", page)
    assert all(html.escape(str(line["headline"])) in page for line in lines)
    assert 'class="banner' in page


def test_a_run_that_was_killed_does_not_stand_as_running(home: Path) -> None:
    """A ledger row without a living process behind it is shown as abandoned before anyone cleans up."""
    statement = (
        "insert into ops.run_ledger (flow, actor, as_of, dry_run, host, process_id)"
        " values ('payment_sync', 'test', '2026-11-16', false, 'gone', 1) returning run_id"
    )
    with engine_for(Settings(home=home)).begin() as connection:
        run_id = connection.scalar(text(statement))
    rows = listing(look(home, "report", "runs", "--format", "json", "--limit", "1"))
    assert (rows[0]["run_id"], rows[0]["state"]) == (run_id, "abandoned")


# --- files ------------------------------------------------------------------------------------------------------------


def test_check_says_what_was_recognised_without_the_database(home: Path, tmp_path: Path) -> None:
    """A check of a file names sheet, header row, columns, day, rows and bad cells; no server is started for it."""
    file = home / "demo" / f"open_items_{LAST}.xlsx"
    found = listing(look(tmp_path, "contracts", "check", str(file), "--format", "json"))[0]
    assert (found["state"], found["as_of"], found["sheet"]) == ("readable", LAST, "Open items")
    assert int(str(found["rows"])) > 300
    assert found["problems"]
    shown = look(tmp_path, "contracts", "check", str(file)).stdout
    assert "customer_number ← Customer number" in shown
    assert not (tmp_path / "postgres").exists()


def test_check_refuses_what_is_no_table_with_4(tmp_path: Path) -> None:
    """A file whose nature is wrong ends with bad input and every reason; so does a contract with a misspelt key."""
    (tmp_path / "open_items_2026-01-05.csv").write_text("nothing;of;use\n1;2;3\n", "utf-8")
    done = look(tmp_path, "contracts", "check", str(tmp_path / "open_items_2026-01-05.csv"))
    assert done.returncode == 4
    assert "nothing of it was applied" in done.stderr
    assert "contracts template open_items" in done.stderr
    (tmp_path / "sender.yaml").write_text("apiVersion: v3.1.0\nkindd: DataContract\n", "utf-8")
    assert look(tmp_path, "contracts", "check", str(tmp_path / "sender.yaml")).returncode == 4


def test_contracts_are_listed_shown_and_made_into_templates(tmp_path: Path) -> None:
    """The list has the four feeds; a column shows its headings in several languages; a template is a workbook."""
    rows = listing(look(tmp_path, "contracts", "list", "--format", "json"))
    assert {"organizations", "contacts", "open_items", "settled_items"} <= {str(row["name"]) for row in rows}
    columns = listing(look(tmp_path, "contracts", "show", "open_items", "--format", "json"))
    headings = next(row["headings"] for row in columns if row["column"] == "open_amount")
    assert isinstance(headings, list)
    assert len(headings) > 5
    target = tmp_path / "t.xlsx"
    assert look(tmp_path, "contracts", "template", "open_items", "--out", str(target)).returncode == 0
    assert openpyxl.load_workbook(target).sheetnames


def test_import_tells_of_every_file_and_ends_with_6_when_one_is_refused(
    home: Path, processes: Nursery, tmp_path: Path
) -> None:
    """A known file, a new customer and two refused files in one command: a line each, exit code 6, reasons in words."""
    known = home / "demo" / f"open_items_{LAST}.xlsx"
    new = tmp_path / "organizations_2026-11-17.csv"
    new.write_text("customer_number,name,country\n909090,=Нов клиент,BG\n", "utf-8")
    wrong = tmp_path / "open_items_2026-11-17.csv"
    wrong.write_text("a,b\n1,2\n", "utf-8")
    files = [str(known), str(new), str(wrong)]
    done = processes.run("import", *files, "--format", "json", "--as-of", "2026-11-17")
    assert done.code == 6, done.told
    assert f"open_items_{LAST}.xlsx" in done.told
    # The command's day contradicts the first file's own: refused too, like the one without columns.
    states = {row["file_name"]: row["state"] for row in json.loads(done.printed)}
    assert states[new.name] == "applied"
    assert states[wrong.name] == "refused"
    again = processes.run("import", str(known), str(new))
    assert again.code == 0, again.said
    assert again.printed.count("known") >= 2
    assert again.told == ""
    card = look(home, "report", "aging", "--customer", "909090", "--format", "csv")
    assert card.returncode == 0


def test_a_refused_file_ends_with_4_and_a_dry_run_keeps_nothing(home: Path, processes: Nursery, tmp_path: Path) -> None:
    """One refused file is bad input; a dry run counts rows and leaves no trace of the file."""
    wrong = tmp_path / "open_items_2026-11-18.csv"
    wrong.write_text("a,b\n1,2\n", "utf-8")
    done = processes.run("import", str(wrong), "--dry-run")
    assert done.code == 4, done.said
    new = tmp_path / "organizations_dry.csv"
    new.write_text("customer_number,name,country\n919191,Dry,NO\n", "utf-8")
    dry = processes.run("import", str(new), "--as-of", "2026-11-18", "--dry-run", "--format", "json")
    assert dry.code == 0, dry.said
    row = json.loads(dry.printed)[0]
    assert (row["file_name"], row["state"], row["inserted"]) == (new.name, "applied", 1)
    assert look(home, "report", "aging", "--customer", "919191").returncode == 2
    names = {row["file_name"] for row in listing(look(home, "report", "feed-files", "--format", "json"))}
    assert not {wrong.name, new.name} & names


@pytest.mark.campaign
def test_prefects_log_is_in_a_file_and_on_the_terminal_only_with_verbose(home: Path) -> None:
    """With --verbose the log is there; the file has it always; the result on stdout is the same."""
    loud = kontor(home, "run", "payment-sync", "--verbose")
    assert loud.returncode == 0
    assert loud.stdout == "payment_sync: nothing new to take in\n"
    assert "run_opened" in loud.stderr
    assert (home / "logs" / "kontor.log").read_text("utf-8").count("run_opened") > 15


@pytest.mark.campaign
def test_a_flow_that_runs_already_ends_with_3(home: Path) -> None:
    """While another run holds the flow's lock the command is refused, says so, and changes nothing."""
    with engine_for(Settings(home=home)).connect() as holder:
        holder.detach()  # a session that went back to the pool would keep the lock
        holder.execute(text("select pg_advisory_lock(hashtext('kontor flow payment_sync'))"))
        done = kontor(home, "run", "payment_sync")
        assert done.returncode == 3
        assert "already running" in done.stderr
        assert "what to do:" in done.stderr


# --- payer classes ----------------------------------------------------------------------------------------------------


def test_a_payer_class_is_set_listed_and_cleared_by_hand(home: Path) -> None:
    """An override has an end and a reason; a second one over it is refused; cleared, the rules decide again."""
    number = str(
        listing(look(home, "report", "payer-classes", "--as-of", LAST, "--format", "json"))[0]["customer_number"]
    )
    given = ["payer-class", "set", number, "strict", "--as-of", LAST, "--until", "2027-01-31", "--reason", "new owner"]
    done = look(home, *given)
    assert done.returncode == 0, done.stderr
    assert look(home, *given).returncode == 3
    listed = listing(look(home, "payer-class", "list", "--as-of", LAST, "--format", "json"))
    assert [(row["customer_number"], row["payer_class"], row["until"]) for row in listed] == [
        (number, "strict", "2027-01-31")
    ]
    assert look(home, "payer-class", "clear", number, "--reason", "as before", "--as-of", LAST).returncode == 0
    assert listing(look(home, "payer-class", "list", "--as-of", LAST, "--format", "json")) == []


# --- servers, errors --------------------------------------------------------------------------------------------------


def test_a_database_that_is_down_ends_with_5(tmp_path: Path) -> None:
    """A database of one's own that does not answer is a dependency that is down, and nothing half-done remains."""
    done = look(tmp_path, "status", KONTOR_DATABASE_URL="postgresql://nobody@127.0.0.1:1/nothing")
    assert done.returncode == 5
    assert "half-done" in done.stderr
    assert "nobody" not in done.stderr


def test_a_database_of_ones_own_is_never_migrated_by_the_way(home: Path) -> None:
    """Without the schema of this version a command is refused with `kontor db upgrade` as the way on."""
    server = find_postgres(home)
    assert server is not None
    url = f"postgresql://kontor_admin@/postgres?host={server.socket_dir}&port={server.port}"
    done = look(home, "status", KONTOR_DATABASE_URL=url)
    assert done.returncode == 3
    assert "kontor db upgrade" in done.stderr


def test_a_database_of_a_newer_version_is_left_alone(home: Path) -> None:
    """Where a newer Kontor has migrated the database an older one refuses with 3 and changes nothing."""
    engine = engine_for(Settings(home=home), OWNER)
    with engine.begin() as connection:
        stands = connection.scalar(text("select version_num from ops.alembic_version"))
        connection.execute(text("update ops.alembic_version set version_num = '9999'"))
    try:
        done = look(home, "status")
    finally:
        with engine.begin() as connection:
            connection.execute(text("update ops.alembic_version set version_num = :stands"), {"stands": stands})
    assert done.returncode == 3
    assert "newer than this version" in done.stderr


def test_a_wrong_setting_names_the_culprit(tmp_path: Path) -> None:
    """A setting that cannot be read is a usage error that names the variable."""
    done = look(tmp_path, "status", KONTOR_BUSINESS_TIMEZONE="Sofia")
    assert done.returncode == 2
    assert "KONTOR_BUSINESS_TIMEZONE" in done.stderr


def test_psql_works_as_a_role_that_owns_nothing(home: Path) -> None:
    """`db url` is what psql takes, and the shell answers as the role that was asked for."""
    url = look(home, "db", "url").stdout.strip()
    assert url.startswith("postgresql://kontor_finance@/kontor?")
    shell = subprocess.run(
        [*KONTOR, "db", "shell", "--role", "finance"],
        env=_environment(home),
        input="\\pset format unaligned\nselect current_user;\nselect count(*) from crm.invoices;\n",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "kontor_finance" in shell.stdout
    assert "permission denied" in shell.stderr


@pytest.mark.campaign
def test_an_interrupt_ends_quietly_with_130(home: Path) -> None:
    """Ctrl-C in the middle of a run leaves neither a traceback nor a run that stands as running."""
    engine = engine_for(Settings(home=home))
    running = subprocess.Popen(
        [*KONTOR, "run", "payment_sync"],
        env=_environment(home),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    with engine.connect() as holder:
        holder.execute(text("lock table landing.quarantined_rows in access exclusive mode"))
        _await_run(holder, running.pid)
        running.send_signal(signal.SIGINT)
        time.sleep(0.3)
        holder.rollback()
    printed, said = running.communicate(timeout=60)
    assert (running.returncode, printed, said) == (130, "", "")
    newest = listing(look(home, "report", "runs", "--format", "json", "--limit", "1"))[0]
    assert (newest["process_id"], newest["state"]) == (running.pid, "failed")


def _await_run(connection: Connection, process_id: int) -> None:
    """Wait until that process has a run in the ledger, three minutes at most."""
    for _ in range(1800):
        if connection.scalar(text("select 1 from ops.run_ledger where process_id = :pid"), {"pid": process_id}):
            return
        time.sleep(0.1)
    pytest.fail("the run did not begin")


def test_help_is_quick_and_names_every_command() -> None:
    """`kontor --help` loads nothing heavy."""
    code = (
        "import sys; from flows.cli import main; main(['--help'])\n"
        "heavy = {'prefect', 'pandas', 'sqlalchemy', 'alembic', 'great_expectations'} & set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    for name in (
        "demo",
        "status",
        "import",
        "contracts",
        "quarantine",
        "report",
        "payer-class",
        "run",
        "up",
        "down",
        "db",
    ):
        assert re.search(rf"^. {name} ", done.stdout, re.MULTILINE), name


@pytest.mark.parametrize("command", [["status"], ["report", "aging"], ["quarantine", "list"], ["contracts", "list"]])
def test_looking_loads_neither_prefect_nor_pandas(home: Path, command: list[str]) -> None:
    """Commands that only look start without the libraries that only flows need."""
    code = (
        f"import sys; from flows.cli import main; main({command!r})\n"
        "heavy = {'prefect', 'pandas', 'great_expectations'} & set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=_environment(home), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


# --- numbers, terminals and disks that nobody has ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [("quarantine", "show", "9" * 20), ("report", "open-invoices", "--as-of", "9999-12-31"), ("report", "aging")],
)
def test_no_number_or_day_that_is_given_is_a_bug(home: Path, arguments: tuple[str, ...]) -> None:
    """What the database cannot hold is told as a wrong argument; what it can hold is answered."""
    done = look(home, *arguments)
    assert done.returncode in (0, 2), done.stderr
    assert "bug" not in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is full")
def test_output_that_cannot_be_written_or_spelt_is_no_bug(home: Path) -> None:
    """A full disk behind the output ends with 5 and words; letters that a terminal lacks are spelt out."""
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [*KONTOR, "contracts", "list"], env=_environment(home), stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert (done.returncode, b"No space left" in done.stderr) == (5, True)
    spelt = kontor(home, "status", PYTHONIOENCODING="ascii", LC_ALL="C")
    assert (spelt.returncode, "\\u25cf" in spelt.stdout) == (0, True), spelt.stderr


def test_status_names_what_lies_in_the_inbox_unclaimed(home: Path) -> None:
    """A file that no contract claims would lie there for ever: it is named, with the command that takes it in."""
    stray = home / "inbox" / "whatever.txt"
    stray.parent.mkdir(exist_ok=True)
    stray.write_text("x")
    try:
        told = look(home, "status")
        assert "whatever.txt" in told.stdout
        assert "kontor import FILE --contract NAME" in told.stdout
    finally:
        stray.unlink()
