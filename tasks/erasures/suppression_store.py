"""Those who asked to be erased, recognised when a file brings them back: by keyed hash, before anything is kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sqlalchemy import Connection, text

from tasks.erasures.files import addresses_in_file, redact_file, unname_firms
from tasks.erasures.keys import ErasureKey, hash_sql
from tasks.erasures.terms import ERASED, Terms

# A contact's key as the feed of contacts makes it (tasks/customers/store.py): its address, else its name.
_CONTACT_KEY = "coalesce(lower(s.email), 'name: ' || lower(concat_ws(' ', s.first_name, s.last_name)))"


def anybody_erased(connection: Connection) -> bool:
    """Whether anybody ever asked to be erased; where nobody did, nothing need be compared."""
    return bool(connection.scalar(text("select exists (select from ops.erased_subjects)")))


def erased_rows(connection: Connection, feed: str, staging: str, key: ErasureKey) -> list[int]:
    """The numbers of the staged rows that would bring somebody back who asked to be erased.

    A row of contacts is known by its address or by its customer and name; a row of organisations by its number.
    """
    if feed == "contacts":
        known = (
            f"e.entity = 'crm.contacts' and (e.address_hash = {hash_sql('s.email')}"
            f" or e.key_hash = {hash_sql('s.customer_number', _CONTACT_KEY)})"
        )
    elif feed == "organizations":
        known = f"e.entity = 'crm.organizations' and e.key_hash = {hash_sql('s.customer_number')}"
    else:
        return []
    statement = f"select row_number from {staging} s where exists (select from ops.erased_subjects e where {known})"
    return list(connection.scalars(text(f"{statement} order by 1"), key.bound()))


def withhold_names(connection: Connection, staging: str, key: ErasureKey) -> dict[int, str]:
    """Take the names of erased customers out of staged items, which bookkeeping still needs; returns them by row."""
    names = connection.execute(
        text(
            f"select s.row_number, s.customer_name from {staging} s where s.customer_name is distinct from '{ERASED}'"
            " and exists (select from ops.erased_subjects e where e.entity = 'crm.organizations'"
            f" and e.key_hash = {hash_sql('s.customer_number')})"
        ),
        key.bound(),
    ).all()
    connection.execute(
        text(f"update {staging} set customer_name = '{ERASED}' where row_number = any(:rows)"),
        {"rows": [row.row_number for row in names]},
    )
    return {row.row_number: row.customer_name or "" for row in names}


def forget_in_file(connection: Connection, path: Path, key: ErasureKey, names: Callable[[str], bool]) -> bool:
    """Take those who asked to be erased out of a file that is kept; returns whether any stood in it.

    A person's row loses its content, a firm's what stands below a heading that ``names`` tells to name one.
    """
    people = _forget_people(connection, path, key)
    numbers = frozenset(number.casefold() for number in connection.scalars(text(_ERASED_FIRMS), key.bound()))
    firms = unname_firms(path, numbers, names) if numbers else 0
    return people or firms > 0


# A firm that asked to be erased keeps its number, by which bookkeeping knows it.
_ERASED_FIRMS = f"""
select o.customer_number from crm.organizations o
where o.name = '{ERASED}' and exists (
    select from ops.erased_subjects e
    where e.entity = 'crm.organizations' and e.key_hash = {hash_sql("o.customer_number")})
"""


def _forget_people(connection: Connection, path: Path, key: ErasureKey) -> bool:
    hashes = {key.hash_of(address): address for address in addresses_in_file(path)}
    if not hashes:
        return False
    found = connection.scalars(
        text("select distinct address_hash from ops.erased_subjects where address_hash = any(:hashes)"),
        {"hashes": list(hashes)},
    ).all()
    if found:
        redact_file(path, Terms(strong=tuple(hashes[found_hash] for found_hash in found)))
    return bool(found)
