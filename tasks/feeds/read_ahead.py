"""Reading ahead: files that come next are read and typed while the one before them is applied.

Reading happens in confined processes, typing in threads, applying in the database. One after the other they leave
processors idle; side by side they do not. Nothing is decided early: what was read ahead is believed only where the
file still looks as it did, its judgement and its transaction come in their turn, and a refusal is raised then.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

from tasks.feeds.casting import CastTable
from tasks.feeds.intake import InboxFile, Look, look_at, read_file, reader
from tasks.feeds.raw_table import RawTable

MOST_BYTES = 64 << 20  # of files that were read and wait; a larger one is read in its turn, alone

_Read = tuple[RawTable, CastTable]


class ReadAhead:
    """Files under reading, and what was read; called with a file it gives what :func:`read_file` gives."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self._pool = pool
        self._begun: dict[tuple[str, str], tuple[Look, Future[_Read]]] = {}

    def begin(self, files: Sequence[InboxFile]) -> None:
        """Begin to read these files, except those begun before and those for which there is no room."""
        for file in files:
            look = look_at(file.path)
            waiting = sum(size for (size, _), _ in self._begun.values())
            if look is not None and _key(file) not in self._begun and waiting + look[0] <= MOST_BYTES:
                self._begun[_key(file)] = look, self._pool.submit(read_file, file)

    def __call__(self, file: InboxFile) -> _Read:
        """What the file holds; read now where it was not begun or looks different since.

        Raises:
            FileRefused: it cannot be read.
        """
        look, read = self._begun.pop(_key(file), (None, None))
        if read is None or look != look_at(file.path):
            return read_file(file)
        return read.result()


def _key(file: InboxFile) -> tuple[str, str]:
    return str(file.path), file.contract.sha256


@contextmanager
def reading_ahead(at_once: int) -> Iterator[ReadAhead]:
    """Let the intake of a ``with`` block take what was read ahead, ``at_once`` files at a time."""
    pool = ThreadPoolExecutor(max_workers=at_once, thread_name_prefix="read-ahead")
    ahead = ReadAhead(pool)
    token = reader.set(ahead)
    try:
        yield ahead
    finally:
        reader.reset(token)
        pool.shutdown(wait=False, cancel_futures=True)
