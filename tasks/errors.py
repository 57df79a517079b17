"""One tree of errors, each with the exit code that a script can rely on.

    KontorError                     1   never raised itself
    ├── BadInput                    4   what was given is not what its contract says; terminal
    │   └── FileRefused             4   a whole file, with every reason at once
    ├── UsageError                  2   an argument or a setting is wrong; terminal
    ├── Refused                     3   a guard or a rule said no; a person may overrule it
    │   └── Locked                  3   another run holds the lock of this flow
    ├── DependencyDown              5   database or server away; transient, worth a retry
    └── PartlyDone                  6   some of the work was done and is safe; the rest is named

Texts carry ids, file names and cell addresses, what was measured and what is allowed, the state the
data is in, and a ``hint`` with the next command. They never carry a person's name or address.

A file's name and a sheet's are what somebody typed and may be a person's. Whoever ran the command reads them; what
others keep (Prefect's states, events and logs) gets :func:`discreet`: the text without them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

ELLIPSIS = "…"

# What a message quotes stands as repr() writes it; an apostrophe inside a word opens nothing.
_QUOTED = re.compile(r"""(?<!\w)(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")""")


class KontorError(Exception):
    """Base of all errors that Kontor raises on purpose.

    ``exit_code`` is what the command ends with, ``transient`` says whether trying again can help,
    ``hint`` is the next thing to do, in words or as a command. ``names`` are the words of others in the message,
    such as names of files, each with what stands for it where it may not be shown.
    """

    exit_code = 1
    transient = False
    quotes = False

    def __init__(self, message: str, *, hint: str = "", names: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.names = dict(names or {})

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.message, self.__dict__))


def _rebuild(
    cls: type[KontorError], message: str, state: dict[str, object]
) -> KontorError:  # errors cross process boundaries, so they must survive pickling
    error = cls.__new__(cls)
    Exception.__init__(error, message)
    error.__dict__.update(state)
    return error


def discreet(error: KontorError) -> str:
    """The error's message as anybody may keep it: without names of files, and without what it quotes from one."""
    text = without_names(error.message, error.names)
    return _QUOTED.sub(ELLIPSIS, text) if error.quotes else text


def without_names(text: str, names: Mapping[str, str]) -> str:
    """The text with each name replaced by what stands for it; longer names first, so that a path goes whole."""
    for name in sorted(filter(None, names), key=len, reverse=True):
        text = text.replace(name, names[name])
    return text


class BadInput(KontorError):
    """What was given is not what its contract says."""

    exit_code = 4
    quotes = True


class FileRefused(BadInput):
    """A whole file cannot be taken in; ``reasons`` holds every reason found, not the first.

    ``others`` are the names of other files that the reasons mention.
    """

    def __init__(self, file_name: str, reasons: Sequence[str], *, hint: str = "", others: Sequence[str] = ()) -> None:
        self.file_name = file_name
        self.reasons = tuple(reasons)
        lines = "".join(f"\n  - {reason}" for reason in self.reasons)
        super().__init__(
            f"{file_name} was refused; nothing of it was applied.{lines}",
            hint=hint,
            names={**dict.fromkeys(others, "another file"), file_name: "The file"},
        )


class UsageError(KontorError):
    """An argument or a setting is wrong."""

    exit_code = 2
    quotes = True


class Refused(KontorError):
    """A guard or a rule said no."""

    exit_code = 3


class Locked(Refused):
    """Another run holds the lock; ``holder`` says which."""

    def __init__(self, message: str, *, holder: str, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.holder = holder


class DependencyDown(KontorError):
    """The database or another server cannot be reached; trying again may help."""

    exit_code = 5
    transient = True


class PartlyDone(KontorError):
    """Some of the work was done and is safe; the message names the rest."""

    exit_code = 6
    quotes = True
