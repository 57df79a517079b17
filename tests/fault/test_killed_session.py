"""A test session that is killed leaves no server behind."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.janitor import MARK, ROOT, remains

# A session that has started a server and will never end by itself.
SESSION = """
import time
from tests.janitor import employ
folder = employ()
from pathlib import Path
from tasks.local_stack import start_postgres
start_postgres(folder / "home")
print(folder, flush=True)
time.sleep(600)
"""


def test_a_killed_session_leaves_no_server(tmp_path: Path) -> None:
    """After kill -9 of the session its server ends within seconds, and its folder goes."""
    own = {key: value for key, value in os.environ.items() if key != MARK}
    session = subprocess.Popen(
        [sys.executable, "-c", SESSION],
        cwd=ROOT,
        env={**own, "TMPDIR": tempfile.gettempdir()},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert session.stdout is not None
    folder = Path(session.stdout.readline().strip())
    assert folder.is_dir()
    assert any("postgres" in process.name() for process in remains(folder))
    session.kill()
    session.wait()
    deadline = time.monotonic() + 30
    while folder.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not folder.exists()
    assert list(remains(folder)) == []
