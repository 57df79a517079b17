"""Pictures for mails and pages as PNG: aging shares per currency, and what was overdue over the last weeks.

White ground and dark letters on purpose: mail programs that darken mails leave pictures as they are. Colours are
told apart by those who cannot tell red from green (Okabe and Ito's palette), and each part has its number.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from tasks.reports.finance import BUCKETS, FinanceReport, aging_shares, trend_by_currency
from tasks.reports.finance_words import Words

PALETTE = ("#009E73", "#F0E442", "#E69F00", "#D55E00", "#7A1F1F")
_INK = "#1c2430"
_LINE = "#0072B2"
_DPI = 160
_WIDTH = 6.0  # inches; shown 600 points wide
_LEGIBLE = Decimal("0.06")  # a part narrower than this has no room for its number


def aging_picture(report: FinanceReport, words: Words) -> bytes:
    """A bar per currency, cut into the aging buckets by their share; empty where nothing is open."""
    currencies = [code for code in report.currencies if code in report.now.totals]
    if not currencies:
        return b""
    figure, (axes,) = _figure(0.9 + 0.42 * len(currencies))
    shares = {code: aging_shares(report.now.totals[code]) for code in currencies}
    for at, bucket in enumerate(BUCKETS):
        _draw_bucket(axes, currencies, shares, at, words(bucket))
    axes.set_yticks(range(len(currencies)), currencies)
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_xticks([])
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=5, frameon=False, fontsize=7.5, handlelength=1)
    return _png(figure)


def _draw_bucket(
    axes: Any, currencies: Sequence[str], shares: Mapping[str, Sequence[Decimal]], at: int, label: str
) -> None:
    widths = [float(shares[code][at]) for code in currencies]
    lefts = [float(sum(shares[code][:at], Decimal(0))) for code in currencies]
    bars = axes.barh(range(len(currencies)), widths, left=lefts, height=0.62, color=PALETTE[at], label=label)
    numbers = [f"{shares[code][at]:.0%}" if shares[code][at] >= _LEGIBLE else "" for code in currencies]
    ink = "white" if at in (0, 3, 4) else _INK
    axes.bar_label(bars, labels=numbers, label_type="center", fontsize=7.5, color=ink)


def trend_picture(report: FinanceReport, words: Words) -> bytes:
    """A small chart per currency of what was overdue, each with its own scale; empty where nothing ever was."""
    lines = trend_by_currency(report.trend)
    if not lines:
        return b""
    columns = min(len(lines), 3)
    rows = -(-len(lines) // columns)
    figure, grid = _figure(1.55 * rows, rows, columns)
    for axes, (currency, points) in zip(grid, lines.items(), strict=False):
        days = list(range(len(points)))
        values = [float(point.overdue_amount) for point in points]
        axes.plot(days, values, color=_LINE, linewidth=1.6)
        axes.plot(days[-1:], values[-1:], "o", color=_LINE, markersize=4)
        axes.fill_between(days, values, color=_LINE, alpha=0.12)
        axes.set_ylim(0, max(values) * 1.25)
        axes.set_title(f"{currency}  {words.amount(points[-1].overdue_amount, currency)}", fontsize=8.5, color=_INK)
        axes.set_xticks([days[0], days[-1]], [f"{points[0].day:%d.%m.}", f"{points[-1].day:%d.%m.}"])
        axes.set_yticks([])
    for axes in grid[len(lines) :]:
        axes.set_axis_off()
    return _png(figure)


def _figure(height: float, rows: int = 1, columns: int = 1) -> tuple[Any, list[Any]]:
    """A figure of the mail's width with its axes, row by row."""
    from matplotlib.figure import Figure  # most of a second, which only those who draw should wait for

    figure = Figure(figsize=(_WIDTH, height), dpi=_DPI, layout="constrained", facecolor="white")
    grid = [figure.add_subplot(rows, columns, at + 1) for at in range(rows * columns)]
    for axes in grid:
        axes.tick_params(length=0, labelsize=7.5, colors=_INK)
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
        axes.spines["bottom"].set_color("#c9ced6")
    return figure, grid


def _png(figure: Any) -> bytes:
    out = io.BytesIO()
    figure.savefig(out, format="png", metadata={"Software": None})
    return out.getvalue()
