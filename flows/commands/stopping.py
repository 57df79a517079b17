"""How a process that stands until it is told to go hears of it."""

from __future__ import annotations

import signal
import threading


def until_told() -> threading.Event:
    """An event that SIGTERM or SIGINT sets; only the main thread may ask for it."""
    told = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: told.set())
    return told
