"""The parts of finance's report in their order: titles, notes and tables of texts, in the reader's language. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tasks.artifacts import NOTHING, PAYER_COLOURS
from tasks.reports.finance import (
    BUCKETS,
    PAYER_ORDER,
    TREND_WEEKS,
    Change,
    FinanceReport,
    Totals,
    change_of,
    counted,
    outcomes_of,
    overdue_share,
)
from tasks.reports.finance_words import Words
from tasks.reports.rows import printable

# A text, or a text with the colour it is shown in; the text says the same without it.
Cell = str | tuple[str, str]

MOST_ROWS = 12


@dataclass(frozen=True)
class Block:
    """A table, with a ``title`` of its own where its part's title does not say what it is.

    ``rights`` are the columns whose cells stand at the right; ``empty`` is said where there is no row.
    """

    headings: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    rights: tuple[int, ...] = ()
    foot: str = ""
    empty: str = ""
    title: str = ""


@dataclass(frozen=True)
class Picture:
    """A picture's name and what it says to those who do not see it."""

    name: str
    alternative: str


@dataclass(frozen=True)
class Part:
    """A titled part of the report."""

    title: str
    blocks: tuple[Block, ...]
    note: str = ""
    pictures: tuple[Picture, ...] = ()


def parts_of(report: FinanceReport, words: Words) -> list[Part]:
    """Everything the mail shows, in its order: figures, aging, debtors, payers, reminders, tasks, quarantine."""
    return [
        _key_figures(report, words),
        _aging(report, words),
        _dso(report, words),
        _debtors(report, words),
        _payers(report, words),
        _reminders(report, words),
        _tasks(report, words),
        _quarantine(report, words),
    ]


def _key_figures(report: FinanceReport, words: Words) -> Part:
    headings = ("currency", "open", "overdue", "change", "overdue_share")
    rows = []
    for code in report.currencies:
        now = report.now.totals.get(code, Totals(code))
        overdue = change_of(report, code, "overdue_amount")
        amounts = (words.amount(now.open_amount, code), words.amount(now.overdue_amount, code))
        rows.append((code, *amounts, _grown(overdue, code, words), words.percent(overdue_share(now))))
    weeks = ("currency", "newly_overdue", "due_soon", "disputed", "credit")
    fields = ("newly_overdue_amount", "due_soon_amount", "disputed_amount", "credit_amount")
    more = [
        (code, *(words.amount(getattr(report.now.totals.get(code, Totals(code)), name), code) for name in fields))
        for code in report.currencies
    ]
    blocks = (
        Block(_said(words, headings), tuple(rows), (1, 2, 3, 4), empty=words("nothing_is_overdue")),
        Block(_said(words, weeks), tuple(more), (1, 2, 3, 4)),
    )
    return Part(words("key_figures"), blocks)


def _said(words: Words, keys: Sequence[str]) -> tuple[str, ...]:
    return tuple(words(key) for key in keys)


def _grown(change: Change, currency: str, words: Words) -> Cell:
    """What is owed late grew: red with an arrow up; fell: green with an arrow down."""
    if not change.difference:
        return NOTHING
    arrow, colour = ("▲", "red") if change.difference > 0 else ("▼", "green")
    return (f"{arrow} {words.signed(change.difference, currency)}", colour)


def _aging(report: FinanceReport, words: Words) -> Part:
    rows = [
        (code, *(words.amount(now.bucket(name), code) for name in BUCKETS), words.amount(now.open_amount, code))
        for code, now in sorted(report.now.totals.items())
    ]
    headings = _said(words, ("currency", *BUCKETS, "total"))
    pictures = (
        Picture("aging", words("aging_picture")),
        Picture("trend", words("trend_picture", weeks=TREND_WEEKS)),
    )
    return Part(words("aging"), (Block(headings, tuple(rows), tuple(range(1, 7))),), pictures=pictures)


def _dso(report: FinanceReport, words: Words) -> Part:
    period = max((item.period_days for item in report.now.dso.values()), default=90)
    rows = []
    for code, now in sorted(report.now.dso.items()):
        before = report.before.dso.get(code)
        rows.append(
            (
                code,
                words.amount(now.sales, code),
                words.days(now.dso),
                words.days(before.dso if before else None),
                words.days(now.best_possible_dso),
                words.days(now.average_days_delinquent),
            )
        )
    headings = (
        words("currency"),
        words("sales_90", days=period),
        words("dso_short"),
        words("before"),
        words("dso_best"),
        words("dso_late"),
    )
    return Part(words("dso"), (Block(headings, tuple(rows), (1, 2, 3, 4, 5)),), words("dso_meaning", days=period))


