"""Noting who takes personal data out: every command that writes it to a file or for another program comes by here."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from flows.commands.screen import settings_in_force


def note_egress(what: str, form: str, rows: int, names: Iterable[str], *, always: bool = False) -> None:
    """Note an export before it is written, with the personal ones among its columns; one without any leaves no note.

    ``always``: the names are personal in this export whatever they are called elsewhere.
    """
    import getpass

    from tasks.erasures.egress_store import log_egress, personal_names
    from tasks.stack import connected

    personal = sorted(set(names) if always else personal_names() & set(names))
    if personal and rows:
        with connected(settings_in_force(), write=True) as connection:
            log_egress(
                connection,
                what=what,
                form=form,
                rows=rows,
                columns=personal,
                actor=getpass.getuser(),
                now=datetime.now(UTC),
            )
