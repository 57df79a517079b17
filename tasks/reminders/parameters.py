"""What a person may say when reminders are run by hand; a schedule says ``dry_run`` no and nothing else."""

from __future__ import annotations

from datetime import date

from pydantic import BaseModel, ConfigDict, Field


class ReminderParameters(BaseModel):
    """Parameters of overdue_reminders; the form in Prefect's pages is made from them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    as_of: date | None = Field(default=None, description="Business date to plan for; empty means today.")
    dry_run: bool = Field(default=True, description="Plan and show, but keep nothing and send nothing.")
    allow_past: bool = Field(
        default=False, description="Send also what is planned for a past day; without it such a run never sends."
    )
    any_hour: bool = Field(default=False, description="Send outside the customers' office hours too.")
