"""docs/reference/commands.md names every command and option that there is, and no other."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import typer

from configs.settings import PROJECT_ROOT
from flows.cli import app

REFERENCE = PROJECT_ROOT / "docs" / "reference" / "commands.md"
_OWN = {"--help", "-h", "--version", "--install-completion", "--show-completion"}


def _commands(group: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, (*words, name))
        else:
            yield (*words, name), command


def _options(command: Any) -> set[str]:
    found = {text for parameter in command.params for text in (*parameter.opts, *parameter.secondary_opts)}
    return {text for text in found if text.startswith("--")} - _OWN


def _sections() -> dict[str, str]:
    parts = re.split(r"^### `kontor ([a-z -]+?)(?: [A-Z].*)?`$", REFERENCE.read_text("utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_every_command_has_a_section_and_every_section_a_command() -> None:
    """No command is undocumented and no documented command is gone."""
    commands = {" ".join(words) for words, _ in _commands(typer.main.get_command(app))}
    assert len(commands) >= 18
    assert set(_sections()) == commands


def test_every_option_is_named_in_its_commands_section() -> None:
    """An option that is not described fails here, and so does one that is described but does not exist."""
    sections = _sections()
    every = dict(_commands(typer.main.get_command(app)))
    known = set().union(*map(_options, every.values())) | {"--help"}
    assert len(known) > 15
    for words, command in every.items():
        section = sections[" ".join(words)]
        shared = {"--format", "--out", "--limit"} if "as for `kontor report`" in section else set()
        missing = {option for option in _options(command) if option not in section} - shared - {"--no-show-password"}
        assert not missing, (words, missing)
        assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", section)) <= known, words


def test_the_exit_codes_are_those_of_the_errors() -> None:
    """The table of exit codes has every code that an error can end with."""
    from tasks import errors

    kinds = [item for item in vars(errors).values() if isinstance(item, type) and issubclass(item, Exception)]
    codes = {int(getattr(kind, "exit_code", -1)) for kind in kinds}
    listed = {int(code) for code in re.findall(r"^\| (\d+) \|", REFERENCE.read_text("utf-8"), re.MULTILINE)}
    assert listed == codes | {0, 130}
