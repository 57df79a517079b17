"""Finance's report as files: the HTML of a mail with its pictures, a page that stands alone, a text, and a workbook."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from pathlib import Path

from configs.settings import Settings
from tasks.errors import DependencyDown
from tasks.letters import Enclosure, Letter, Mailbox, message_id
from tasks.reports.charts import aging_picture, trend_picture
from tasks.reports.finance import PAYER_ORDER, Day, Dso, FinanceReport, Quarantined, Totals, TrendPoint
from tasks.reports.finance_page import cid_sources, content_id, data_sources, render
from tasks.reports.finance_words import Words
from tasks.reports.finance_workbook import finance_workbook
from tasks.reports.prerun import Prerun, prerun_workbook, render_prerun
from tasks.reports.rows import json_rows, json_value

_NOBODY = "kontor@localhost.localdomain"  # in mail mode hold no sender need be set
WORKBOOK_TYPE = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"


@dataclass(frozen=True)
class FinanceFiles:
    """The report in every form; ``name`` is that of its files without ending."""

    name: str
    subject: str
    mail_html: str
    page_html: str
    text: str
    workbook: bytes
    pictures: Mapping[str, bytes]


def make_files(report: FinanceReport, language: str, *, now: datetime) -> FinanceFiles:
    """The report in every form, in a language of :data:`tasks.reports.finance_words.LANGUAGES`."""
    words = Words(language)
    drawn = {"aging": aging_picture(report, words), "trend": trend_picture(report, words)}
    pictures = {name: png for name, png in drawn.items() if png}
    sources = {name: source for name, source in cid_sources().items() if name in pictures}
    mail, page = render(report, words, sources), render(report, words, data_sources(pictures))
    workbook = finance_workbook(report, words, now=now)
    return FinanceFiles(f"finance-{report.as_of}", mail.subject, mail.html, page.html, mail.text, workbook, pictures)


def finance_json(report: FinanceReport) -> str:
    """The figures and lists as one JSON object: money as text, days ISO 8601, ``null`` where there is no figure."""
    figures = {
        "as_of": report.as_of.isoformat(),
        "compared_with": report.before.day.isoformat(),
        "changes_since": report.changes_since.isoformat(),
        "now": _day_figures(report.now),
        "before": _day_figures(report.before),
        "trend": [_plain(point) for point in report.trend],
        **{name: json_rows(table) for name, table in report.tables.items()},
    }
    return json.dumps(figures, ensure_ascii=False, indent=2) + "\n"


def _day_figures(day: Day) -> dict[str, object]:
    return {
        "totals": [_plain(item) for _, item in sorted(day.totals.items())],
        "dso": [_plain(item) for _, item in sorted(day.dso.items())],
        "payer_classes": {name: day.classes.get(name, 0) for name in PAYER_ORDER},
        "quarantined": [_plain(item) for item in day.quarantined],
    }


def _plain(item: Totals | Dso | TrendPoint | Quarantined) -> dict[str, object]:
    """The fields of a line about one currency; days and shares keep their digits, money has its currency's."""
    money = {field.name for field in fields(item)} - {"dso", "best_possible_dso", "average_days_delinquent"}
    values = {field.name: getattr(item, field.name) for field in fields(item)}
    return {name: json_value(value, item.currency if name in money else None) for name, value in values.items()}


def write_files(home: Path, report: FinanceReport, files: FinanceFiles) -> list[Path]:
    """Write page, text and workbook below KONTOR_HOME/reports for their owner alone; a day's files replace each other.

    Each is written in one move, so that nobody reads half of it and an abort leaves whole files or none.

    Raises:
        DependencyDown: the folder cannot be written.
    """
    folder = home / "reports" / "finance" / report.as_of.isoformat()
    contents = {
        f"{files.name}.html": files.page_html.encode(),
        f"{files.name}.txt": files.text.encode(),
        f"{files.name}.xlsx": files.workbook,
    }
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return [_write_privately(folder / name, content) for name, content in contents.items()]
    except OSError as error:
        raise DependencyDown(
            f"Finance's report cannot be written below {home / 'reports'}: {error.strerror}. No mail was sent.",
            hint="See to room and rights of that folder, then run the flow again.",
        ) from None


def _write_privately(path: Path, content: bytes) -> Path:
    partial = path.with_name(f".{path.name}.part")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content)
    partial.replace(path)
    return path


def prerun_letter(settings: Settings, prerun: Prerun, run_id: int, to: tuple[Mailbox, ...], *, now: datetime) -> Letter:
    """The list of what is about to leave as a mail with its workbook; the same Message-ID for the same run."""
    words = Words(settings.finance_language)
    rendered = render_prerun(prerun, words)
    sender = settings.mail_from or _NOBODY
    workbook = prerun_workbook(prerun, words, now=now)
    return Letter(
        to=to,
        subject=rendered.subject,
        text=rendered.text,
        html=rendered.html,
        message_id=message_id(sender, "reminders-to-leave", prerun.as_of, run_id),
        dated=now,
        attachments=(Enclosure(f"reminders-to-leave-{prerun.as_of}.xlsx", workbook, WORKBOOK_TYPE),),
    )


def finance_letter(
    settings: Settings, report: FinanceReport, files: FinanceFiles, to: tuple[Mailbox, ...], *, now: datetime
) -> Letter:
    """The mail to finance: HTML with its pictures, the text, the workbook; the same Message-ID for the same day."""
    return Letter(
        to=to,
        subject=files.subject,
        text=files.text,
        html=files.mail_html,
        message_id=message_id(settings.mail_from or _NOBODY, "finance-report", report.as_of),
        dated=now,
        pictures=tuple(
            Enclosure(f"{name}.png", png, "image/png", content_id(name)) for name, png in files.pictures.items()
        ),
        attachments=(Enclosure(f"{files.name}.xlsx", files.workbook, WORKBOOK_TYPE),),
    )
