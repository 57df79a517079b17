"""Once at every `kontor up`: put the deployments into force and make up for the runs that were missed meanwhile."""

from __future__ import annotations

import sys

from flows.commands.screen import say
from tasks.garbage import collect_seldom


def main() -> int:
    """Load and check every flow, wait for the word to go on, and tell the server that ``PREFECT_API_URL`` names.

    Returns the exit code. Without the word, because whoever would have given it is gone, nothing is done.
    """
    from configs.settings import load_settings
    from flows.commands.catching_up import catch_up
    from flows.commands.deploying import put_into_force, read_deployments
    from tasks.errors import KontorError

    collect_seldom()
    try:
        settings = load_settings()
        read_deployments(settings)
        if not sys.stdin.readline():
            return 0
        deployed = put_into_force(settings)
        say(f"{len(deployed)} deployments are in force.")
        for line in catch_up(settings, deployed):
            say(line)
    except KontorError as error:
        say(error.message)
        say(f"what to do: {error.hint}")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
