"""How many rows a batch takes follows from the waits it causes."""

from __future__ import annotations

from tasks.retention.pace import Pace


def test_a_batch_grows_while_it_is_quick_and_shrinks_for_who_waits() -> None:
    """Short batches double, to the largest; one that somebody waited for halves the next, to the smallest."""
    pace = Pace(1_000, 250, 5_000, 0.04)
    sizes = []
    for seconds, waited_for in [(0.01, False)] * 3 + [(0.01, True)] * 6:
        pace.after(seconds, waited_for=waited_for)
        sizes.append(int(pace))
    assert sizes == [2_000, 4_000, 5_000, 2_500, 1_250, 625, 312, 250, 250]


def test_a_busy_machine_alone_does_not_make_batches_small() -> None:
    """Slow batches that nobody waits for come back to the usual size and stay; a lock that was not had halves."""
    pace = Pace(1_000, 250, 8_000, 0.04)
    for _ in range(3):
        pace.after(0.01)
    for seconds in (0.1, 2.0, 2.0, 2.0, 2.0):
        pace.after(seconds)
    assert int(pace) == 1_000
    pace.was_in_the_way()
    assert int(pace) == 500
    pace.after(2.0)
    assert int(pace) == 500
