"""The rules that a new installation starts with: readable, complete, and refused cell by cell where they are not."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest
from sqlalchemy.dialects.postgresql import Range

from data_contracts.tables import metadata
from data_contracts.tables.rules import PAYER_CLASSES
from tasks.errors import BadInput
from tasks.rules import SEEDS, read_seeds

PAYER_CLASS = metadata.tables["rules.payer_class"]
HEADER = (
    "rule_id,version,rank,payer_class,metric,operator,threshold,window_months,minimum_evidence,weighting,"
    "leave_out_disputed,hysteresis,valid_from,valid_to,author,reason\n"
)


def test_every_seed_says_who_decided_and_why() -> None:
    """Each seeded rule has an author, a reason in a sentence, a rank of its own and holds from ever to ever."""
    rows = read_seeds(SEEDS / "payer_class.csv", PAYER_CLASS)
    assert {row["payer_class"] for row in rows} == set(PAYER_CLASSES)
    assert {row["author"] for row in rows} == {"Kontor"}
    assert all(str(row["reason"]).endswith(".") for row in rows)
    assert {row["valid"] for row in rows} == {Range(None, None)}
    assert len({row["rank"] for row in rows}) == len({row["rule_id"] for row in rows}) == len(rows)


def test_the_last_seed_catches_everyone() -> None:
    """The rule of the highest rank always holds and says unrated, so that no customer falls through."""
    last = max(read_seeds(SEEDS / "payer_class.csv", PAYER_CLASS), key=lambda row: int(str(row["rank"])))
    assert (last["metric"], last["payer_class"]) == ("always", "unrated")


def test_a_seed_keeps_its_numbers_exact_and_its_last_day_included(tmp_path: Path) -> None:
    """A threshold is a decimal, and valid_to 31 December holds on that day."""
    path = tmp_path / "payer_class.csv"
    row = "r,1,10,strict,late_share,<=,0.1,12,3,count,false,0.05,2026-01-01,2026-12-31,Kontor,Because."
    path.write_text(HEADER + row, "utf-8")
    read = read_seeds(path, PAYER_CLASS)[0]
    assert (read["threshold"], read["hysteresis"]) == (Decimal("0.1"), Decimal("0.05"))
    assert read["leave_out_disputed"] is False
    valid = read["valid"]
    assert isinstance(valid, Range)
    assert [str(valid.lower), str(valid.upper)] == ["2026-01-01", "2027-01-01"]


def test_a_wrong_seed_names_every_cell(tmp_path: Path) -> None:
    """A word for a number, a missing reason, a strange truth value and date: all are named with line and column."""
    path = tmp_path / "payer_class.csv"
    row = "r,1,10,strict,late_share,<=,much,12,3,count,perhaps,0,01.02.2026,,Kontor,"
    path.write_text(HEADER + row, "utf-8")
    with pytest.raises(BadInput) as wrong:
        read_seeds(path, PAYER_CLASS)
    for words in ("line 2, threshold: 'much'", "leave_out_disputed: 'perhaps'", "line 2, reason", "valid_from"):
        assert words in wrong.value.message
