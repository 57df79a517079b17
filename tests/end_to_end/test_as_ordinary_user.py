"""What root's run proves of the embedded database also holds for an ordinary user, with the same tests."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import subprocess
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from configs.settings import PROJECT_ROOT
from tests.local_stack_people import python_for

CODE = ("flows", "tasks", "configs", "data_contracts", "tests", "pyproject.toml", "docs")
SUITE = (
    "tests/structure/test_schema.py",
    "tests/database/test_snapshots.py",
    "tests/database/test_refusals.py",
    "tests/database/test_upgrade.py",
    "tests/database/test_weekly_ledger.py::test_every_monday_of_the_year_reads_as_computed_elsewhere[as dated]",
)


@pytest.fixture
def checkout() -> Iterator[Path]:
    """A copy of the code and its packages that everybody may read; packages are linked, not copied."""
    if os.geteuid() != 0:
        pytest.skip("this run is an ordinary user's already: the suite itself is the proof")
    folder = Path(tempfile.mkdtemp(prefix="kontor-user-"))
    folder.chmod(0o755)
    for name in CODE:
        source = PROJECT_ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / name)
    python = python_for(pwd.getpwnam("nobody").pw_uid)
    subprocess.run([python, "-m", "venv", "--without-pip", str(folder / ".venv")], check=True)
    (packages,) = (folder / ".venv" / "lib").glob("python3*/site-packages")
    packages.rmdir()
    _share(Path(sysconfig.get_path("platlib")), packages)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def _share(source: Path, target: Path) -> None:
    try:
        shutil.copytree(source, target, copy_function=os.link, ignore=shutil.ignore_patterns("__pycache__"))
    except shutil.Error:  # another file system: links are not possible
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))


def test_the_same_tests_pass_for_an_ordinary_user(checkout: Path) -> None:
    """An unprivileged account with nothing but a home folder runs its own server and passes the database tests."""
    nobody = pwd.getpwnam("nobody")
    home = checkout / "home"
    home.mkdir(mode=0o700)
    os.chown(home, nobody.pw_uid, nobody.pw_gid)
    done = subprocess.run(
        [
            str(checkout / ".venv" / "bin" / "python"),
            "-m",
            "pytest",
            "-p",
            "no:cacheprovider",
            "-p",
            "no:xdist",
            *SUITE,
        ],
        cwd=checkout,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "TMPDIR": str(home),
            "PYTHONDONTWRITEBYTECODE": "1",
            "HYPOTHESIS_STORAGE_DIRECTORY": str(home / "hypothesis"),
            "KONTOR_REAL_DATA": os.environ.get("KONTOR_REAL_DATA", str(PROJECT_ROOT.parent / "shared" / "data")),
        },
        user=nobody.pw_uid,
        group=nobody.pw_gid,
        extra_groups=[],
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed.group(1)) >= 20
