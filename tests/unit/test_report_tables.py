"""Tables on terminals of any width: they fit, nothing is cut, and what has no room is said."""

from __future__ import annotations

import io

from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from tasks.reports.tables import GAP, heading_lines, lay_out
from tasks.reports.terminal import print_table

HEADINGS = ("customer number", "customer name", "due on", "days overdue", "open amount", "payer class", "reason")
RIGHT = (False, False, False, True, True, False, False)
ROW = (
    "001035", "Родопа Дистрибуция и Логистика АД", "2026-02-01", "29", "1,234.50", "● disloyal (red)",
    "paid on average 15.2 days late over 9 invoices in 12 months (more than 15)",
)  # fmt: skip


def _total(widths: tuple[int, ...]) -> int:
    return sum(widths) + GAP * (len(widths) - 1)


def test_with_room_everything_stands_side_by_side() -> None:
    """On a wide terminal no column is folded, put below or left out, and headings stand on one line."""
    layout = lay_out(HEADINGS, [ROW], RIGHT, 250)
    assert layout.side == tuple(range(7))
    assert (layout.below, layout.left_out) == ((), ())
    assert len(heading_lines([HEADINGS[at] for at in layout.side], layout.widths)) == 1


def test_a_sentence_goes_below_its_row_before_anything_is_folded() -> None:
    """At 120 characters the reason stands below and every other column keeps its width."""
    layout = lay_out(HEADINGS, [ROW], RIGHT, 120)
    assert layout.below == (6,)
    assert layout.left_out == ()
    assert all(width >= cell_len(ROW[at]) for at, width in zip(layout.side, layout.widths, strict=True))


def test_numbers_and_days_are_never_broken() -> None:
    """However narrow, a number or a day has its whole width; names are folded first."""
    for width in range(60, 120, 7):
        layout = lay_out(HEADINGS, [ROW], RIGHT, width)
        found = dict(zip(layout.side, layout.widths, strict=True))
        assert all(found[at] >= cell_len(ROW[at]) for at in (0, 2, 3, 4) if at in found)


def test_a_report_gives_up_its_last_columns_and_says_so() -> None:
    """At 60 characters a report leaves its last columns out, never its first three."""
    layout = lay_out(HEADINGS, [ROW], RIGHT, 60, may_leave_out=True)
    assert layout.left_out
    assert layout.side[:3] == (0, 1, 2)
    assert _total(layout.widths) <= 60
    assert sorted([*layout.side, *layout.below, *layout.left_out]) == list(range(7))


_CELLS = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Zl", "Zp", "Mn", "Cf")), max_size=60)


@given(
    st.integers(2, 8).flatmap(
        lambda columns: st.tuples(
            st.lists(st.lists(_CELLS, min_size=columns, max_size=columns), max_size=4),
            st.lists(st.booleans(), min_size=columns, max_size=columns),
        )
    ),
    st.integers(40, 200),
)
def test_every_column_has_one_place_and_headings_fit(table: tuple[list[list[str]], list[bool]], width: int) -> None:
    """Each column stands at the side, below or nowhere, once; without leave none is left out; headings keep words."""
    rows, right = table
    headings = [f"column {at}" for at in range(len(right))]
    layout = lay_out(headings, rows, right, width)
    assert sorted([*layout.side, *layout.below]) == list(range(len(right)))
    assert layout.left_out == ()
    lines = heading_lines([headings[at] for at in layout.side], layout.widths)
    for place, at in enumerate(layout.side):
        assert " ".join(line[place] for line in lines if line[place]) == headings[at]
        assert all(cell_len(line[place]) <= layout.widths[place] for line in lines)


def test_nothing_of_a_cell_is_lost_on_a_narrow_terminal() -> None:
    """Every word of every cell is printed at 80 characters, and no line is longer."""
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, no_color=True, width=80, highlight=False, _environ={})
    assert print_table(console, HEADINGS, [ROW], RIGHT) == 0
    shown = stream.getvalue()
    lines = [line.replace("\x1b[1m", "").replace("\x1b[2m", "").replace("\x1b[0m", "") for line in shown.splitlines()]
    assert max(map(cell_len, lines)) <= 80
    assert {word for cell in ROW for word in cell.split()} <= {word for line in lines for word in line.split()}
