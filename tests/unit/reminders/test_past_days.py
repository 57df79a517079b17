"""What reaches customers of a past day takes two words, --live and --allow-past."""

from __future__ import annotations

from datetime import date

import pytest

from flows.commands.taking_in import _switches
from tasks.errors import UsageError
from tasks.reminders.parameters import ReminderParameters

DAY = date(2026, 10, 31)


@pytest.mark.parametrize("dry_run", [None, True])
def test_allow_past_alone_is_refused(dry_run: bool | None) -> None:
    """Without --live the option would promise what it cannot keep."""
    with pytest.raises(UsageError, match="sends nothing by itself"):
        _switches(DAY, dry_run, allow_past=True)


def test_both_together_are_the_flows_parameters() -> None:
    """The options arrive under the names that the flow's form has; what was not said is left to the flow."""
    given = {name: texts[0] for name, texts in _switches(DAY, False, allow_past=True).items()}
    made = ReminderParameters.model_validate(given)
    assert (made.as_of, made.dry_run, made.allow_past) == (DAY, False, True)
    assert _switches(DAY, False, allow_past=False).keys() == {"as_of", "dry_run"}
    assert _switches(None, None, allow_past=False) == {}
