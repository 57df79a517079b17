"""The inbox's watcher, a program that `kontor up` runs: a file that arrives starts its flow within seconds.

It only starts runs; the flow decides what a file is and whether it is finished. A file that is still growing when the
run looks at it is left, and its last change starts another run. What arrived meanwhile is found at the start.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from configs.settings import Settings

QUIET_MS = 1_500  # changes closer together than this are one arrival


def main() -> int:
    """Watch the inbox until the process is told to end."""
    from watchfiles import watch

    from configs.settings import load_settings
    from flows.commands.running import FLOW_OF_FEED

    settings = load_settings()
    inbox = settings.inbox_path
    inbox.mkdir(parents=True, exist_ok=True)
    _start(flows_for(settings, sorted(inbox.iterdir()), list(FLOW_OF_FEED)))
    for changes in watch(inbox, debounce=QUIET_MS, step=200, recursive=False, raise_interrupt=False):
        present = [Path(path) for _, path in changes if Path(path).is_file()]
        _start(flows_for(settings, present, list(FLOW_OF_FEED)))
    return 0


def flows_for(settings: Settings, paths: Iterable[Path], feeds: Sequence[str]) -> list[str]:
    """The flows that these files are for, customers before what they owe; files that no contract claims start none."""
    from flows.commands.running import FLOW_OF_FEED
    from tasks.feeds.intake import find_inbox_files, installed_contracts

    names = {path.name for path in paths}
    if not names:
        return []
    claimed = find_inbox_files(settings.inbox_path, installed_contracts(settings.home, feeds))
    wanted = {FLOW_OF_FEED[file.contract.feed] for file in claimed if file.path.name in names}
    return [flow for flow in dict.fromkeys(FLOW_OF_FEED.values()) if flow in wanted]


def _start(flows: Sequence[str]) -> None:
    """Ask Prefect for a run of each deployment; it is queued, and its worker starts it."""
    from prefect.deployments import run_deployment

    for flow in flows:
        run = run_deployment(f"{flow}/{flow}", timeout=0, tags=["arrival"])
        print(f"arrival flow={flow} flow_run_id={getattr(run, 'id', None)}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
