"""What a person may say when a backup or a check is started by hand; a schedule says nothing."""

from __future__ import annotations

from datetime import date
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

LABEL = r"^[0-9]{8}T[0-9]{6}Z-(full|incremental)$"


class BackupParameters(BaseModel):
    """Parameters of backup."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    as_of: date | None = Field(default=None, description="The day whose rule is asked; empty means today.")
    dry_run: bool = Field(default=False, description="Say what would be made and deleted, and do nothing.")
    kind: Literal["auto", "full", "incremental"] = Field(
        default="auto", description="auto: full when the rule says that one is due, else incremental."
    )
    check: bool = Field(default=True, description="Restore the backup to a scratch server before it counts.")
    prune: bool = Field(default=True, description="Delete afterwards what the rule no longer keeps.")


class CheckParameters(BaseModel):
    """Parameters of restore_check."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    as_of: date | None = Field(default=None, description="The day that the run is for; empty means today.")
    dry_run: bool = Field(default=False, description="Compare digests only; restore nothing and keep no verdict.")
    label: str | None = Field(default=None, pattern=LABEL, description="Which backup; empty means the newest.")
    planted: str | None = Field(
        default=None, pattern=r"^[a-z_]{1,40}$", description="Which fault to plant; empty: one by chance."
    )
