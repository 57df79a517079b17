"""Who asked to be erased stays erased: after the restore of a real backup, after old files, after a backfill."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from configs.settings import Settings
from tasks import database
from tasks.backups.engine import Wanted
from tasks.backups.operating import open_restored
from tasks.backups.programs import ask, connect
from tasks.backups.restoring import restore
from tasks.backups.scratch import clear
from tasks.erasures.blind import blind_everywhere
from tasks.erasures.files import _texts_of, addresses_in_file, output_files
from tasks.erasures.keys import key_of
from tests.backup_site import Site, site_at
from tests.conftest import CAMPAIGN_FACTOR
from tests.retentions import Office
from tests.stage import Stage

pytestmark = pytest.mark.campaign

PEOPLE = 3 * CAMPAIGN_FACTOR
WEEKS = 4


@pytest.fixture
def office(empty_stage: Stage, real_data: Path) -> Office:
    """The real customers and contacts, and some weeks of what they owed."""
    made = Office(empty_stage.settings)
    made.begin()
    made.weekly_year(real_data, last=1 + WEEKS)
    return made


@pytest.fixture
def new_home(empty_stage: Stage) -> Iterator[Path]:
    """A KONTOR_HOME that does not exist yet; its server is removed at the end."""
    home = empty_stage.settings.home / "again"
    yield home
    clear(home)


def _erase(stage: Stage, subject: str) -> None:
    ended = stage.processes.run("erase", subject, "--live", "--yes", "--reason", "asked by letter")
    assert ended.code == 0, ended.said


def _left(settings: Settings) -> dict[str, int]:
    with database.engine_for(settings, database.RETENTION).connect() as connection:
        return blind_everywhere(connection, settings, key_of(settings.home))


def _asked(office: Office) -> tuple[list[str], dict[str, Any]]:
    """Some people with an address, and a firm that owes something and is none of theirs."""
    people = office.read(
        "select email, organization_id from crm.contacts where email is not null order by contact_id limit :n", n=PEOPLE
    )
    theirs = {row["organization_id"] for row in people}
    firms = office.read(
        "select distinct organization_id, customer_number, name from crm.organizations join crm.invoices"
        " using (organization_id) order by 1 desc"
    )
    return [row["email"] for row in people], next(row for row in firms if row["organization_id"] not in theirs)


def _restored(site: Site, label: str, new_home: Path) -> Settings:
    manifest = next(one for one in site.catalogue.backups if one.label == label)
    restore(site.engine, Wanted(site.catalogue.chain(label), point=manifest.point), new_home)
    return site.settings.model_copy(update={"home": new_home})


def _deliver_again(stage: Stage, real_data: Path) -> None:
    """The lists of before under new names, oldest last, and then the same weeks once more by a backfill."""
    inbox, folder = stage.settings.inbox_path, real_data / "receivables"
    inbox.mkdir(parents=True, exist_ok=True)
    shutil.copy(folder / "contacts.xlsx", inbox / "contacts_2012-06-30.xlsx")
    shutil.copy(folder / "customers.xlsx", inbox / "organizations_2012-06-30.xlsx")
    weeks = sorted((folder / "weekly-2012").glob("*.xlsx"))
    for path in reversed(weeks[2 : 4 + WEEKS]):
        shutil.copy(path, inbox / path.name)
    for flow in ("customer_import", "payment_sync"):
        ended = stage.processes.start_flow(flow).wait()
        assert ended.code in (0, 6), ended.said  # partly done: rows wait in quarantine
    ended = stage.processes.start_flow(
        "backfill",
        flow="payment_sync",
        from_day="2012-01-16",
        to_day="2012-03-11",
        source_folder=str(folder / "weekly-2012"),
        reason="once more",
        reprocess="all",
        live=True,
    ).wait()
    assert ended.code in (0, 6), ended.said


def test_nobody_comes_back(office: Office, stage: Stage, real_data: Path, new_home: Path, tmp_path: Path) -> None:
    """A backup from before is restored and opened; the sender delivers everything again; a period is run again.

    Each time a search by hashes through database, files and Prefect's database finds nobody, and no file that is kept
    names the firm.
    """
    people, firm = _asked(office)
    site = site_at(stage.settings, tmp_path / "target", tmp_path / "keys")
    before = site.take()
    for subject in (*people, firm["customer_number"]):
        _erase(stage, subject)
    assert _left(stage.settings) == {}
    site.take()  # the ledger lies beside it

    there = _restored(site, before.label, new_home)
    found = "select count(*)::integer from crm.contacts where email = any(%s)"
    restored = site_at(there, tmp_path / "target", tmp_path / "keys").server
    with connect(restored) as connection:
        assert ask(connection, found, people) == [(len(people),)]  # the backup has them all
    opened = open_restored(there, site.engine, site.catalogue, origin=new_home)
    assert opened.erased["contacts_deleted"] == len(people)
    assert opened.erased["organizations_anonymised"] == 1
    assert _left(there) == {}
    clear(new_home)  # it lies where files are looked for

    _deliver_again(stage, real_data)
    assert office.read("select count(*) as n from landing.feed_files")[0]["n"] > 2 + WEEKS
    left = _left(stage.settings)
    assert left == {}, [path for path in output_files(stage.settings.home) if {*people} & addresses_in_file(path)]
    name = office.read("select name from crm.organizations where customer_number = :n", n=firm["customer_number"])
    assert name == [{"name": "[erased]"}]
    kept = {cell for path in output_files(stage.settings.home) for cell in _texts_of(path)}
    assert not {*people, firm["name"]} & kept
    assert firm["customer_number"] in kept
