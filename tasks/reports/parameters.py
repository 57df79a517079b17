"""What a person may say when finance's report is made by hand; a schedule says ``dry_run=false`` and nothing else."""

from __future__ import annotations

from datetime import date
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class FinanceParameters(BaseModel):
    """Parameters of finance_report; the form in Prefect's pages is made from them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    as_of: date | None = Field(default=None, description="The day the report speaks of; empty means today.")
    dry_run: bool = Field(default=True, description="Write the files, but send no mail.")
    compared_with: date | None = Field(default=None, description="The day to compare with; empty means a week before.")
    again: bool = Field(default=False, description="Send it although a report of this day has gone out already.")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.as_of and self.compared_with and self.compared_with >= self.as_of:
            raise ValueError(f"compared_with must lie before as_of ({self.as_of})")
        return self
