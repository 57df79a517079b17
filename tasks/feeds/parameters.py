"""What a person may say when a feed's flow is started by hand; a schedule says nothing."""

from __future__ import annotations

from datetime import date

from pydantic import BaseModel, ConfigDict, Field


class FeedParameters(BaseModel):
    """Parameters of customer_import and payment_sync; the form in Prefect's pages is made from them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    as_of: date | None = Field(default=None, description="Business date of the run; empty means today.")
    dry_run: bool = Field(default=False, description="Read, check and count, but keep nothing.")
    files: tuple[str, ...] = Field(
        default=(), description="Paths of files to take in; empty means whatever is new in the inbox."
    )
    contract: str | None = Field(
        default=None, description="Name or path of the contract of these files; empty means by the file's name."
    )
    file_as_of: date | None = Field(
        default=None, description="Business date of the files, where neither name nor title says it."
    )
    revision: int | None = Field(
        default=None, ge=1, le=999, description="Greater than 1 for a file that corrects one of the same date."
    )
    accept_guards: tuple[str, ...] = Field(
        default=(), description="Guards that a person overrules for these files; takes a reason."
    )
    reason: str = Field(default="", max_length=500, description="Why a guard is overruled.")
