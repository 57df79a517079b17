"""The demo, played once for all tests that look at its home: the `kontor` command's and the tutorial's."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.local_stack import remove_postgres
from tasks.prefect_server import find_prefect, prefect_environment
from tests.nursery import Nursery, nursery
from tests.reader import HERE, KONTOR, Reader, type_in


@pytest.fixture(scope="session")
def reader() -> Iterator[Reader]:
    """A folder that looks to a reader like the checkout, in which the demo has run; its servers go at the end."""
    folder = Path(tempfile.mkdtemp(prefix="kontor-read-"))
    folder.chmod(0o755)
    (folder / KONTOR).parent.mkdir(parents=True)
    (folder / KONTOR).symlink_to(Path(sys.executable).parent / "kontor")
    try:
        yield Reader(folder, type_in(folder, "make demo"))
        type_in(folder, f"{KONTOR} down")
    finally:
        remove_postgres(folder / ".kontor" / "demo")
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def processes(reader: Reader) -> Iterator[Nursery]:
    """Commands of the reader's in processes of their own, forked off one that has loaded what they need."""
    server = find_prefect(reader.home)
    assert server is not None
    to_prefect = prefect_environment(server, server.home) | {"PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL"}
    said = reader.folder / "said"
    said.mkdir()
    with nursery({**to_prefect, **HERE, "HOME": str(reader.folder)}, said, reader.folder) as made:
        yield made
