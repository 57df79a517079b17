"""How much one batch of a purge takes, so that whoever works beside it hardly notices: pure."""

from __future__ import annotations

from dataclasses import dataclass, field

TARGET_SECONDS = 0.02
_LONGEST = 2  # times its target, which a batch may take while nobody waits for it: 40 ms, for whoever comes late


@dataclass
class Pace:
    """How many pages or rows a batch takes: it grows while batches are short and shrinks when one holds others up.

    It begins with ``usual``, and goes below that only for somebody who waits.
    """

    usual: int
    smallest: int
    largest: int
    target: float = TARGET_SECONDS
    size: float = field(init=False)

    def __post_init__(self) -> None:
        self.size = float(self.usual)

    def after(self, seconds: float, *, waited_for: bool = False) -> None:
        """Learn from a batch that held locks for so long, and from whether somebody stood and waited for it.

        What makes a batch slow is as often a busy machine: as long as nobody waits it is made smaller only when it
        takes twice as long as it should.
        """
        if waited_for:
            self._set(self.size / 2)
        elif seconds < self.target:
            self._set(self.size * min(2.0, self.target / max(seconds, 1e-6)))
        elif seconds > self.target * _LONGEST:
            self._set(max(min(self.size, self.usual), self.size * max(0.5, self.target * _LONGEST / seconds)))

    def was_in_the_way(self) -> None:
        """Learn from a batch that met a lock it did not get."""
        self._set(self.size / 2)

    def _set(self, size: float) -> None:
        self.size = min(float(self.largest), max(float(self.smallest), size))

    def __int__(self) -> int:
        return int(self.size)
