"""Every command that writes data to a file or for another program notes who took personal data out."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from configs.settings import PROJECT_ROOT

WRITERS = ("out().file.write(", "write_out(", "write_corrections(")

# These write no personal data: rules, runs, counts, contracts, ids, what would be refused, and the words that say so.
NAMES_NOBODY = {
    "backfill._print_json", "backup.list_backups", "deploying.deploy", "feeds.check", "feeds._print_records",
    "history.verify", "metrics.metrics", "quality._backtest_files", "quality._tell", "quality.backtest",
    "quarantine._tell", "quarantine.totals",
    "reading.write_out", "reading.list_classes", "retention.print_rows", "rules.export", "rules._show", "status.status",
    "taking_in.conclude",
}  # fmt: skip


def _writers() -> Iterator[tuple[str, bool]]:
    """Each function of a command that writes, and whether it notes the export."""
    for path in sorted((PROJECT_ROOT / "flows" / "commands").glob("*.py")):
        source = path.read_text("utf-8")
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef):
                text = ast.get_source_segment(source, node) or ""
                if any(writer in text for writer in WRITERS):
                    yield f"{path.stem}.{node.name}", "note_egress(" in text


def test_every_export_is_noted() -> None:
    """A writer that neither notes the export nor is known to name nobody is found."""
    writers = dict(_writers())
    assert len(writers) > 15
    assert sum(writers.values()) >= 7
    assert sorted(name for name, notes in writers.items() if not notes and name not in NAMES_NOBODY) == []
