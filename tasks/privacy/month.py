"""What is reported about a month, and the letters about it: pure. Counts, days and ids; no person's data.

Account names of those who exported something are our own people's and stand in the page and the mail only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from html import escape

from tasks.letters import Letter, Mailbox, message_id

NOBODY = "kontor@localhost.localdomain"  # in mail mode hold no sender need be set
Row = Mapping[str, object]

_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:56rem;margin:1.5rem auto;padding:0 1rem;color:#1a1a1a}"
    "table{border-collapse:collapse;margin:.3rem 0 1.2rem}th,td{border-bottom:1px solid #ccc;text-align:left;"
    "padding:.25rem .7rem;vertical-align:top}td.n{text-align:right}h1{font-size:1.3rem}h2{font-size:1.05rem}"
)


@dataclass(frozen=True)
class Month:
    """A calendar month of data protection; every list is in the order in which it is shown.

    ``rules``: rule_id, entity, gone (in the month), due, held, overdue, open_through, closed_through. ``requests``:
    state, received, oldest_open. ``holds``: standing, placed, released, to_review. ``exports``: actor, what, format,
    exports, rows. ``unusual``: day, exports, rows. ``ledger``: lines, subjects, strange (lines of the database's copy
    that the file does not have).
    """

    first: date
    last: date
    rules: Sequence[Row]
    requests: Sequence[Row]
    holds: Row
    exports: Sequence[Row]
    unusual: Sequence[Row]
    ledger: Row

    @property
    def name(self) -> str:
        """The month as ISO 8601 has it: 2026-10."""
        return f"{self.first:%Y-%m}"

    @property
    def needs_a_look(self) -> list[str]:
        """What somebody must do something about, worst first."""
        overdue = [row for row in self.rules if row["overdue"]]
        old = [row for row in self.requests if row["late"]]
        told = []
        if self.ledger["strange"]:
            told.append(
                f"{self.ledger['strange']} lines of the ledger's copy are not in the ledger: kontor retention evidence"
            )
        told += [f"{row['late']} requests wait for more than a month (GDPR Art. 12(3)): kontor erase" for row in old]
        told += [f"{row['rule_id']}: {row['overdue']} rows are overdue: kontor retention preview" for row in overdue]
        if self.holds["to_review"]:
            told.append(f"{self.holds['to_review']} legal holds are to be reviewed: kontor retention holds")
        told += [f"unusual exports on {row['day']}: {row['rows']} rows" for row in self.unusual]
        return told


def month_before(day: date) -> tuple[date, date]:
    """The first and last day of the month before that day's: of 1 March 2024, 1 and 29 February 2024."""
    last = day.replace(day=1) - timedelta(days=1)
    return last.replace(day=1), last


def month_page(month: Month) -> str:
    """The month as a page that stands alone; its CSS is for :func:`tasks.mailer.inline_css`."""
    looks = month.needs_a_look
    verdict = "".join(f"<li>{escape(line)}</li>" for line in looks)
    parts = [
        f"<p>{month.first} to {month.last}. Counts only; nobody whose data is kept is named.</p>",
        f"<h2>To be looked at</h2><ul>{verdict}</ul>" if looks else "<p>Nothing needs a look.</p>",
        "<h2>What went, what is due</h2>",
        _table(month.rules, ("rule_id", "entity", "gone", "due", "held", "overdue", "open_through", "closed_through")),
        "<h2>Requests to be erased</h2>",
        _table(month.requests, ("state", "received", "late")),
        "<h2>Legal holds</h2>",
        _table([month.holds], ("standing", "placed", "released", "to_review")),
        "<h2>Who took personal data out</h2>",
        _table(month.exports, ("actor", "what", "format", "exports", "rows")),
        "<h2>The erasure ledger</h2>",
        _table([month.ledger], ("lines", "subjects", "strange")),
    ]
    return _page(f"Data protection, {month.name}", parts)


def month_letter(month: Month, page: str, to: tuple[Mailbox, ...], sender: str | None, *, now: datetime) -> Letter:
    """The letter about a month; the same Message-ID for the same month."""
    gone = sum(_int(row["gone"]) for row in month.rules)
    looks = month.needs_a_look
    lines = [
        f"Data protection, {month.first} to {month.last}",
        "",
        *(looks or ["Nothing needs a look."]),
        "",
        *(f"{row['rule_id']:<28} gone {row['gone']}, due {row['due']}, held {row['held']}" for row in month.rules),
        "",
        *(f"{row['actor']}: {row['what']} as {row['format']}, {row['exports']} times" for row in month.exports),
    ]
    return Letter(
        to=to,
        subject=f"Data protection {month.name}: {gone} gone, {len(looks)} to be looked at",
        text="\n".join(lines) + "\n",
        html=page,
        message_id=message_id(sender or NOBODY, "privacy", month.name),
        dated=now,
    )


def alarm_letter(
    day: Row, exports: Sequence[Row], to: tuple[Mailbox, ...], sender: str | None, *, now: datetime
) -> Letter:
    """The letter about a day on which far more personal data was exported than usual; one Message-ID a day."""
    names = ("actor", "what", "format", "exports", "rows")
    parts = [
        f"<p>{day['rows']} rows in {day['exports']} exports: over 1,000, and three times the busiest of 28 days.</p>",
        _table(exports, names),
        "<p>Ask who did it what it was for. Each export: <code>select * from ops.egress_log</code>.</p>",
    ]
    lines = [" ".join(str(row[name]) for name in names) for row in exports]
    title = f"Unusual exports of personal data on {day['day']}"
    return Letter(
        to=to,
        subject=f"{title}: {day['rows']} rows",
        text="\n".join([title, "", *lines, "", "Ask who did it what it was for."]) + "\n",
        html=_page(title, parts),
        message_id=message_id(sender or NOBODY, "exports", day["day"]),
        dated=now,
    )


def _page(title: str, parts: Sequence[str]) -> str:
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style></head><body><h1>{escape(title)}</h1>{''.join(parts)}</body></html>\n"
    )


def _table(rows: Sequence[Row], names: Sequence[str]) -> str:
    if not rows:
        return "<p>None.</p>"
    head = "".join(f"<th>{escape(name.replace('_', ' '))}</th>" for name in names)
    body = "".join(f"<tr>{''.join(_cell(row[name]) for name in names)}</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def _cell(value: object) -> str:
    shown = "–" if value is None else escape(str(value))
    return f"<td{' class=n' if isinstance(value, int) else ''}>{shown}</td>"


def _int(value: object) -> int:
    return value if isinstance(value, int) else 0
