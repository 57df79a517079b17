"""The suite as an unprivileged account, in a copy of the checkout that it may read: ``make test-as-ordinary-user``.

Root's run proves what holds for root. What holds for everybody else is proven by the same tests in a process that is
nobody's: the copy has its own ``.venv``, whose packages are linked to the checkout's, and a home of its own. Run as a
program it takes pytest's arguments; without any it runs everything.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.janitor import MARK
from tests.local_stack_people import python_for

ROOT = Path(__file__).resolve().parents[1]
LEFT_OUT = (".git", ".venv", ".kontor", ".*_cache", ".hypothesis", "*.egg-info")
WHOLE_SUITE = ("--numprocesses", "2", "--dist", "loadfile", "--no-loadscope-reorder")
ACCOUNT = "nobody"

_KONTOR = """#!{python}
import sys
from flows.cli import main
sys.exit(main())
"""


@contextmanager
def checkout() -> Iterator[Path]:
    """A copy of the checkout that everybody may read, with a home for the account, for a ``with`` block."""
    account = pwd.getpwnam(ACCOUNT)
    folder = Path(tempfile.mkdtemp(prefix="kontor-user-"))
    try:
        folder.chmod(0o755)
        code = folder / "kontor"
        shutil.copytree(ROOT, code, ignore=shutil.ignore_patterns(*LEFT_OUT))
        _readable(code)
        _install(code, _this_python(folder, account.pw_uid))
        for name in ("home", "t"):
            (folder / name).mkdir(mode=0o700)
            os.chown(folder / name, account.pw_uid, account.pw_gid)
        yield code
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _readable(code: Path) -> None:
    for folder, _, names in os.walk(code):
        Path(folder).chmod(0o755)
        for name in names:
            file = Path(folder) / name
            file.chmod(file.stat().st_mode | 0o444)


def _install(code: Path, python: str) -> None:
    """Make ``.venv`` with the packages of this one, linked where they can be, and the copy in place of the checkout."""
    subprocess.run([python, "-m", "venv", "--without-pip", str(code / ".venv")], check=True)
    (packages,) = (code / ".venv" / "lib").glob("python3*/site-packages")
    packages.rmdir()
    _share(Path(sysconfig.get_path("platlib")), packages)
    for installed in packages.glob("__editable__*kontor*"):
        installed.unlink()
    (packages / "kontor.pth").write_text(f"{code}\n")
    script = code / ".venv" / "bin" / "kontor"
    script.write_text(_KONTOR.format(python=code / ".venv" / "bin" / "python"))
    script.chmod(0o755)


def _this_python(folder: Path, uid: int) -> str:
    """This very interpreter, copied into ``folder`` where the account cannot reach it: the packages were chosen for it.

    Another patch release of the same version may need others: what asyncpg takes from the standard library since 3.11.3
    is a package before.
    """
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    own = Path(sys.base_prefix) / "bin" / name
    if _starts(own, uid):
        return str(own)
    copy = folder / "python"
    library = Path("lib") / name
    unwanted = shutil.ignore_patterns("site-packages", "__pycache__", "test", "config-*")
    shutil.copytree(Path(sys.base_prefix) / library, copy / library, ignore=unwanted)
    for shared in (Path(sys.base_prefix) / "lib").glob("libpython*.so*"):
        shutil.copy2(shared, copy / "lib", follow_symlinks=False)
    (copy / "bin").mkdir()
    (copy / "bin" / name).write_bytes(_beside_its_library(own.read_bytes()))
    (copy / "bin" / name).chmod(0o755)
    return str(copy / "bin" / name) if _starts(copy / "bin" / name, uid) else python_for(uid)


def _beside_its_library(program: bytes) -> bytes:
    """Return the program with the folder it takes libpython from written relative to itself, in the same room."""
    absolute = str(Path(sys.base_prefix) / "lib").encode() + b"\0"
    relative = b"$ORIGIN/../lib"
    return program.replace(b"\0" + absolute, b"\0" + relative.ljust(len(absolute), b"\0"))


def _starts(python: Path, uid: int) -> bool:
    """Whether the account can start this interpreter with what Kontor needs of the standard library."""
    command = [str(python), "-c", "import ssl, ctypes, sqlite3, zoneinfo"]
    try:
        return subprocess.run(command, user=uid, cwd="/", check=False, capture_output=True).returncode == 0
    except OSError:
        return False


def _share(source: Path, target: Path) -> None:
    """The packages with their compiled modules: where nobody may write, each process would compile them anew."""
    try:
        shutil.copytree(source, target, copy_function=os.link)
    except shutil.Error:  # another file system: links are not possible
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(source, target)


def run_tests(code: Path, arguments: Sequence[str], **how: Any) -> subprocess.CompletedProcess[str]:
    """Run pytest in the copy as the account; ``how`` goes to ``subprocess.run``."""
    account = pwd.getpwnam(ACCOUNT)
    home = code.parent / "home"
    environment = {
        "PATH": f"{code / '.venv' / 'bin'}:{os.environ['PATH']}",
        "HOME": str(home),
        "TMPDIR": str(code.parent / "t"),
        "PYTHONDONTWRITEBYTECODE": "1",
        "HYPOTHESIS_STORAGE_DIRECTORY": str(home / "hypothesis"),
        "KONTOR_REAL_DATA": os.environ.get("KONTOR_REAL_DATA", str(ROOT.parent / "shared" / "data")),
    }
    for name in ("LANG", "LC_ALL", "KONTOR_CAMPAIGN_FACTOR"):
        if name in os.environ:
            environment[name] = os.environ[name]
    environment.pop(MARK, None)  # the account's session has a janitor of its own
    done: subprocess.CompletedProcess[str] = subprocess.run(
        [str(code / ".venv" / "bin" / "python"), "-m", "pytest", "-p", "no:cacheprovider", *arguments],
        cwd=code,
        env=environment,
        user=account.pw_uid,
        group=account.pw_gid,
        extra_groups=[],
        text=True,
        check=False,
        **how,
    )
    return done


def main(arguments: Sequence[str]) -> int:
    """Run the suite and return pytest's exit code; an ordinary user is told that ``make test`` is that run already."""
    if os.geteuid() != 0:
        print("You are an ordinary user: `make test` is this run already.")
        return 0
    with checkout() as code:
        print(f"The suite as account {ACCOUNT}, in {code}", flush=True)
        return run_tests(code, arguments or WHOLE_SUITE).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
