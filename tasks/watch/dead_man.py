"""The dead-man's switch of the watcher: whoever keeps Kontor up asks it, and it speaks when nobody has watched."""

from __future__ import annotations

from datetime import datetime, timedelta

from configs.settings import Settings
from tasks.database import engine_for
from tasks.errors import KontorError
from tasks.mailer import own_people, send_report
from tasks.watch.judging import Alarm, watcher_is_silent
from tasks.watch.letters import alert_letter
from tasks.watch.store import newest_look, open_alarm, reserve_untold

LONGEST_SILENCE = timedelta(hours=1)
_FINGERPRINT = "silent run_watch"


def sound_if_silent(settings: Settings, up_since: datetime, now: datetime) -> bool:
    """Tell the engineers, once, where run_watch has not ended well for an hour; returns whether it was said now.

    The next look of run_watch finds the alert over and says so.

    Raises:
        Database errors: whoever asks is told that the database is away by other means.
    """
    with engine_for(settings, purpose="kontor up").begin() as connection:
        newest = newest_look(connection)
        if not watcher_is_silent(newest, up_since, now, most=LONGEST_SILENCE):
            return False
        since = f"since {newest:%Y-%m-%d %H:%M} UTC" if newest else "since Kontor is up"
        cause = f"Nobody has looked at the runs {since}: run_watch does not run or does not end well."
        if not open_alarm(connection, Alarm("silent", "run_watch", cause, _FINGERPRINT), now):
            return False
        alerts = [alert for alert in reserve_untold(connection, now) if alert.kind == "silent"]
    to = own_people(settings, "engineers")
    for alert in alerts if to else []:
        try:
            send_report(settings, alert_letter(alert, sender=settings.mail_from or to[0].email, to=to, now=now))
        except KontorError:
            continue  # it stands in `kontor status`
    return True
