"""The status on one screen: one colour for all, then every line with its reason and what to run next. Pure."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from tasks.artifacts import markdown_table, summary
from tasks.reports.catalogue import reading_of
from tasks.reports.pages import definition_table, page, table_of
from tasks.reports.rows import Report, printable

MARKS: Mapping[str, str] = {"red": "🔴", "yellow": "🟡", "grey": "⚪", "green": "🟢"}
_WORST_FIRST = ("red", "yellow", "green", "grey")


@dataclass(frozen=True)
class StatusLine:
    """One thing that is judged: its area, colour, what is so, why, and the command to run next."""

    area: str
    colour: str
    headline: str
    reason: str
    next_command: str | None


def lines_of(report: Report) -> tuple[StatusLine, ...]:
    """The lines of the report ``status_lines``, in its order, as texts that steer no terminal."""
    return tuple(_line(row) for row in report.records())


def _line(row: Mapping[str, object]) -> StatusLine:
    area, colour, headline, reason, command = (
        printable(str(row[name] or "")) for name in ("area", "colour", "headline", "reason", "next_command")
    )
    return StatusLine(area, colour, headline, reason, command or None)


def worst_colour(lines: Sequence[StatusLine]) -> str:
    """The colour of the whole: red before yellow before green; grey where nothing at all could be judged."""
    colours = {line.colour for line in lines}
    return next((colour for colour in _WORST_FIRST if colour in colours), "grey")


def verdict(lines: Sequence[StatusLine]) -> str:
    """The whole in one sentence, such as ``red: 1 to act on now, 2 to look at today``."""
    colour = worst_colour(lines)
    urgent, soon = (sum(line.colour == wanted for line in lines) for wanted in ("red", "yellow"))
    said = [f"{urgent} to act on now"] if urgent else []
    said += [f"{soon} to look at today"] if soon else []
    nothing = "nothing to judge yet" if colour == "grey" else "everything is as it should be"
    return f"{colour}: {', '.join(said) or nothing}"


def status_markdown(lines: Sequence[StatusLine], *, now: datetime) -> str:
    """The status as a Markdown page for an artifact; ``now`` is when it was read."""
    rows = [
        {
            "": f"{MARKS.get(line.colour, '')} {line.colour}",
            "area": line.area,
            "what": line.headline,
            "why": line.reason,
            "next": line.next_command or "",
        }
        for line in lines
    ]
    facts = {"status": verdict(lines), "read at": _instant(now)}
    return summary("Kontor's status", facts, {"Lines": markdown_table(rows)})


def status_page(lines: Sequence[StatusLine], sections: Mapping[str, Report], *, now: datetime) -> str:
    """The status as one self-contained page: the verdict, the lines, and the sections' rows below them."""
    banner = f'<div class="banner {worst_colour(lines)}">{html.escape(verdict(lines).capitalize())}</div>'
    body = [banner, definition_table(("status", "area", "what", "why", "next"), [_cells(line) for line in lines])]
    for title, report in sections.items():
        if report.rows:
            wanted = reading_of(report.name).columns
            body.append(f"<h2>{html.escape(title)}</h2>\n{table_of(report.only(wanted) if wanted else report)}")
    return page("Kontor's status", f"read at {_instant(now)}", "\n".join(body))


def _cells(line: StatusLine) -> tuple[str, ...]:
    colour = f'<span class="{html.escape(line.colour)}">● {html.escape(line.colour)}</span>'
    command = f"<code>{html.escape(line.next_command)}</code>" if line.next_command else ""
    return (colour, html.escape(line.area), html.escape(line.headline), html.escape(line.reason), command)


def _instant(now: datetime) -> str:
    return f"{now:%Y-%m-%d %H:%M} {now:%Z}".strip()
