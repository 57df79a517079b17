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
    "overflow-wrap:anywhere}td.n{text-align:right}"
    "@media(prefers-color-scheme:dark){body{background:#16181c;color:#e6e6e6}th,td{border-color:#444}}"
)


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
        _table(("Where", "How many"), sorted(erased.items())),
        "<h2>What stays, and why</h2>",
        _table(("What", "Why"), sorted(exceptions.items())),
    ]
    if left:
        parts += ["<h2>What is left</h2>", _table(("Where", "How many"), sorted(left.items()))]
    parts.append("<p>GDPR Art. 17. This page names nobody; the reference links it to the request.</p>")
    return page("Certificate of erasure", parts)


def data_page(tables: Mapping[str, Sequence[Mapping[str, Any]]], *, at: datetime) -> str:
    """Everything that is kept about a person, table by table (GDPR Art. 15)."""
    parts = [f"<p>As of {at.strftime('%Y-%m-%d %H:%M UTC')}. What is empty is not shown.</p>"]
    for name, rows in tables.items():
        parts.append(f"<h2>{escape(name)}</h2>")
        for row in rows:
            parts.append(_table(("", ""), [(key, _said(value)) for key, value in row.items() if value is not None]))
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


def _table(headings: tuple[str, str], rows: Sequence[tuple[str, object]]) -> str:
    if not rows:
        return "<p>Nothing.</p>"
    head = f"<tr><th>{escape(headings[0])}</th><th>{escape(headings[1])}</th></tr>" if any(headings) else ""
    body = "".join(f"<tr><td>{escape(str(name))}</td>{_cell(value)}</tr>" for name, value in rows)
    return f"<table>{head}{body}</table>"


def _cell(value: object) -> str:
    return f"<td{' class=n' if isinstance(value, int) else ''}>{escape(str(value))}</td>"
