"""Backups of a real server, restored to real servers: what they hold, what the check finds, who gets in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from configs.settings import Settings
from tasks.backups.checking import check_backup, clear
from tasks.backups.engine import Wanted
from tasks.backups.operating import carry_out, foresee
from tests.backup_site import Site, count_customers, fill, site_at


@pytest.fixture
def site(kontor_settings: Settings, tmp_path: Path) -> Site:
    """A database of 200 customers and an empty target."""
    fill(kontor_settings)
    return site_at(kontor_settings, tmp_path / "target", tmp_path / "keys")


@pytest.fixture
def new_home(kontor_settings: Settings) -> Iterator[Path]:
    """A KONTOR_HOME that does not exist yet; its server is removed at the end."""
    home = kontor_settings.home / "restored"
    yield home
    clear(home)


def test_a_full_and_an_incremental_backup_restore_to_what_the_source_was(site: Site, new_home: Path) -> None:
    """Each passes every look of its check; the incremental one, restored to a new home, has the rows of both."""
    full = site.take()
    first = check_backup(site.engine, site.catalogue, full.label, now=site.now, planted="artefact_flipped")
    assert [finding.said for finding in first.findings if not finding.passed] == []
    fill(site.settings, 50, first=200)
    later = site.take("incremental", full)
    assert later.base_label == full.label
    assert later.stored_bytes < full.stored_bytes
    second = check_backup(site.engine, site.catalogue, later.label, now=site.now, planted="row_changed")
    assert [finding.said for finding in second.findings if not finding.passed] == []
    assert first.passed
    assert second.passed
    assert site.catalogue.good() == {full.label, later.label}

    prospect = foresee(site.settings, site.catalogue, None, None, new_home)
    assert (prospect.wanted, prospect.replaces) == (Wanted((full, later), point=later.point), False)
    restored, released = carry_out(site.settings, site.engine, site.catalogue, prospect, lambda _: None)
    assert restored.former is None
    assert released.sequences > 30
    from tasks.local_stack import find_postgres

    server = find_postgres(new_home)
    assert server is not None
    assert count_customers(server) == 250
