"""The forms of what a person may decide about reminders from Prefect's pages: ids, days, sums and chosen reasons.

A reason is chosen from a list and not typed, because Prefect shows parameters to whoever opens its pages. The commands
`kontor reminders …` take one's own words.
"""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field, model_validator


class HoldKind(StrEnum):
    """What is held back."""

    dispute = "dispute"
    do_not_remind = "do_not_remind"
    unmatched_money = "unmatched_money"
    legal_hold = "legal_hold"
    promise_to_pay = "promise_to_pay"


class Because(StrEnum):
    """Why, in words that say nothing about a person."""

    customer_said_so = "the customer said so"
    agreed_with_owner = "agreed with the customer's owner"
    goods_or_invoice_wrong = "goods or invoice were wrong"
    payment_on_its_way = "a payment is on its way"
    found_in_server_log = "found in the mail server's log"
    recipient_confirmed = "the recipient confirmed it"
    checked_by_finance = "checked by finance"
    other = "another reason; ask who ran this"


class Arrival(StrEnum):
    """What was found out about a mail."""

    sent = "sent"
    not_sent = "not-sent"


class _Form(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    reason: Because = Field(description="Why; it is kept with your name.")
    as_of: date | None = Field(default=None, description="Business date; empty means today.")
    dry_run: bool = Field(default=False, description="Check, but change nothing.")


class ApprovalForm(_Form):
    """Which mails may go."""

    mails: tuple[int, ...] = Field(
        default=(), description="Numbers of the mails; empty means all that wait for approval."
    )


class HoldForm(_Form):
    """What is held back, for whom, until when."""

    kind: HoldKind = Field(description="dispute, do_not_remind, unmatched_money, legal_hold or promise_to_pay.")
    customer_number: str = Field(min_length=1, max_length=80, description="The customer's number, with leading zeros.")
    invoice_number: str | None = Field(default=None, max_length=80, description="Only this invoice; empty: all.")
    until: date | None = Field(default=None, description="Its last day; empty: until it is released.")
    promised_amount: Decimal | None = Field(default=None, gt=0, description="The sum that was promised.")
    promised_currency: str | None = Field(default=None, pattern="^[A-Z]{3}$", description="Its currency, such as EUR.")

    @model_validator(mode="after")
    def _whole(self) -> HoldForm:
        if self.kind is HoldKind.promise_to_pay and self.until is None:
            raise ValueError("a promise to pay needs the day until which it is to be kept")
        if (self.promised_amount is None) != (self.promised_currency is None):
            raise ValueError("a promised sum needs both amount and currency")
        return self


class ResolutionForm(_Form):
    """What became of a mail of which nobody knew."""

    mail: int = Field(ge=1, description="The mail's number; `kontor status` tells of them.")
    arrived: Arrival = Field(description="sent: it arrived; not-sent: it did not, and the next run decides anew.")
