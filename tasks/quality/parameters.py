"""What a person may say when data_quality is started by hand; a schedule says nothing."""

from __future__ import annotations

from datetime import date

from pydantic import BaseModel, ConfigDict, Field


class QualityParameters(BaseModel):
    """Parameters of data_quality; the form in Prefect's pages is made from them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    as_of: date | None = Field(default=None, description="Business date of the run; empty means today.")
    dry_run: bool = Field(default=False, description="Check and count, but keep nothing.")
    contracts: tuple[str, ...] = Field(
        default=(), description="Names or paths of table contracts; empty means all that the project ships."
    )
    second_opinion: bool = Field(
        default=False, description="Ask Great Expectations the same rules too and compare the counts; takes longer."
    )
    compare_records: bool = Field(
        default=True, description="Compare all customers, contacts and products with each other for duplicates."
    )
    splink: bool = Field(
        default=False, description="Compare customers by Splink too; needs the extra `duplicates` and takes longer."
    )
