"""When a process looks for garbage: seldom, because most of what a short one makes is kept until it ends."""

from __future__ import annotations

import atexit
import gc

_SELDOM = (50_000, 20, 100)


def collect_seldom() -> None:
    """Have this process look for garbage seldom, and not once more among everything when it ends.

    What modules make while they load is no garbage; looking for some among it took a fifth of a short command.
    """
    gc.set_threshold(*_SELDOM)
    atexit.register(gc.freeze)
