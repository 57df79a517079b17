"""What a person says who wants a past period run again; the form in Prefect's pages is made from it."""

from __future__ import annotations

from datetime import date
from typing import ClassVar, Literal, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tasks.backfills.windows import Every, Reprocess

FlowName = Literal["customer_import", "payment_sync", "catalog_upsert", "overdue_reminders", "finance_report"]
Because = Literal["", "files came late", "an outage", "a contract was mended", "a restore", "an audit"]


class BackfillInstruction(BaseModel):
    """What is said in words of one's own: kept in ``ops.instructions``, never in Prefect."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source_folder: str | None = Field(
        default=None, max_length=1000, description="A folder with files, beside the archive and the inbox."
    )
    reason: str = Field(default="", max_length=500, description="Why; it is kept with the backfill.")

    def names(self) -> dict[str, str]:
        """Every word of it that no log may carry, with what stands for it there."""
        folder = {self.source_folder: "the folder"} if self.source_folder else {}
        return folder | ({self.reason: "the reason"} if self.reason else {})


class BackfillParameters(BaseModel):
    """Parameters of backfill: either a new request, or the number of one to go on with."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    instructions: ClassVar[type[BaseModel]] = BackfillInstruction

    flow: FlowName = Field(default="payment_sync", description="The flow to run again.")
    from_day: date | None = Field(default=None, description="First day of the period.")
    to_day: date | None = Field(default=None, description="Last day of the period, that day included.")
    every: Every = Field(default=Every.week, description="How long one window is.")
    reprocess: Reprocess = Field(
        default=Reprocess.missing,
        description="missing: windows with something not taken in yet; failed: those that failed; all: every window.",
    )
    excluded_days: tuple[date, ...] = Field(default=(), description="Days to leave out.")
    newest_first: bool = Field(default=False, description="Begin with the newest window.")
    concurrency: int = Field(
        default=2,
        ge=1,
        le=8,
        description="Windows in hand at once: one is applied, the next ones' files are read.",
    )
    runs_apart: bool = Field(
        default=False, description="Show each window as a run of its own in Prefect, with its steps; slower."
    )
    because: Because = Field(default="", description="Why, in a word; `kontor backfill start` takes a sentence.")
    instruction: UUID | None = Field(
        default=None, description="Id of what `kontor backfill start` was told: folder and reason."
    )
    live: bool = Field(default=False, description="Do it. Without this the plan is made and nothing is changed.")
    backfill_id: int | None = Field(
        default=None, ge=1, description="Go on with this backfill; the other fields are not looked at then."
    )

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.backfill_id is None and (self.from_day is None or self.to_day is None):
            raise ValueError("a new backfill takes from_day and to_day")
        if self.backfill_id is None and self.live and not (self.because or self.instruction):
            raise ValueError("a backfill that changes something takes a reason")
        return self
