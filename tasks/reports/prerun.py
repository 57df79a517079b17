"""What finance gets before the day's reminders leave: who is written to, about how much, at which stage. Pure.

The same template, words and workbook as the weekly report; the figures are rows of ``report.reminders_to_leave``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal

from tasks.reports.finance_page import Document, Rendered, render_document
from tasks.reports.finance_parts import MOST_ROWS, Block, Cell, Part
from tasks.reports.finance_words import Words
from tasks.reports.finance_workbook import Sheet, add_table_sheet
from tasks.reports.rows import Report, printable
from tasks.reports.workbook import Formats, new_workbook

STAGES = ("final", "second", "first", "upcoming")

SHEETS = (
    Sheet("reminders_to_leave", "to_leave", "ToLeave"),
    Sheet("reminder_items_to_leave", "to_leave_items", "Invoices"),
    Sheet("reminders_withheld", "withheld", "NotReminded"),
    Sheet("tasks_waiting", "tasks", "Tasks"),
)


@dataclass(frozen=True)
class Prerun:
    """What is about to leave on a day; ``tables`` holds the rows by the name of their report."""

    as_of: date
    tables: Mapping[str, Report]

    @property
    def mails(self) -> int:
        """How many mails; one about two currencies is one."""
        return len({row["reminder_id"] for row in self.tables["reminders_to_leave"].records()})


@dataclass(frozen=True)
class Stage:
    """The mails of one stage: how many, and their money per currency."""

    stage: str
    mails: int
    amounts: Mapping[str, Decimal]


def stages_of(report: Report) -> list[Stage]:
    """Mails and money by stage, the gravest first; rows of ``reminders_to_leave``."""
    found = []
    for stage in STAGES:
        rows = [row for row in report.records() if row["stage"] == stage]
        amounts: dict[str, Decimal] = {}
        for row in rows:
            code = str(row["currency"])
            amounts[code] = amounts.get(code, Decimal(0)) + Decimal(str(row["open_amount"]))
        if rows:
            found.append(Stage(stage, len({row["reminder_id"] for row in rows}), dict(sorted(amounts.items()))))
    return found


def render_prerun(prerun: Prerun, words: Words) -> Rendered:
    """The list as a mail: sums by stage, the first lines, who is not reminded and why, what a person has to do."""
    rows = prerun.tables["reminders_to_leave"].records()
    waiting = len({row["reminder_id"] for row in rows if row["needs_approval"]})
    tasks = len(prerun.tables["tasks_waiting"].rows)
    said = (("notice_approval", waiting), ("notice_tasks", tasks))
    notices = [("yellow", words(key, count=words.number(count))) for key, count in said if count]
    title = words("prerun_title", day=prerun.as_of)
    parts = [_by_stage(prerun, words), _to_leave(rows, words), _withheld(prerun, words)]
    document = Document(title, words("prerun_note"), title, notices, parts, words("prerun_footer"))
    subject = words("prerun_subject", day=prerun.as_of, count=words.number(prerun.mails))
    return render_document(document, subject, words, {})


def _by_stage(prerun: Prerun, words: Words) -> Part:
    rows = tuple(
        (
            words(f"stage_{item.stage}"),
            words.number(item.mails),
            ", ".join(words.money(amount, code) for code, amount in item.amounts.items()),
        )
        for item in stages_of(prerun.tables["reminders_to_leave"])
    )
    headings = (words("stage"), words("mails"), words("amount"))
    return Part(words("by_stage"), (Block(headings, rows, (1,), empty=words("nothing_to_leave")),))


def _to_leave(rows: Sequence[Mapping[str, object]], words: Words) -> Part:
    shown: list[tuple[Cell, ...]] = [
        (
            printable(f"{row['customer_number']} {row['customer_name']}"),
            words(f"stage_{row['stage']}"),
            words.money(Decimal(str(row["open_amount"])), str(row["currency"])),
            words.number(int(str(row["oldest_days_overdue"]))),
            printable(str(row["recipient_reason"])),
        )
        for row in rows[:MOST_ROWS]
    ]
    headings = (words("customer"), words("stage"), words("amount"), words("oldest"), words("recipient"))
    more = words("and_more", count=words.number(len(rows) - MOST_ROWS)) if len(rows) > MOST_ROWS else ""
    block = Block(headings, tuple(shown), (2, 3), foot=more, empty=words("nothing_to_leave"))
    return Part(words("to_leave"), (block,))


def _withheld(prerun: Prerun, words: Words) -> Part:
    rows = tuple(
        (printable(f"{row['customer_number']} {row['customer_name']}"), printable(str(row["reason"])))
        for row in prerun.tables["reminders_withheld"].records()[:MOST_ROWS]
    )
    left = len(prerun.tables["reminders_withheld"].rows) - MOST_ROWS
    more = words("and_more", count=words.number(left)) if left > 0 else ""
    block = Block((words("customer"), words("why")), rows, foot=more, empty=words("no_rows"))
    return Part(words("withheld"), (block,))


def prerun_workbook(prerun: Prerun, words: Words, *, now: datetime) -> bytes:
    """The lists as a workbook with a real table on each sheet; ``now`` is written as the time of making."""
    with new_workbook(words("prerun_title", day=prerun.as_of), now=now) as (out, book):
        formats = Formats(book)
        for sheet in SHEETS:
            add_table_sheet(book, formats, sheet, prerun.tables[sheet.report], words)
    return out.getvalue()
