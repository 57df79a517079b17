"""Deleting what :mod:`tasks.backups.expiry` let go, and what killed runs left on the target.

A backup's manifest is deleted first: killed after that, what is left is no backup any more, and the next run takes the
rest away. Dependants go before what they build on. Which backups may go is decided anew, from the target, right before.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta

from tasks.backups.catalogue import Catalogue
from tasks.backups.expiry import Held, Keep, Plan, classify
from tasks.backups.store import Policy
from tasks.backups.targets import MANIFEST, Target
from tasks.errors import Refused

LEFT_FOR = timedelta(days=1)


def plan_prune(catalogue: Catalogue, policy: Policy, holds: Sequence[datetime], now: datetime) -> Plan:
    """Which backups stay and why, and which may go."""
    good = catalogue.good()
    held = [
        Held(manifest.label, manifest.point_time, manifest.base_label, manifest.label in good)
        for manifest in catalogue.backups
    ]
    rule = Keep(
        policy.recovery_window_days, policy.keep_daily, policy.keep_weekly, policy.keep_monthly, policy.minimum_good
    )
    return classify(held, rule, holds, now)


def delete_backups(target: Target, catalogue: Catalogue, labels: Sequence[str]) -> list[str]:
    """Delete these backups, in the order given, and return them.

    Raises:
        Refused: they are all the good ones there are, or one that stays builds on one of them; nothing was deleted.
    """
    going = set(labels)
    good = catalogue.good()
    if good and good <= going:
        raise Refused("These are all the backups that are known to restore; nothing was deleted.")
    for manifest in catalogue.backups:
        if manifest.label not in going and going & set(catalogue.bases(manifest.label)):
            raise Refused(f"Backup {manifest.label} builds on one of these; nothing was deleted.")
    for label in labels:
        target.remove(f"{label}/{MANIFEST}")
        target.remove_folder(label)
    return list(labels)


def clear_leftovers(target: Target, catalogue: Catalogue, ours: Iterable[str], now: datetime) -> list[str]:
    """Delete what killed backups and deletions left: folders without a manifest, ours at once, others' after a day.

    Somebody else's backup may be under way in a shared target. Damaged ones are left for a person to look at.
    """
    known = set(ours)
    gone = [label for label in catalogue.leftovers if label in known or _is_old(label, now)]
    for label in gone:
        target.remove_folder(label)
    return gone


def _is_old(label: str, now: datetime) -> bool:
    try:
        begun = datetime.strptime(label.split("-")[0], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        return False  # not a backup of ours at all
    return begun < now - LEFT_FOR