def _debtors(report: FinanceReport, words: Words) -> Part:
    rows: list[tuple[Cell, ...]] = []
    for code, found in report.debtors.items():
        for item in found:
            rows.append(
                (
                    printable(f"{item.customer_number} {item.customer_name}"),
                    words.money(item.overdue_amount, code),
                    words.number(item.invoices),
                    words.number(item.oldest_days),
                    _payer(item.payer_class, words),
                )
            )
    headings = _said(words, ("customer", "overdue", "invoices", "oldest", "payer_class"))
    return Part(words("debtors"), (Block(headings, tuple(rows), (1, 2, 3), empty=words("nothing_is_overdue")),))


def _payer(payer_class: str, words: Words) -> Cell:
    return (f"● {words(payer_class)}", PAYER_COLOURS[payer_class][1])


def _payers(report: FinanceReport, words: Words) -> Part:
    rows = [
        (
            _payer(name, words),
            words.number(report.now.classes.get(name, 0)),
            words.number(report.before.classes.get(name, 0)),
        )
        for name in PAYER_ORDER
    ]
    counts = Block(_said(words, ("payer_class", "customers", "before")), tuple(rows), (1, 2))
    changes = report.tables["payer_class_changes"].records()
    shown = [
        (
            printable(f"{row['customer_number']} {row['customer_name']}"),
            _payer(str(row["class_before"]), words),
            _payer(str(row["payer_class"]), words),
            printable(str(row["reason"])),
        )
        for row in changes[:MOST_ROWS]
    ]
    changed = Block(
        _said(words, ("customer", "before", "now", "why")),
        tuple(shown),
        foot=_more(len(changes), words),
        empty=words("no_changes"),
        title=words("changes", day=report.changes_since),
    )
    return Part(words("classes"), (counts, changed))


def _more(rows: int, words: Words) -> str:
    return words("and_more", count=words.number(rows - MOST_ROWS)) if rows > MOST_ROWS else ""


_STATE_COLOURS = {"unknown": "red", "refused": "red", "bounced": "red", "deferred": "yellow", "held": "yellow"}


def _reminders(report: FinanceReport, words: Words) -> Part:
    rows: list[tuple[Cell, ...]] = []
    for item in outcomes_of(report.tables["reminder_outcomes"]):
        state = words(f"state_{item.state}")
        colour = _STATE_COLOURS.get(item.state)
        amounts = ", ".join(words.money(amount, code) for code, amount in item.amounts.items())
        rows.append(((state, colour) if colour else state, words.number(item.mails), amounts, printable(item.reason)))
    outcomes = Block(_said(words, ("state", "mails", "amount", "why")), tuple(rows), (1,), empty=words("no_reminders"))
    withheld = report.tables["reminders_withheld"]
    reasons = [(printable(reason), words.number(count)) for (_, reason), count in _withheld(report)]
    blocks = (outcomes, Block(_said(words, ("why", "customers")), tuple(reasons), (1,), title=words("withheld")))
    return Part(words("reminders", day=report.changes_since), blocks if withheld.rows else blocks[:1])


def _withheld(report: FinanceReport) -> list[tuple[tuple[str, ...], int]]:
    """Why customers are not reminded, by the rule's code; the words are those of one of them."""
    table = report.tables["reminders_withheld"]
    words_of = {str(row["reason_code"]): str(row["reason"]) for row in table.records()}
    return [((code, words_of[code]), count) for (code,), count in counted(table, "reason_code")]


def _tasks(report: FinanceReport, words: Words) -> Part:
    tasks = report.tables["tasks_waiting"].records()
    rows = [
        (
            printable(f"{row['customer_number'] or ''} {row['customer_name'] or ''}").strip() or NOTHING,
            printable(str(row["details"])),
            printable(str(row["owner"] or NOTHING)),
        )
        for row in tasks[:MOST_ROWS]
    ]
    headings = _said(words, ("customer", "task", "owner"))
    return Part(words("tasks"), (Block(headings, tuple(rows), foot=_more(len(tasks), words), empty=words("no_tasks")),))


def _quarantine(report: FinanceReport, words: Words) -> Part:
    before = {item.currency: item for item in report.before.quarantined}
    rows = []
    for item in report.now.quarantined:
        code = item.currency
        earlier = before.get(code)
        rows.append(
            (
                code or words("no_currency"),
                words.number(item.rows),
                words.amount(item.amount, code) if code else NOTHING,
                words.number(item.without_amount),
                words.number(earlier.rows if earlier else 0),
            )
        )
    headings = _said(words, ("currency", "rows", "amount", "without_amount", "before"))
    return Part(words("quarantine"), (Block(headings, tuple(rows), (1, 2, 3, 4), empty=words("no_quarantine")),))
