"""What root's run proves of the embedded database also holds for an ordinary user, with the same tests.

The whole suite as an ordinary user is ``make test-as-ordinary-user``; this is the part that has most to do with rights.
"""

from __future__ import annotations

import os
import re
import subprocess

import pytest

from tests.as_ordinary_user import checkout, run_tests

PART = (
    "tests/structure/test_schema.py",
    "tests/database/test_refusals.py",
    "tests/database/test_upgrade.py",
    "tests/database/test_weekly_ledger.py::test_a_year_taken_in_again_changes_nothing",
)


def test_the_same_tests_pass_for_an_ordinary_user() -> None:
    """An unprivileged account with nothing but a home folder runs its own server and passes the database tests."""
    if os.geteuid() != 0:
        pytest.skip("this run is an ordinary user's already: the suite itself is the proof")
    with checkout() as code:
        done = run_tests(code, ["-p", "no:xdist", *PART], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=400)
    assert done.returncode == 0, done.stdout[-6000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed.group(1)) >= 10
