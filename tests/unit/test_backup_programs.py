"""Programs as children: their output and input as streams, whatever they say meanwhile and whoever stops reading."""

from __future__ import annotations

import time

import pytest

from tasks.backups.programs import input_of, output_of
from tasks.errors import BadInput, DependencyDown

_MANY_WORDS = "yes much ado | head -n 20000 >&2"


def test_who_stops_reading_ends_the_program() -> None:
    """A program that would write for ever is gone when the block is left, and nobody waits for what it says."""
    begun = time.monotonic()
    with output_of(["yes"], "yes did not finish") as output:
        assert output.read(4) == b"y\ny\n"
    assert time.monotonic() - begun < 10


def test_many_words_do_not_stop_a_program() -> None:
    """More than a pipe holds is said beside the output: all of the output comes, the last words are in the error."""
    with (
        pytest.raises(DependencyDown, match=r"did not finish \(code 3\): much ado / much ado / no room"),
        output_of(["sh", "-c", f"{_MANY_WORDS}; echo no room >&2; echo done; exit 3"], "it did not finish") as output,
    ):
        assert output.read() == b"done\n"
    with (
        pytest.raises(BadInput, match=r"was not liked \(code 4\): .*much"),
        input_of(["sh", "-c", f"{_MANY_WORDS}; cat > /dev/null; exit 4"], "it was not liked") as sink,
    ):
        sink.write(bytes(300_000))
