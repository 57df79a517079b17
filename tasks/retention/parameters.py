"""What a person may say when retention_purge is started; a schedule says nothing and gets a plan."""

from __future__ import annotations

from datetime import date

from pydantic import BaseModel, ConfigDict, Field


class PurgeParameters(BaseModel):
    """Parameters of retention_purge; the form in Prefect's pages is made from them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    as_of: date | None = Field(default=None, description="The day to plan for; empty means today.")
    dry_run: bool = Field(default=True, description="Make a plan and destroy nothing. Off: carry a plan out.")
    plan_id: int | None = Field(default=None, ge=1, description="The plan to carry out; empty means the newest one.")
    approved_by: str = Field(
        default="",
        pattern=r"^[a-z0-9._-]{0,40}$",
        description="Account name of the second person, who has looked at the plan and agrees to it.",
    )
