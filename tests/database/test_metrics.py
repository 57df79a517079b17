"""Figures for a monitoring system: in Prometheus's form, without customers, named alike in rules and dashboard."""

from __future__ import annotations

import json
import re
from datetime import date
from pathlib import Path

import yaml
from prometheus_client.parser import text_string_to_metric_families

from configs.settings import PROJECT_ROOT, Settings
from tasks.metrics.exposition import Figure, as_text, fetch_figures
from tests.ledgers import Books, item, write_csv

MONITORING = PROJECT_ROOT / "configs" / "monitoring"


def _samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_figures_say_what_came_in_and_what_waits(kontor_settings: Settings, tmp_path: Path) -> None:
    """One good row and one of an unknown customer: counted by outcome, and no label names a customer."""
    books = Books(kontor_settings)
    books.customers(tmp_path, ["1001"])
    rows = [item("1001", "A-1", "10.00", date(2026, 12, 1)), item("9999", "A-2", "5.00", date(2026, 12, 1))]
    books.take_in(write_csv(tmp_path / "open_items_2026-11-16.csv", rows), "open_items")
    with books.engine.connect() as connection:
        text = as_text(fetch_figures(connection))
    samples = _samples(text)
    rows_of = {
        labels[1][1]: value
        for (name, labels), value in samples.items()
        if name == "kontor_feed_rows_total" and labels[0] == ("contract", "open_items")
    }
    assert rows_of == {"inserted": 1, "updated": 0, "unchanged": 0, "quarantined": 1, "superseded": 0}
    assert samples["kontor_quarantine_rows", (("contract", "open_items"),)] == 1
    assert samples["kontor_open_amount", (("currency", "EUR"),)] == 10
    assert samples["kontor_outbox_mails", (("state", "unknown"),)] == 0
    assert samples["kontor_up", ()] == 1
    assert "1001" not in text


def test_rules_and_dashboard_ask_for_figures_that_exist(kontor_settings: Settings) -> None:
    """Every name in the alert rules and on the dashboard is one that the view gives; every rule names a runbook."""
    view = (PROJECT_ROOT / "data_contracts" / "views" / "99_status_metrics.sql").read_text("utf-8")
    kinds = dict(re.findall(r"select '(kontor_\w+)'(?: as name)?, '(gauge|counter)'", view))
    assert len(kinds) >= 10
    given = {f"{name}_total" if kind == "counter" else name for name, kind in kinds.items()} | {"kontor_up"}
    rules = [
        rule
        for group in yaml.safe_load((MONITORING / "alerts.yml").read_text("utf-8"))["groups"]
        for rule in group["rules"]
    ]
    panels = json.loads((MONITORING / "grafana.json").read_text("utf-8"))["panels"]
    expressions = [rule["expr"] for rule in rules] + [t["expr"] for panel in panels for t in panel["targets"]]
    assert len(rules) >= 6
    assert len(panels) >= 10
    asked = {name for expression in expressions for name in re.findall(r"\bkontor_\w+", expression)}
    assert asked <= given, asked - given
    assert all((PROJECT_ROOT / rule["annotations"]["runbook"]).is_file() for rule in rules)


def test_a_label_with_odd_marks_is_escaped() -> None:
    """A sender may be called anything; the text stays one that Prometheus reads."""
    odd = Figure("kontor_feed_age_days", "gauge", "Age.", (("source", 'a"b\\c\nd'),), 3.0)
    assert _samples(as_text([odd]))["kontor_feed_age_days", (("source", 'a"b\\c\nd'),)] == 3.0
