"""What a person says when corrected rows are taken back; no value of a row, only where the workbook is."""

from __future__ import annotations

from datetime import date

from pydantic import BaseModel, ConfigDict, Field


class ReplayParameters(BaseModel):
    """Parameters of quarantine_replay; none of them carries what stands in a row."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    as_of: date | None = Field(default=None, description="Business date of the run; empty means today.")
    dry_run: bool = Field(default=False, description="Compare and check, but keep nothing.")
    workbook: str | None = Field(default=None, description="Path of the workbook with corrections that came back.")
    reject: tuple[int, ...] = Field(default=(), description="Ids of quarantined rows to reject for good.")
    reason: str = Field(default="", max_length=500, description="Why these rows are rejected.")
    contracts: tuple[str, ...] = Field(
        default=(), description="Paths of contracts that are not in KONTOR_HOME/contracts."
    )
    remaining: str | None = Field(
        default=None, description="Where rows that still cannot be used go; empty means beside the workbook."
    )
