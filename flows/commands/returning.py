"""`python -m flows.commands.returning`: reads returned mails every few minutes, so that no dead address is written to.

One of the processes that `kontor up` keeps standing. overdue_reminders reads them once more before it plans: this one
sees to it that a person asking for `kontor report suppressions` in the meantime is told what is known.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from configs.settings import Settings, load_settings
from flows.commands.stopping import until_told
from tasks.database import engine_for
from tasks.errors import KontorError
from tasks.reminders.sending.bounce_store import take_in_returned

EVERY_SECONDS = 300.0


def main() -> int:
    """Look at once and every five minutes until told to stop."""
    stopped = until_told()
    settings = load_settings()
    engine = engine_for(settings, purpose="kontor returned mail")
    while True:
        look(engine, settings, datetime.now(UTC))
        if stopped.wait(EVERY_SECONDS):
            return 0


def look(engine: Engine, settings: Settings, now: datetime) -> bool:
    """Take in what has come back and print its counts; False where it could not be read, which is printed too.

    What stopped it is looked at again in five minutes: a mailbox may be away, and what was read stands.
    """
    try:
        counts = take_in_returned(engine, settings, now)
    except KontorError as error:
        print(f"{now:%Y-%m-%d %H:%M} {error.message}", flush=True)
        return False
    except DBAPIError as error:
        print(f"{now:%Y-%m-%d %H:%M} the database did not answer ({type(error).__name__})", flush=True)
        return False
    finally:
        engine.dispose()  # nothing is held for five minutes that others may need
    told = " ".join(f"{kind}={count}" for kind, count in sorted(counts.items()) if count)
    if told:
        print(f"{now:%Y-%m-%d %H:%M} returned_mails {told}", flush=True)
    return True


if __name__ == "__main__":
    sys.exit(main())
