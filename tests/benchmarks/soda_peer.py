"""The peer: Soda Core asks the same rules of the same table, in its own words wherever it has some.

It counts what fails, all in one statement but for keys, and reads at most 100 failing rows of a rule; it names no
more of them. It is not among Kontor's packages: where it cannot be imported there is no such row in the table. It is
told to send nothing to anybody before it is loaded.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import logging
from typing import Any

from sqlalchemy import URL

from configs.settings import Settings
from tasks.database import FLOWS, database_url
from tasks.quality.checks_store import with_threshold
from tasks.quality.contracts import Rule, TableContract

_SOURCE = "kontor"


def is_there() -> bool:
    """Whether Soda Core and its part for PostgreSQL can be imported."""
    return all(importlib.util.find_spec(name) is not None for name in ("soda", "psycopg2"))


def keep_silent(settings: Settings) -> None:
    """Tell Soda Core, before it is loaded, to send no figures of its use; it reads that from a file."""
    path = settings.home / "bench" / "soda.yml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"send_anonymous_usage_stats": False, "user_cookie_id": "none"}), encoding="utf-8")
    importlib.import_module("soda.common.config_helper").ConfigHelper.get_instance(str(path))
    logging.getLogger("soda").setLevel(logging.ERROR)


def ask_soda(settings: Settings, contract: TableContract) -> dict[str, int]:
    """The failing rows of each rule as Soda Core counts them; :func:`keep_silent` comes first.

    Raises:
        RuntimeError: it could not ask a rule; a comparison without it is none.
    """
    scan: Any = importlib.import_module("soda.scan").Scan()
    scan.set_data_source_name(_SOURCE)
    schema, table = contract.table.split(".")
    scan.add_configuration_yaml_str(json.dumps(_source(database_url(settings, FLOWS), schema)))
    asked = [_check(contract, rule) for rule in contract.rules]
    scan.add_sodacl_yaml_str(json.dumps({f"checks for {table}": asked}))
    scan.execute()
    if scan.has_error_logs():
        raise RuntimeError(scan.get_error_logs_text())
    return {check.name: int(check.check_value) for check in scan._checks}


def _source(url: URL, schema: str) -> dict[str, Any]:
    """Where it finds the database, in its own terms; JSON is YAML."""
    server = {"host": url.query["host"], "port": str(url.query["port"]), "username": url.username, "password": ""}
    return {f"data_source {_SOURCE}": {"type": "postgres", **server, "database": url.database, "schema": schema}}


def _check(contract: TableContract, rule: Rule) -> dict[str, Any]:
    named, first = {"name": rule.rule_id}, rule.columns[0]
    match rule.kind:
        case "present":
            return {f"missing_count({first}) = 0": named}
        case "allowed":
            return {f"invalid_count({first}) = 0": named | {"valid values": list(rule.allowed)}}
        case "pattern":
            return {f"invalid_count({first}) = 0": named | {"valid regex": rule.pattern}}
        case "references":
            other = str(rule.references).rpartition(".")[2]
            return {f"values in ({first}) must exist in {other} ({first})": named}
        case "at_most":
            condition = f"{first} > {rule.columns[1]}"
        case "unique":
            condition = f"{first} in (select {first} from {contract.table} group by 1 having count(*) > 1)"
        case _:
            condition = f"not ({with_threshold(rule)})"
    return {"failed rows": named | {"fail condition": condition}}
