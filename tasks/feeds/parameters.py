"""What a person may say when a feed's flow is started by hand; a schedule says nothing."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Annotated, ClassVar
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field


class FeedInstruction(BaseModel):
    """What is said in words of one's own: kept in ``ops.instructions``, never in Prefect."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    files: tuple[str, ...] = Field(
        default=(), description="Paths of files to take in; empty means whatever is new in the inbox."
    )
    contract: str | None = Field(
        default=None, description="Name or path of the contract of these files; empty means by the file's name."
    )
    reason: str = Field(default="", max_length=500, description="Why a guard is overruled.")

    def names(self) -> dict[str, str]:
        """Every word of it that no log may carry, with what stands for it there."""
        files = {word: "the file" for text in self.files for word in (text, Path(text).name)}
        path = self.contract if self.contract and "/" in self.contract else ""
        contract = dict.fromkeys([path, Path(path).name, Path(path).stem], "the contract") if path else {}
        return {**files, **contract, **({self.reason: "the reason"} if self.reason else {})}


class FeedParameters(BaseModel):
    """Parameters of customer_import and payment_sync; the form in Prefect's pages is made from them."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    instructions: ClassVar[type[BaseModel]] = FeedInstruction

    as_of: date | None = Field(default=None, description="Business date of the run; empty means today.")
    dry_run: bool = Field(default=False, description="Read, check and count, but keep nothing.")
    instruction: UUID | None = Field(
        default=None, description="Id of what `kontor import` was told: files, contract, reason; empty: the inbox."
    )
    file_as_of: date | None = Field(
        default=None, description="Business date of the files, where neither name nor title says it."
    )
    revision: int | None = Field(
        default=None, ge=1, le=999, description="Greater than 1 for a file that corrects one of the same date."
    )
    accept_guards: tuple[Annotated[str, Field(pattern=r"^[a-z_]{1,40}$")], ...] = Field(
        default=(), description="Guards that a person overrules for these files; takes a reason in the instruction."
    )
