"""The rules of reminders in schema ``rules``: who is reminded how, when, at which address, and within which bounds.

Columns to match by hold ``*`` for any. Among the rows that match, the one with the lowest rank decides. Percentages
are points per year, such as 10.15; money stands beside its currency.

    reminder_policy    which ladder a customer climbs, and what holds for all of its stages
    reminder_stage     the steps of each ladder: when, how often, in which tone, and what becomes of a missed one
    reminder_minimum   the least that is worth a mail, per currency
    contact_routing    which role is written to, in which order
    send_window        when mail may leave, in the country's own time
    reminder_limit     caps per customer, the brake per run, the greatest age of the data
    fee_rule           what the law of a country allows to claim; shown at most, never booked
    reference_rate     the rates that fee_rule refers to, dated
    drafts             rows that someone proposes; nothing reads them but ``kontor rules``
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Date,
    DateTime,
    Identity,
    Integer,
    Numeric,
    Table,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import DATERANGE, JSONB, ExcludeConstraint

from data_contracts.tables.base import metadata
from data_contracts.tables.crm import MONEY


def _rule(name: str, *parts: Any, one_in_force: tuple[tuple[str, ...], ...]) -> Table:
    """A table of dated rules: its own parts, and what each rule has; ``one_in_force`` names what no two may share."""
    return Table(
        name,
        metadata,
        Column(f"{name}_id", BigInteger, Identity(always=True), primary_key=True),
        Column("rule_id", Text, nullable=False),
        Column("version", Integer, nullable=False),
        *parts,
        Column("valid", DATERANGE, nullable=False),
        Column("author", Text, nullable=False),
        Column("reason", Text, nullable=False),
        CheckConstraint("version >= 1", name="version"),
        CheckConstraint("not isempty(valid)", name="valid_not_empty"),
        UniqueConstraint("rule_id", "version"),
        ExcludeConstraint(("rule_id", "="), ("valid", "&&"), name=f"{name}_one_version"),
        *(
            ExcludeConstraint(*((column, "=") for column in columns), ("valid", "&&"), name=f"{name}_one_{columns[-1]}")
            for columns in one_in_force
        ),
        schema="rules",
    )


def _match(name: str) -> Column[str]:
    return Column(name, Text, nullable=False, server_default=text("'*'"))


reminder_policy = _rule(
    "reminder_policy",
    Column("rank", Integer, nullable=False),
    _match("segment"),
    _match("country"),
    _match("payer_class"),
    _match("customer_number"),
    Column("remind", Boolean, nullable=False, server_default=text("true")),
    Column("ladder", Text, nullable=False),
    Column("grace_days", Integer, nullable=False, server_default=text("0")),
    Column("minimum_days_between", Integer, nullable=False),
    Column("due_soon_days", Integer, nullable=False),
    Column("default_language", Text, nullable=False),
    CheckConstraint(
        "grace_days >= 0 and minimum_days_between >= 1 and due_soon_days >= 0",
        name="not_negative",
    ),
    CheckConstraint("country ~ '^([*]|[A-Z]{2})$'", name="country"),
    CheckConstraint("payer_class in ('*', 'strict', 'hesitant', 'disloyal', 'unrated')", name="payer_class"),
    CheckConstraint("default_language ~ '^[a-z]{2}$'", name="default_language"),
    one_in_force=(("rank",), ("segment", "country", "payer_class", "customer_number")),
)

reminder_stage = _rule(
    "reminder_stage",
    Column("ladder", Text, nullable=False),
    Column("stage", Text, nullable=False),
    Column("offset_days", Integer, nullable=False),
    Column("offset_unit", Text, nullable=False),
    Column("grace_days", Integer, nullable=False, server_default=text("0")),
    Column("maximum_count", Integer, nullable=False, server_default=text("1")),
    Column("repeat_days", Integer),
    Column("missed", Text, nullable=False),
    Column("missed_after_days", Integer, nullable=False),
    Column("template", Text, nullable=False),
    Column("cc", Text),
    Column("attachment", Text, nullable=False, server_default=text("'none'")),
    Column("needs_approval", Boolean, nullable=False, server_default=text("false")),
    CheckConstraint("stage in ('upcoming', 'first', 'second', 'final')", name="stage"),
    CheckConstraint("(stage = 'upcoming') = (offset_days < 0)", name="offset_days"),
    CheckConstraint("offset_unit in ('calendar', 'working')", name="offset_unit"),
    CheckConstraint("missed in ('latest', 'spread', 'skip')", name="missed"),
    CheckConstraint("attachment in ('none', 'xlsx', 'pdf')", name="attachment"),
    CheckConstraint("grace_days >= 0 and maximum_count >= 1 and missed_after_days >= 0", name="not_negative"),
    CheckConstraint("maximum_count = 1 or repeat_days >= 1", name="repeat_days"),
    one_in_force=(("ladder", "stage"),),
)

reminder_minimum = _rule(
    "reminder_minimum",
    _match("ladder"),
    Column("currency", Text, nullable=False),
    Column("minimum_amount", MONEY, nullable=False),
    CheckConstraint("currency ~ '^[A-Z]{3}$'", name="currency"),
    CheckConstraint("minimum_amount >= 0", name="not_negative"),
    one_in_force=(("ladder", "currency"),),
)

contact_routing = _rule(
    "contact_routing",
    Column("rank", Integer, nullable=False),
    _match("segment"),
    _match("country"),
    _match("customer_number"),
    _match("stage"),
    Column("role", Text, nullable=False),
    CheckConstraint("country ~ '^([*]|[A-Z]{2})$'", name="country"),
    CheckConstraint("stage in ('*', 'upcoming', 'first', 'second', 'final')", name="stage"),
    one_in_force=(("rank",), ("segment", "country", "customer_number", "stage", "role")),
)

send_window = _rule(
    "send_window",
    _match("country"),
    Column("time_zone", Text, nullable=False),
    Column("opens_at", Text, nullable=False),
    Column("closes_at", Text, nullable=False),
    CheckConstraint("country ~ '^([*]|[A-Z]{2})$'", name="country"),
    CheckConstraint("opens_at ~ '^([01][0-9]|2[0-3]):[0-5][0-9]$'", name="opens_at"),
    CheckConstraint("closes_at ~ '^([01][0-9]|2[0-3]):[0-5][0-9]$' and opens_at < closes_at", name="closes_at"),
    one_in_force=(("country",),),
)

reminder_limit = _rule(
    "reminder_limit",
    Column("guard", Text, nullable=False),
    _match("country"),
    Column("threshold", Numeric(12, 4), nullable=False),
    Column("minimum_evidence", Integer, nullable=False, server_default=text("0")),
    Column("window_days", Integer),
    CheckConstraint("guard in ('blast_radius', 'blast_floor', 'customer_cap', 'stale_data')", name="guard"),
    CheckConstraint("country ~ '^([*]|[A-Z]{2})$'", name="country"),
    CheckConstraint("threshold >= 0 and minimum_evidence >= 0", name="not_negative"),
    CheckConstraint("window_days > 0", name="window_days"),
    one_in_force=(("guard", "country"),),
)

fee_rule = _rule(
    "fee_rule",
    Column("country", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("per", Text, nullable=False),
    Column("from_stage", Text, nullable=False),
    Column("from_days_overdue", Integer, nullable=False),
    Column("claim_from", MONEY, nullable=False, server_default=text("0")),
    Column("claim_currency", Text),
    Column("fee_amount", MONEY),
    Column("fee_currency", Text),
    Column("rate_name", Text),
    Column("margin_percent", Numeric(7, 4)),
    Column("shown", Boolean, nullable=False),
    Column("legal_source", Text, nullable=False),
    CheckConstraint("country ~ '^([*]|[A-Z]{2})$'", name="country"),
    CheckConstraint("kind in ('fee', 'interest')", name="kind"),
    CheckConstraint("per in ('item', 'mail')", name="per"),
    CheckConstraint("from_stage in ('upcoming', 'first', 'second', 'final')", name="from_stage"),
    CheckConstraint("from_days_overdue >= 1 and claim_from >= 0", name="not_negative"),
    CheckConstraint(
        "(kind = 'fee') = (fee_amount is not null and fee_currency is not null)"
        " and (kind = 'interest') = (rate_name is not null and margin_percent is not null)",
        name="kind_is_whole",
    ),
    one_in_force=(("country", "kind", "claim_from"),),
)

reference_rate = _rule(
    "reference_rate",
    Column("rate_name", Text, nullable=False),
    Column("percent", Numeric(7, 4), nullable=False),
    Column("source", Text, nullable=False),
    one_in_force=(("rate_name",),),
)

drafts = Table(
    "drafts",
    metadata,
    Column("draft_id", BigInteger, Identity(always=True), primary_key=True),
    Column("table_name", Text, nullable=False),
    Column("rows", JSONB, nullable=False),
    Column("state", Text, nullable=False, server_default=text("'draft'")),
    Column("author", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("imported_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("settled_at", DateTime(timezone=True)),
    Column("settled_by", Text),
    Column("valid_from", Date),
    CheckConstraint("jsonb_typeof(rows) = 'array'", name="rows"),
    CheckConstraint("state in ('draft', 'activated', 'replaced', 'withdrawn')", name="state"),
    CheckConstraint("(state = 'draft') = (settled_at is null)", name="settled"),
    CheckConstraint("(state = 'activated') = (valid_from is not null)", name="valid_from"),
    schema="rules",
)
