"""What engineers are written about a trouble with the runs, and about its end: pure, with ids and no person's name."""

from __future__ import annotations

from datetime import datetime
from html import escape

from tasks.letters import Letter, Mailbox, message_id
from tasks.watch.judging import Alert

# What a trouble is called, and how the subject of its mail goes on.
KINDS = {
    "late": "is late",
    "missing": "has not run",
    "too_long": "runs too long",
    "crashed": "died without a word",
    "failed": "failed",
    "idle": "was green without work",
    "silent": "is silent",
}


def alert_letter(
    alert: Alert, *, sender: str, to: tuple[Mailbox, ...], now: datetime, excerpt: str = "", over: bool = False
) -> Letter:
    """The letter about one alert, or about its end, which replies to the first one."""
    first = message_id(sender, "alert", alert.alert_id, alert.opened_at.isoformat())
    mark = "Over: " if over else ""
    lines = [
        f"{'It is over: ' if over else ''}{alert.cause}",
        "",
        f"Since    {alert.opened_at:%Y-%m-%d %H:%M} UTC",
        f"Look at  kontor status; kontor report alerts (alert {alert.alert_id})",
        f"Runbook  docs/runbooks/{alert.flow}.md",
    ]
    if excerpt and not over:
        lines += ["", "The last lines of its log:", excerpt]
    text = "\n".join(lines) + "\n"
    return Letter(
        to=to,
        subject=f"[Kontor] {mark}{alert.flow} {KINDS[alert.kind]}",
        text=text,
        message_id=message_id(sender, "alert over", alert.alert_id, alert.opened_at.isoformat()) if over else first,
        dated=now,
        html=f'<pre style="font:14px/1.5 ui-monospace,monospace;white-space:pre-wrap">{escape(text)}</pre>',
        references=(first,) if over else (),
    )
