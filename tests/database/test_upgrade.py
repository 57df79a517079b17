"""Bringing a database up to date: harmless twice, honest about what is in the way, safe for two at once."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from sqlalchemy import text

from configs.settings import PROJECT_ROOT, Settings
from tasks import database
from tasks.errors import Refused


def _objects(settings: Settings) -> list[Any]:
    with database.engine_for(settings, database.OWNER).connect() as connection:
        return list(
            connection.execute(
                text(
                    "select n.nspname, c.relname, c.relkind::text, c.relacl::text from pg_class c"
                    " join pg_namespace n on n.oid = c.relnamespace where n.nspname = 'report'"
                    " union all select n.nspname, p.oid::regprocedure::text, 'f', p.proacl::text from pg_proc p"
                    " join pg_namespace n on n.oid = p.pronamespace where n.nspname in ('report', 'crm', 'ops')"
                    " order by 1, 2"
                )
            )
        )


def _forget_views(settings: Settings) -> None:
    with database.engine_for(settings, database.OWNER).begin() as connection:
        connection.execute(text("update ops.installation set views_sha256 = 'of an older version'"))


def test_views_of_an_older_version_are_made_anew_with_the_same_rights(prepared: Settings) -> None:
    """An upgrade replaces views whose columns changed, and everybody may read what they could before."""
    before = _objects(prepared)
    assert len(before) > 15
    with database.engine_for(prepared, database.OWNER).begin() as connection:
        connection.execute(text("drop view report.aging"))
        connection.execute(text("create view report.aging as select 1 as something_else"))
    _forget_views(prepared)
    database.upgrade(prepared)
    assert _objects(prepared) == before


def test_somebodys_own_view_is_named_and_kept(prepared: Settings) -> None:
    """A view that others built on schema report stops the upgrade instead of vanishing."""
    with database.engine_for(prepared, database.OWNER).begin() as connection:
        connection.execute(text("create schema bi"))
        connection.execute(text("create view bi.late as select customer_number from report.overdue_invoices"))
    _forget_views(prepared)
    try:
        with pytest.raises(Refused, match=r"bi\.late"):
            database.upgrade(prepared)
        with database.engine_for(prepared, database.OWNER).connect() as connection:
            assert connection.scalar(text("select count(*) from bi.late")) is not None
    finally:
        with database.engine_for(prepared, database.OWNER).begin() as connection:
            connection.execute(text("drop schema bi cascade"))
    database.upgrade(prepared)


def test_two_processes_prepare_one_database(prepared: Settings) -> None:
    """Two upgrades at once leave what one leaves."""
    before = _objects(prepared)
    _forget_views(prepared)
    program = "from configs.settings import load_settings; from tasks.database import prepare; prepare(load_settings())"
    environment = {"KONTOR_HOME": str(prepared.home), "PATH": "/usr/bin:/bin"}
    both = [
        subprocess.Popen([sys.executable, "-c", program], cwd=PROJECT_ROOT, env=environment, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    ends = [(process.communicate(timeout=120)[1], process.returncode) for process in both]
    assert [code for _, code in ends] == [0, 0], ends
    assert _objects(prepared) == before
