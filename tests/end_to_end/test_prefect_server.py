"""A real Prefect server on a real PostgreSQL: started, found, used by flows, stopped; and nobody's address in it.

The flows run in a process of their own with the environment that ``prefect_environment`` gives, as a user's do.
"""

from __future__ import annotations

import base64
import functools
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import psycopg
import pytest

from tasks.local_stack import LocalPostgres, remove_postgres, start_postgres
from tasks.prefect_server import (
    PrefectServer,
    find_prefect,
    prefect_environment,
    start_prefect,
    stop_prefect,
)
from tasks.prefect_settings import Listening, history_kept

ROOT = Path(__file__).resolve().parents[2]
PERSON = ("Ludmila", "Vassileva-Quist", "ludmila.vassileva@customer.example")

KEPT_DAYS = 90
SEEN = "unguarded@customer.example"  # shows that the search would find what is there


@dataclass(frozen=True)
class Stack:
    """A database server, a Prefect server on it, and the folder that stands for the user's home."""

    postgres: LocalPostgres
    server: PrefectServer
    home: Path
    user_home: Path
    database_url: str
    options: dict[str, str]
    seconds: float

    def sync_dsn(self, database: str = "postgres") -> str:
        """A psycopg connection string for a database of this server."""
        place = self.postgres
        return f"host={place.socket_dir} port={place.port} user={place.superuser} dbname={database}"

    def ask(self, path: str, **question: object) -> Any:
        """The API's answer to a filter, as JSON."""
        return self.tell(path, limit=200, **question)

    def tell(self, path: str, **body: object) -> Any:
        """The API's answer to this body, as JSON."""
        request = urllib.request.Request(
            f"{self.server.api_url}/{path}",
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def run(self, scenario: Callable[..., None], *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        """Run one of this module's scenarios in a process of its own against the server."""
        own = {key: value for key, value in os.environ.items() if not key.startswith("PREFECT_")}
        return subprocess.run(
            [sys.executable, __file__, scenario.__name__, *arguments],
            env={**own, **prefect_environment(self.server, self.home), **more, "HOME": str(self.user_home)},
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One database server and one Prefect server for this module."""
    home, user_home = tmp_path_factory.mktemp("kontor"), tmp_path_factory.mktemp("user")
    postgres = start_postgres(home)
    try:
        dsn = f"host={postgres.socket_dir} port={postgres.port} user={postgres.superuser} dbname=postgres"
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute("create database prefect")
        url = f"postgresql+asyncpg://{postgres.superuser}@/prefect?host={postgres.socket_dir}&port={postgres.port}"
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("HOME", str(user_home))
            begun = time.monotonic()
            options = {**history_kept(KEPT_DAYS), "PREFECT_SERVER_SERVICES_DB_VACUUM_LOOP_SECONDS": "2"}
            server = start_prefect(home, database_url=url, options=options)
            yield Stack(postgres, server, home, user_home, url, options, time.monotonic() - begun)
    finally:
        stop_prefect(home)
        remove_postgres(home)


# --- scenarios: they run in a child process, so Prefect is imported there only --------------------------------------


def orderly_flow() -> None:
    """A flow that publishes one artifact of each kind and knows its own run."""
    from datetime import date
    from decimal import Decimal

    from tasks.artifacts import counts_rows, summary
    from tasks.steps import (
        WRITE_STEP,
        Progress,
        business_flow,
        log_event,
        prefect_run_id,
        publish_counts,
        publish_summary,
        step,
    )

    @step()
    def read_rows() -> int:
        return 12

    @step(WRITE_STEP)
    def write_rows(rows: int) -> int:
        log_event("rows_written", rows=rows, total=Decimal("1.50"), file="week 1.xlsx")
        return rows

    @business_flow()
    def orderly_sync(as_of: date, dry_run: bool = False) -> int:
        rows = write_rows(read_rows())
        with Progress("orderly_sync-progress", 4, "Files", every_seconds=0) as bar:
            for _ in range(4):
                bar.advance()
        publish_counts(
            "orderly_sync-counts",
            "Rows",
            [*counts_rows({"rows_read": rows}), {"what": "sum", "count": Decimal("1.50")}],
        )
        publish_summary("orderly_sync-summary", summary("orderly_sync", {"as_of": as_of, "rows": rows}))
        print(json.dumps({"run": str(prefect_run_id())}))
        return rows

    orderly_sync(as_of=date(2012, 1, 2), dry_run=True)


def retrying_steps(dsn: str) -> None:
    """Steps that fail in four ways; prints how often each was tried."""
    import psycopg

    from tasks.errors import BadInput, DependencyDown
    from tasks.steps import business_flow, step, without_heartbeat

    tries: dict[str, int] = {}
    ended: dict[str, str] = {}

    def failing(name: str, error: Callable[[], None]) -> Callable[[], Any]:
        @step(retry_delay_seconds=0, name=name)
        def attempt() -> None:
            tries[name] = tries.get(name, 0) + 1
            if tries[name] < 3:
                error()

        return functools.partial(attempt, return_state=True)

    def declared() -> None:
        raise DependencyDown("the mail server is away")

    def terminal() -> None:
        raise BadInput("no key column")

    def lost_connection() -> None:
        with psycopg.connect(dsn) as connection:
            connection.execute("select pg_terminate_backend(pg_backend_pid())")

    def wrong_statement() -> None:
        with psycopg.connect(dsn) as connection:
            connection.execute("select 1/0")

    errors = {"declared": declared, "terminal": terminal, "lost": lost_connection, "wrong": wrong_statement}

    @business_flow()
    def retrying() -> None:
        for name, error in errors.items():
            state = failing(name, error)()
            ended[name] = str(state.message).split(":")[0].split()[-1] if state.is_failed() else "done"

    with without_heartbeat():
        begun = time.monotonic()
        retrying()
    print(json.dumps({"tries": tries, "ended": ended, "seconds": time.monotonic() - begun}))


def leaking_flows(dsn: str) -> None:
    """Flows whose errors quote a person in every way seen: statement, cause, parser, log line, flow body."""
    import psycopg
    from prefect import flow
    from prefect.logging import get_run_logger
    from sqlalchemy import create_engine, text
    from sqlalchemy.exc import IntegrityError

    from tasks.errors import BadInput
    from tasks.steps import READ_STEP, business_flow, publish_counts, publish_summary, step, without_heartbeat

    first, last, address = PERSON
    values = {"first": first, "last": last, "email": address}
    engine = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(dsn))
    insert = text("insert into contacts (first_name, last_name, email) values (:first, :last, :email)")

    @step(READ_STEP)
    def double_contact() -> None:
        with engine.begin() as connection:
            connection.execute(insert, values)

    @step(READ_STEP)
    def caused() -> None:
        try:
            with engine.begin() as connection:
                connection.execute(insert, values)
        except IntegrityError as error:
            raise BadInput("row 3 of contacts.csv was refused") from error

    @step(READ_STEP)
    def parser() -> None:
        try:
            int(f"{first} {last}")
        except ValueError as error:
            raise KeyError(address) from error

    @step(READ_STEP)
    def careless() -> None:
        logger = get_run_logger()
        logger.warning("could not reach %s", address)
        try:
            with psycopg.connect(dsn) as connection:
                connection.execute("insert into contacts values (%s, %s, %s)", (first, last, address))
        except psycopg.Error:
            logger.exception("insert failed")
        publish_counts("leak-counts", f"For {address}", [{"what": "rows", "count": 1}])
        publish_summary("leak-summary", f"Sent to {address}")

    @business_flow()
    def leaking(which: int) -> None:
        if which < 4:
            (double_contact, caused, parser, careless)[which]()
        with engine.begin() as connection:
            connection.execute(insert, values)

    @flow
    def unguarded() -> None:
        raise ValueError(SEEN)

    with engine.begin() as connection:
        connection.execute(text("create table contacts (first_name text, last_name text, email text unique)"))
        connection.execute(insert, values)
    with without_heartbeat():
        for which in range(5):
            state = leaking(which, return_state=True)
            print(json.dumps({"state": state.type.value, "message": state.message}))
        unguarded(return_state=True)


# --- tests ----------------------------------------------------------------------------------------------------------


def _printed(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    assert done.returncode == 0, done.stderr
    return [cast("dict[str, Any]", json.loads(line)) for line in done.stdout.splitlines() if line.startswith("{")]


def _until(answer: Callable[[], Any], enough: Callable[[Any], bool], seconds: float = 30) -> Any:
    """Prefect stores task runs and logs behind the flow's back: wait for them."""
    deadline = time.monotonic() + seconds
    while not enough(got := answer()) and time.monotonic() < deadline:
        time.sleep(0.2)
    return got


@pytest.mark.campaign
def test_a_server_that_others_reach_asks_for_its_password(stack: Stack, tmp_path: Path) -> None:
    """Without it nothing is told, with it everything; a flow that knows it runs, one that does not fails."""
    login, home = "admin:a-password-of-24-letters", tmp_path / "exposed"
    with psycopg.connect(stack.sync_dsn(), autocommit=True) as connection:
        connection.execute("create database exposed")
    url = stack.database_url.replace("@/prefect?", "@/exposed?")
    server = start_prefect(home, database_url=url, listening=Listening("0.0.0.0", None, login))
    try:
        assert _status(server, None) == _status(server, "admin:another") == 401
        assert _status(server, login) == 200
        known, unknown = (
            replace(stack, server=server, home=home).run(orderly_flow, **prefect_environment(server, home, given))
            for given in (login, None)
        )
        assert known.returncode == 0, known.stderr
        assert unknown.returncode != 0
        assert login.split(":")[1] not in known.stdout + known.stderr + unknown.stdout + unknown.stderr
    finally:
        stop_prefect(home)


def _status(server: PrefectServer, login: str | None) -> int:
    """The HTTP status with which the API answers a question about flows."""
    headers = {"Content-Type": "application/json"}
    if login is not None:
        headers["Authorization"] = f"Basic {base64.b64encode(login.encode()).decode()}"
    asked = urllib.request.Request(f"{server.api_url}/flows/filter", data=b"{}", headers=headers)
    try:
        with urllib.request.urlopen(asked, timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_server_is_found_quickly_and_once(stack: Stack) -> None:
    """A running server is found in under 300 ms, and starting again gives the same one."""
    begun = time.monotonic()
    assert find_prefect(stack.home) == stack.server
    assert time.monotonic() - begun < 0.3
    assert start_prefect(stack.home, database_url=stack.database_url, options=stack.options) == stack.server


def test_server_writes_below_its_home_only(stack: Stack) -> None:
    """Nothing is written to the user's home; the server's folder is private; the pages are served."""
    assert list(stack.user_home.iterdir()) == []
    assert (stack.home / "prefect").stat().st_mode & 0o077 == 0
    with urllib.request.urlopen(stack.server.ui_url, timeout=10) as page:
        assert b"<html" in page.read().lower()


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="reads /proc")
def test_server_talks_to_this_machine_only(stack: Stack) -> None:
    """The server's sockets are on loopback, every one of them."""
    links = {str(link.readlink()) for link in Path(f"/proc/{stack.server.pid}/fd").iterdir() if link.is_symlink()}
    inodes = {link[8:-1] for link in links if link.startswith("socket:[")}
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    own = [(line[1], line[2]) for line in lines if line[9] in inodes]
    assert own
    for local, remote in own:
        assert local.startswith("0100007F:")
        assert remote.startswith(("0100007F:", "00000000:0000"))


def test_web_pages_of_others_may_not_call_the_api(stack: Stack) -> None:
    """A browser is told that only the server's own pages may read its API."""
    for origin, allowed in (("http://evil.example", None), (stack.server.ui_url, stack.server.ui_url)):
        request = urllib.request.Request(f"{stack.server.api_url}/health", headers={"Origin": origin})
        with urllib.request.urlopen(request, timeout=10) as answer:
            assert answer.headers.get("Access-Control-Allow-Origin") == allowed


def test_orderly_flow_shows_what_it_did(stack: Stack) -> None:
    """A run is named after its day, completes, and its three artifacts and its event are in Prefect."""
    [said] = _printed(stack.run(orderly_flow))
    [run] = stack.ask("flow_runs/filter", flow_runs={"id": {"any_": [said["run"]]}})
    assert (run["name"], run["state"]["type"]) == ("orderly_sync as of 2012-01-02 (dry run)", "COMPLETED")
    found = stack.ask("artifacts/filter", artifacts={"flow_run_id": {"any_": [said["run"]]}})
    by_key = {artifact["key"]: artifact for artifact in found}
    assert set(by_key) == {"orderly-sync-counts", "orderly-sync-progress", "orderly-sync-summary"}
    assert by_key["orderly-sync-progress"]["data"] == 100.0
    rows = json.loads(by_key["orderly-sync-counts"]["data"])
    assert rows == [{"what": "rows read", "count": 12}, {"what": "sum", "count": "1.50"}]
    assert "- **as of**: 2012-01-02" in by_key["orderly-sync-summary"]["data"]
    logs = _until(
        lambda: stack.ask("logs/filter", logs={"flow_run_id": {"any_": [said["run"]]}}), lambda got: len(got) > 1
    )
    assert 'rows_written rows=12 total=1.50 file="week 1.xlsx"' in [line["message"] for line in logs]


def test_history_is_let_go_of_by_rule(stack: Stack) -> None:
    """Of two ended runs the one beyond the days kept goes, with its logs and artifacts; the other one stays."""
    flow = stack.tell("flows/", name="long_ago")["id"]
    runs = [stack.tell("flow_runs/", flow_id=flow, state={"type": "COMPLETED"})["id"] for _ in range(2)]
    for run in runs:
        stack.tell("artifacts/", key="long-ago", type="markdown", data="said", flow_run_id=run)
    with psycopg.connect(stack.sync_dsn("prefect"), autocommit=True) as connection:
        for run, days in zip(runs, (KEPT_DAYS + 1, KEPT_DAYS - 1), strict=True):
            ended = "update flow_run set end_time = now() - make_interval(days => %s) where id = %s"
            assert connection.execute(ended, (days, run)).rowcount == 1

    def left(of: str) -> list[str]:
        found = stack.ask(f"{of}/filter", **{of: {"flow_run_id": {"any_": runs}}})
        return sorted({row["flow_run_id"] for row in found})

    _until(lambda: left("artifacts"), lambda got: got == [runs[1]])
    standing = stack.ask("flow_runs/filter", flow_runs={"id": {"any_": runs}})
    assert [run["id"] for run in standing] == [runs[1]]
    assert left("artifacts") == [runs[1]]


def test_only_passing_troubles_are_tried_again(stack: Stack) -> None:
    """Declared transient errors and lost connections are tried again; bad input and wrong statements are not."""
    [said] = _printed(stack.run(retrying_steps, stack.sync_dsn()))
    assert said["tries"] == {"declared": 3, "terminal": 1, "lost": 3, "wrong": 1}
    assert said["ended"] == {"declared": "done", "terminal": "BadInput", "lost": "done", "wrong": "StatementFailed"}


def test_no_person_reaches_prefect(stack: Stack) -> None:
    """A person quoted by PostgreSQL, by a cause, by a parser or in a log line is nowhere in Prefect's database."""
    with psycopg.connect(stack.sync_dsn(), autocommit=True) as connection:
        connection.execute("create database crm_leak")
    done = stack.run(leaking_flows, stack.sync_dsn("crm_leak"))
    said = _printed(done)
    assert [line["state"] for line in said] == ["FAILED"] * 5
    assert "SQLSTATE 23505, table public.contacts, constraint contacts_email_key" in said[0]["message"]
    assert "row 3 of contacts.csv" in said[1]["message"]
    assert "Unexpected KeyError at tests/end_to_end/test_prefect_server.py" in said[2]["message"]
    _until(lambda: stack.ask("task_runs/filter"), lambda runs: sum(r["name"].startswith("careless") for r in runs) == 1)
    time.sleep(3)  # events are written behind, at most every second
    dump = subprocess.run(
        [str(stack.postgres.programs_dir / "pg_dump"), "--inserts", stack.sync_dsn("prefect")],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "contacts_email_key" in dump
    assert "insert failed" in dump
    assert SEEN in dump
    for word in PERSON:
        assert word not in dump
        assert word not in done.stderr


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
