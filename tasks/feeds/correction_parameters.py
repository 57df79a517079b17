"""What a person says when corrected rows are taken back; no value of a row, only where the workbook is."""

from __future__ import annotations

from datetime import date
from typing import ClassVar
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field


class ReplayInstruction(BaseModel):
    """What is said in words of one's own: kept in ``ops.instructions``, never in Prefect."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    workbook: str | None = Field(default=None, description="Path of the workbook with corrections that came back.")
    reason: str = Field(default="", max_length=500, description="Why these rows are rejected.")
    contracts: tuple[str, ...] = Field(
        default=(), description="Paths of contracts that are not in KONTOR_HOME/contracts."
    )
    remaining: str | None = Field(
        default=None, description="Where rows that still cannot be used go; empty means beside the workbook."
    )


class ReplayParameters(BaseModel):
    """Parameters of quarantine_replay; none of them carries what stands in a row or what somebody typed."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    instructions: ClassVar[type[BaseModel]] = ReplayInstruction

    as_of: date | None = Field(default=None, description="Business date of the run; empty means today.")
    dry_run: bool = Field(default=False, description="Compare and check, but keep nothing.")
    reject: tuple[int, ...] = Field(default=(), description="Ids of quarantined rows to reject for good.")
    instruction: UUID | None = Field(
        default=None, description="Id of what `kontor quarantine replay` or `reject` was told: workbook, reason."
    )
