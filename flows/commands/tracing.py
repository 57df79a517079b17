"""What a worker's run does before its flow is loaded, where traces are collected: Prefect calls it as a pull step."""

from __future__ import annotations


def begin() -> dict[str, bool]:
    """Let the run's spans go to the collector that the settings name; returns whether there is one."""
    from configs.settings import load_settings
    from tasks.traces import begin_tracing

    return {"traced": begin_tracing(load_settings())}
