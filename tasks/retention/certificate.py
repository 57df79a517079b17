"""Pages about a person's data: the certificate of an erasure, which names nobody, and what was kept about them.

Self-contained HTML, readable on paper and on a screen; every text is escaped.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from html import escape
from typing import Any

_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:48rem;margin:2rem auto;padding:0 1rem;color:#1a1a1a;"
    "background:#fff}table{border-collapse:collapse;width:100%;margin:.5rem 0 1.5rem}"
    "th,td{border-bottom:1px solid #ccc;text-align:left;padding:.3rem .6rem;vertical-align:top;"
    "overflow-wrap:anywhere}td:first-child{overflow-wrap:normal;min-width:11rem}.n{text-align:right}"
    "small{color:#595959;display:block}@media print{body{margin:0;max-width:none}}"
    "@media(prefers-color-scheme:dark){body{background:#16181c;color:#e6e6e6}th,td{border-color:#444}"
    "small{color:#a8a8a8}}"
)

# What a place is called for whom it is about; its name in the database stands below.
_WORDS: Mapping[str, str] = {
    "crm.contacts": "Record as a contact",
    "crm.contact_roles": "Roles as a contact",
    "crm.organizations": "Record as a customer",
    "crm.invoices": "What was written beside invoices",
    "crm.invoice_states": "What was written beside invoices, earlier",
    "crm.ledger_entries": "What was written beside settled invoices",
    "crm.payments": "What was written beside payments",
    "history.change_log": "Values in the history of changes",
    "landing.quarantined_rows": "Rows of files that could not be read",
    "landing.corrections": "Corrections of such rows",
    "outbox.reminders": "Reminders",
    "outbox.deliveries": "Answers of mail servers",
    "outbox.suppressions": "Addresses that are not written to",
    "ops.reminder_decisions": "Decisions about reminders",
    "ops.reminder_holds": "Reminders held back",
    "ops.reminder_tasks": "Tasks about reminders",
    "files removed": "Files removed",
    "files redacted": "Files that lost what they said of the person",
    "files": "Files that speak of the person",
    "purposes": "Why it is kept, and for how long",
    "backups": "Backups",
}


def certificate_page(
    *,
    reference: str,
    received_at: datetime,
    erased: Mapping[str, int],
    left: Mapping[str, int],
    exceptions: Mapping[str, str],
    backups_expire_on: date,
    ledger_lines: Sequence[int],
) -> str:
    """The certificate of an erasure: what, where, when, which exceptions and why, and when the last backup expires."""
    verdict = (
        "Everything that was found has been erased; a second search, by name and by keyed hash, found nothing."
        if not left
        else "Not everything could be erased; what is left is listed below and must be settled by hand."
    )
    parts = [
        f"<p>{escape(verdict)}</p>",
        _table(
            ("", ""),
            [
                ("Reference", reference),
                ("Erased on", received_at.strftime("%Y-%m-%d %H:%M UTC")),
                ("Entries in the erasure ledger", ", ".join(map(str, ledger_lines)) or "none"),
                ("Last backup with this person expires on", str(backups_expire_on)),
            ],
        ),
        "<h2>What was erased</h2>",
        _table(("Where", "How many"), _named(erased)),
        "<h2>What stays, and why</h2>",
        _table(("What", "Why"), _named(exceptions, {"crm.invoices": "Invoices"})),
    ]
    if left:
        parts += ["<h2>What is left</h2>", _table(("Where", "How many"), _named(left))]
    parts.append("<p>GDPR Art. 17. This page names nobody; the reference links it to the request.</p>")
    return page("Certificate of erasure", parts)


def data_page(tables: Mapping[str, Sequence[Mapping[str, Any]]], *, at: datetime) -> str:
    """Everything that is kept about a person, table by table (GDPR Art. 15)."""
    parts = [f"<p>As of {at.strftime('%Y-%m-%d %H:%M UTC')}. What is empty is not shown.</p>"]
    for name, rows in tables.items():
        parts.append(f"<h2>{_place(name)}</h2>")
        for row in rows:
            parts.append(
                _table(("", ""), [(escape(key), _said(value)) for key, value in row.items() if value is not None])
            )
    return page("What is kept about you", parts)


def page(title: str, parts: Sequence[str]) -> str:
    """A page of these parts, which are HTML already."""
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<style>{_STYLE}</style></head><body><h1>{escape(title)}</h1>{''.join(parts)}</body></html>\n"
    )


def _said(value: object) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else str(value)


def _place(name: str, words: str = "") -> str:
    """What a place is called, with its own name below where it has another."""
    words = words or _WORDS.get(name, "Records of runs" if name.startswith("prefect.") else "")
    if name in ("purposes", "backups", "files") or name.startswith("files "):
        return escape(words)
    return f"{escape(words)}<small>{escape(name)}</small>" if words else escape(name)


def _named(told: Mapping[str, object], called: Mapping[str, str] | None = None) -> list[tuple[str, object]]:
    return [(_place(name, (called or {}).get(name, "")), value) for name, value in sorted(told.items())]


def _table(headings: tuple[str, str], rows: Sequence[tuple[str, object]]) -> str:
    """Rows of a name, which is HTML already, and a value, which is not."""
    if not rows:
        return "<p>Nothing.</p>"
    number = " class=n" if all(isinstance(value, int) for _, value in rows) else ""
    head = f"<tr><th>{escape(headings[0])}</th><th{number}>{escape(headings[1])}</th></tr>" if any(headings) else ""
    body = "".join(f"<tr><td>{name}</td>{_cell(value)}</tr>" for name, value in rows)
    return f"<table>{head}{body}</table>"


def _cell(value: object) -> str:
    return f"<td{' class=n' if isinstance(value, int) else ''}>{escape(str(value))}</td>"
