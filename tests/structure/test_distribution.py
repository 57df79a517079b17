"""What stands between the schema and several servers is written down, table by table and key by key."""

from __future__ import annotations

from typing import Any

import yaml
from sqlalchemy import Column, Integer, MetaData, Table, UniqueConstraint

from configs.settings import PROJECT_ROOT
from data_contracts.tables import metadata

PLAN: dict[str, Any] = yaml.safe_load((PROJECT_ROOT / "data_contracts" / "distribution.yaml").read_text("utf-8"))


def _unique_keys(table: Table) -> list[list[str]]:
    """The columns of every key that the database holds unique, the primary one first."""
    keys = [[column.name for column in table.primary_key.columns]]
    keys += [[c.name for c in key.columns] for key in table.constraints if isinstance(key, UniqueConstraint)]
    keys += [[getattr(c, "name", str(c)) for c in index.expressions] for index in table.indexes if index.unique]
    return [key for key in keys if key]


def _in_the_way(table: Table, column: str) -> dict[str, Any]:
    """What keeps a table from being split by this column."""
    narrow = sorted(key for key in _unique_keys(table) if column not in key)
    return {"carry": column not in table.columns, "widen": narrow}


def test_every_table_has_its_place() -> None:
    """Each table of the schema stands in one of the three lists, and the lists name no other."""
    places = [*PLAN["distributed"], *PLAN["reference"], *PLAN["local"]]
    assert len(places) > 50
    assert sorted(places) == sorted(metadata.tables)


def test_what_would_have_to_change_is_what_is_written_down() -> None:
    """For every table that would be split: whether it carries the column, and which unique keys do not contain it."""
    for name, said in PLAN["distributed"].items():
        declared = {"carry": said["carry"], "widen": sorted(said["widen"])}
        assert declared == _in_the_way(metadata.tables[name], PLAN["column"]), name


def test_nothing_that_is_copied_everywhere_points_to_what_is_split() -> None:
    """A reference table cannot have a foreign key to a distributed one; those that do are named."""
    found = {
        name
        for name in PLAN["reference"]
        for key in metadata.tables[name].foreign_key_constraints
        if key.referred_table.fullname in PLAN["distributed"]
    }
    assert found == set(PLAN["turn_round"])


def test_a_key_without_the_column_is_found() -> None:
    """A table whose second key leaves the column out is told."""
    table = Table(
        "t",
        MetaData(),
        Column("organization_id", Integer, primary_key=True),
        Column("number", Integer, unique=True),
    )
    assert _in_the_way(table, "organization_id") == {"carry": False, "widen": [["number"]]}
