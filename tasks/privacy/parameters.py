"""What a person may say when privacy_report is started by hand; a schedule says ``dry_run=false`` and nothing else."""

from __future__ import annotations

from datetime import date

from pydantic import BaseModel, ConfigDict, Field


class PrivacyParameters(BaseModel):
    """Parameters of privacy_report; the form in Prefect's pages is made from them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    as_of: date | None = Field(
        default=None, description="A day of the month after the one reported; empty means today."
    )
    dry_run: bool = Field(default=True, description="Write the month's page, but send no mail.")
