"""Which records stand for a person, how one is recognised again, and what is left of it when it goes.

Expressions speak of the record as ``r`` and of its organisation as ``o``. Everything here is this code's own text;
values are bound by who runs it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tasks.erasures.keys import hash_sql


@dataclass(frozen=True)
class Identity:
    """A table whose rows have an immutable ``external_id``.

    ``beside`` are the tables that ``joined`` (SQL) joins to its rows, empty for none, ``key`` is its primary key,
    ``key_hash`` and ``address_hash`` are SQL for the keyed hashes of a row, ``subjects`` the external ids under which a
    hold on it may stand. ``blanks`` says what each personal column becomes where the row must stay; ``history`` which
    columns go from its history, None for all; ``derived`` is the table made of it, whose rows go along.
    """

    entity: str
    key: str
    beside: str
    joined: str
    key_hash: str
    address_hash: str
    subjects: tuple[str, ...]
    blanks: Mapping[str, str]
    history: tuple[str, ...] | None
    derived: str

    @property
    def table(self) -> str:
        """The table's name without its schema, as history knows it."""
        return self.entity.split(".")[1]

    @property
    def records(self) -> str:
        """SQL: what stands behind FROM to read the rows with what is beside them."""
        return f"{self.entity} r join {self.beside} on {self.joined}" if self.beside else f"{self.entity} r"

    @property
    def differs(self) -> str:
        """SQL: whether anything personal is left in the row."""
        return "(" + " or ".join(f"r.{name} is distinct from {blank}" for name, blank in self.blanks.items()) + ")"


ERASED = "[erased]"

CONTACTS = Identity(
    entity="crm.contacts",
    key="contact_id",
    beside="crm.organizations o",
    joined="o.organization_id = r.organization_id",
    key_hash=hash_sql("o.customer_number", "r.contact_key"),
    address_hash=hash_sql("r.email"),
    subjects=("r.external_id", "o.external_id"),
    blanks={
        "contact_key": "'erased: ' || r.external_id",
        "first_name": "null",
        "last_name": "null",
        "email": "null",
        "phone": "null",
    },
    history=None,
    derived="crm.contact_keys",
)

# The customer number stays: invoices hang on it, which bookkeeping law keeps.
ORGANIZATIONS = Identity(
    entity="crm.organizations",
    key="organization_id",
    beside="crm.organizations o",
    joined="o.organization_id = r.organization_id",
    key_hash=hash_sql("r.customer_number"),
    address_hash="null::text",
    subjects=("r.external_id",),
    blanks={"name": f"'{ERASED}'", "vat_number": "null", "owner": "null"},
    history=("name", "vat_number", "owner"),
    derived="crm.organization_keys",
)

IDENTITIES: Mapping[str, Identity] = {identity.entity: identity for identity in (CONTACTS, ORGANIZATIONS)}


def not_held(*subjects: str) -> str:
    """SQL: no legal hold stands on any of these external ids; it belongs into the statement that destroys.

    Where no hold stands at all that is asked once a statement, not once a row.
    """
    any_hold = "not exists (select from ops.legal_holds where released_at is null)"
    own_hold = (
        "not exists (select from ops.legal_holds h where h.released_at is null"
        f" and h.subject in ({', '.join(subjects)}))"
    )
    return f"({any_hold} or {own_hold})"
