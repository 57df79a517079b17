"""Traces by one setting, or a word about what is missing."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from configs.settings import Settings
from flows.commands.deploying import read_deployments
from tasks.errors import UsageError
from tasks.traces import begin_tracing, missing_packages

COLLECTOR = "http://127.0.0.1:4318"


def test_without_the_setting_nothing_is_traced_and_no_run_asks_for_it() -> None:
    """No collector, no span, no step before a run."""
    assert not begin_tracing(Settings())
    assert {len(d.described["pull_steps"]) for d in read_deployments(Settings())} == {1}


def test_with_the_setting_every_run_begins_by_it_or_says_what_is_missing() -> None:
    """Runs of a worker begin with the step that Prefect is told of; without the packages the error names them."""
    settings = Settings(traces_url=COLLECTOR)
    pulls = [d.described["pull_steps"] for d in read_deployments(settings)]
    assert all(pull[-1] == {"flows.commands.tracing.begin": {}} for pull in pulls)
    if missing_packages():
        with pytest.raises(UsageError, match="are not installed") as refused:
            begin_tracing(settings)
        assert "extra `traces`" in refused.value.hint


def test_a_collector_with_a_password_in_its_address_is_no_setting() -> None:
    """A secret in a URL would stand in settings that are shown."""
    with pytest.raises(ValidationError):
        Settings(traces_url="http://user:secret@collector:4318")
