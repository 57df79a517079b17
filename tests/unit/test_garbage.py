"""A process that begins seldom looks for garbage."""

from __future__ import annotations

import subprocess
import sys

from configs.settings import PROJECT_ROOT


def test_a_command_looks_for_garbage_seldom_and_not_at_its_end() -> None:
    """The command line sets it before it loads what a command needs; at the end everything is left alone."""
    asked = (
        "import atexit, gc; atexit.register(lambda: print(gc.get_threshold()[0], gc.get_freeze_count() > 0))\n"
        "from flows.cli import main; main(['--version'])"
    )
    ended = subprocess.run([sys.executable, "-c", asked], cwd=PROJECT_ROOT, capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines()[-1] == "50000 True"
