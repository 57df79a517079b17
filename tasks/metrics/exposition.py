"""The figures of report.metrics as Prometheus reads them, asked of the database at each scrape."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from sqlalchemy import Connection, text


@dataclass(frozen=True)
class Figure:
    """One figure: its name, what kind it is, what it means, its labels, its value."""

    name: str
    kind: str
    meaning: str
    labels: tuple[tuple[str, str], ...]
    value: float


def fetch_figures(connection: Connection) -> list[Figure]:
    """Every line of report.metrics, ordered by name and labels."""
    rows = connection.execute(text("select name, kind, help, labels, value from report.metrics order by 1, 4"))
    return [
        Figure(row.name, row.kind, row.help, tuple(sorted(row.labels.items())), row.value)
        for row in rows
        if row.value is not None
    ]


class Figures(Collector):
    """A collector that asks ``read`` at each scrape; ``kontor_up`` says whether the database answered."""

    def __init__(self, read: Callable[[], list[Figure] | None]) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        """Every figure as a metric family, and whether there are any."""
        found = self._read()
        yield GaugeMetricFamily("kontor_up", "Whether the database answered.", value=0.0 if found is None else 1.0)
        yield from families(found or [])


def families(figures: Iterable[Figure]) -> Iterator[Metric]:
    """The figures grouped by name."""
    grouped: dict[str, list[Figure]] = {}
    for figure in figures:
        grouped.setdefault(figure.name, []).append(figure)
    for name, mine in grouped.items():
        names = [label for label, _ in mine[0].labels]
        made = CounterMetricFamily if mine[0].kind == "counter" else GaugeMetricFamily
        family = made(name, mine[0].meaning, labels=names)
        for figure in mine:
            family.add_metric([value for _, value in figure.labels], figure.value)
        yield family


def registry_of(read: Callable[[], list[Figure] | None]) -> CollectorRegistry:
    """A registry with Kontor's figures and nothing about the process that serves them."""
    registry = CollectorRegistry()
    registry.register(Figures(read))
    return registry


def as_text(figures: list[Figure]) -> str:
    """The figures in Prometheus's text format."""
    return generate_latest(registry_of(lambda: figures)).decode()
