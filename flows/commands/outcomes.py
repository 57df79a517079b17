"""What became of files, in words: what stood beside their cells, what a dry run would do, files that nobody reads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from flows.commands.screen import counted, out

if TYPE_CHECKING:
    from configs.settings import Settings
    from tasks.feeds.outcomes import FileOutcome


def unclaimed_names(settings: Settings) -> list[str]:
    """The names of the inbox's files that no contract claims: no flow will ever take them in."""
    from tasks.feeds.inbox import shown_name, unclaimed_files

    return [shown_name(path) for path in unclaimed_files(settings.inbox_path, settings.home)]


def print_unclaimed(names: Sequence[str]) -> None:
    """Name the files that no contract claims, and the command that takes one in; nothing where there is none."""
    if not names:
        return
    what = counted(len(names), "file") + (" lies" if len(names) == 1 else " lie")
    out().print(f"{what} in the inbox that no contract claims: {', '.join(names)}")
    out().print("Take one in with `kontor import FILE --contract NAME`, or let a contract's filePatterns name it.")


def print_remarks(outcomes: Iterable[FileOutcome]) -> None:
    """Say what the reader saw beside the cells: hidden sheets and rows, macros, links."""
    for outcome in outcomes:
        for remark in outcome.remarks:
            out().print(f"{outcome.file_name}: {remark}")


def print_previews(outcomes: Iterable[FileOutcome]) -> None:
    """Say what a dry run found: what guards measured, which rows would wait and why, what would read as settled."""
    from tasks.artifacts import cell_text
    from tasks.reports.rows import printable
    from tasks.reports.terminal import print_table

    for outcome in outcomes:
        for title, rows in _sections(outcome):
            out().print(f"\n{outcome.file_name}: {title}", style="bold")
            cells = [[printable(cell_text(value)) for value in row.values()] for row in rows]
            print_table(out(), [name.replace("_", " ") for name in rows[0]], cells, [False] * len(rows[0]))


def _sections(outcome: FileOutcome) -> Iterable[tuple[str, Sequence[Mapping[str, Any]]]]:
    preview = outcome.preview
    if preview is None:
        return
    for title, rows, whole in (
        ("what its guards measured", preview.guards, len(preview.guards)),
        ("rows that would wait", preview.problems, outcome.quarantined),
        ("items that would read as settled", preview.settled, outcome.settled),
    ):
        if rows:
            more = f" (the first {len(rows)} of {whole})" if whole > len(rows) else ""
            yield title + more, rows


def as_json(outcome: FileOutcome) -> dict[str, Any]:
    """What only a dry run tells of a file, for scripts."""
    preview = outcome.preview
    if preview is None:
        return {"reasons": list(outcome.reasons), "remarks": list(outcome.remarks)}
    return {
        "reasons": list(outcome.reasons),
        "remarks": list(outcome.remarks),
        "guards": [dict(row) for row in preview.guards],
        "problems": [dict(row) for row in preview.problems],
        "would_settle": [dict(row) for row in preview.settled],
    }
