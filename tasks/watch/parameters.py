"""What a person may say when run_watch is started; a schedule says nothing."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class WatchParameters(BaseModel):
    """Parameters of run_watch; the form in Prefect's pages is made from them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dry_run: bool = Field(default=False, description="Look and say, but keep nothing, close nothing and tell nobody.")
    restart: bool = Field(default=True, description="Start a flow again whose run died without a word.")
