"""What lies in the inbox, by name alone: quick to ask, because nothing that reads files is loaded for it."""

from __future__ import annotations

from fnmatch import fnmatch
from pathlib import Path

from tasks.feeds.contracts import list_contracts

# Names that senders give to files which they are still writing, and programs to files of their own.
UNFINISHED = ("~$*", ".*", "*.part", "*.tmp", "*.crdownload", "*.filepart")


def unclaimed_files(inbox: Path, home: Path) -> list[Path]:
    """The inbox's finished files that no contract of any feed claims by name, ordered by name."""
    if not inbox.is_dir():
        return []
    own = home / "contracts"
    contracts = list_contracts() + (list_contracts(own) if own.is_dir() else [])
    patterns = [pattern.lower() for contract in contracts for pattern in contract.file_patterns]
    return [
        path
        for path in sorted(inbox.iterdir())
        if path.is_file()
        and not any(fnmatch(path.name, pattern) for pattern in UNFINISHED)
        and not any(fnmatch(path.name.lower(), pattern) for pattern in patterns)
    ]


def shown_name(path: Path) -> str:
    """The file's name as text that can be stored: bytes that are no UTF-8 stand as \\xNN, control characters too."""
    text = path.name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(mark if mark.isprintable() else repr(mark)[1:-1] for mark in text)
