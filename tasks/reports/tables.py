"""How a table fits a terminal: which columns stand side by side, how wide, and which stand below their row. Pure.

On a wide terminal every column stands side by side. On a narrow one long texts (reasons, lists) go below their row,
names are folded, and where that is not enough a report leaves its last columns out and says how many. Numbers, days and
codes are never broken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len

GAP = 2
_LONG = 40  # a text longer than this is read as a sentence, below its row
_LEAST = 12  # a name folded narrower than this cannot be read
_FEWEST = 3


@dataclass(frozen=True)
class Layout:
    """Columns by place: ``side`` with their widths stand in a line, ``below`` under it, ``left_out`` nowhere."""

    side: tuple[int, ...]
    widths: tuple[int, ...]
    below: tuple[int, ...]
    left_out: tuple[int, ...]


class _Draft:
    """A layout in the making; each method makes it narrower, or says that it cannot."""

    def __init__(self, headings: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[bool]) -> None:
        self.longest = [max((cell_len(row[at]) for row in rows), default=0) for at in range(len(headings))]
        self.words = [max((cell_len(word) for word in text.split()), default=0) for text in headings]
        self.right = right
        self.widths = {at: max(self.longest[at], self.words[at]) for at in range(len(headings))}
        self.below: list[int] = []
        self.left_out: list[int] = []

    @property
    def total(self) -> int:
        return sum(self.widths.values()) + GAP * (len(self.widths) - 1)

    def put_below(self, longer_than: int) -> bool:
        texts = [at for at in list(self.widths)[1:] if not self.right[at] and self.longest[at] > longer_than]
        if not texts:
            return False
        widest = max(texts, key=lambda at: self.longest[at])
        del self.widths[widest]
        self.below.append(widest)
        return True

    def fold(self, excess: int) -> bool:
        texts = [at for at in self.widths if not self.right[at] and self.widths[at] > max(_LEAST, self.words[at])]
        texts = [at for at in texts if self.longest[at] > _LEAST + 2]
        if not texts:
            return False
        widest = max(texts, key=lambda at: self.widths[at])
        self.widths[widest] = max(_LEAST, self.words[widest], self.widths[widest] - excess)
        return True

    def leave_out(self) -> bool:
        if len(self.widths) <= _FEWEST:
            return False
        last = list(self.widths)[-1]
        del self.widths[last]
        self.left_out.append(last)
        return True

    def spread(self, room: int, headings: Sequence[str]) -> None:
        """Give room that is left to folded texts first, then to headings that would stand on two lines."""
        for wanted in (self.longest, [cell_len(text) for text in headings]):
            for at in self.widths:
                more = min(max(wanted[at] - self.widths[at], 0), room)
                self.widths[at] += more
                room -= more


def lay_out(
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    right: Sequence[bool],
    width: int,
    *,
    may_leave_out: bool = False,
) -> Layout:
    """How these cells stand on a terminal so many characters wide; ``right`` says which columns hold numbers.

    With ``may_leave_out`` the last columns are given up where nothing else helps, but never the first three. Where
    nothing helps at all the table stays wider than the terminal.
    """
    draft = _Draft(headings, rows, right)
    while draft.total > width:
        excess = draft.total - width
        narrower = (
            draft.put_below(_LONG)
            or draft.fold(excess)
            or (may_leave_out and draft.leave_out())
            or draft.put_below(_LEAST)
        )
        if not narrower:
            break
    draft.spread(max(width - draft.total, 0), headings)
    side = tuple(draft.widths)
    return Layout(
        side, tuple(draft.widths[at] for at in side), tuple(sorted(draft.below)), tuple(sorted(draft.left_out))
    )


def heading_lines(headings: Sequence[str], widths: Sequence[int]) -> list[list[str]]:
    """The headings broken between words to their columns' widths, as lines that end together at the bottom."""
    broken = [_broken(text, width) for text, width in zip(headings, widths, strict=True)]
    height = max(map(len, broken), default=0)
    filled = [[""] * (height - len(lines)) + lines for lines in broken]
    return [[lines[at] for lines in filled] for at in range(height)]


def _broken(text: str, width: int) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if cell_len(longer) > width and lines[-1]:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines
