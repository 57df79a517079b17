"""Helpers of tests about the catalogue: small files, and what the database says of products. They never assert."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import yaml

from tests.ledgers import Books, write_csv

DAY = date(2026, 11, 2)

Product = dict[str, Any]


def product(part_number: str, **more: object) -> dict[str, object]:
    """A row of a catalogue in euro."""
    return {"part_number": part_number, "name": f"Product {part_number}", "currency": "EUR", **more}


def full(books: Books, folder: Path, rows: Sequence[dict[str, object]], as_of: date = DAY, **given: Any) -> Any:
    """Take a complete catalogue in and return its outcome."""
    return _take_in(books, folder, rows, as_of, "catalog", **given)


def delta(books: Books, folder: Path, rows: Sequence[dict[str, object]], as_of: date = DAY, **given: Any) -> Any:
    """Take a file of changes in and return its outcome."""
    return _take_in(books, folder, rows, as_of, "catalog_delta", **given)


def _take_in(
    books: Books, folder: Path, rows: Sequence[dict[str, object]], as_of: date, contract: str, **given: Any
) -> Any:
    headings = list(dict.fromkeys(name for row in rows for name in row))
    path = write_csv(folder / f"{contract}_{as_of}.csv", rows, headings)
    return books.take_in(path, contract, as_of, **given)


def catalog_contract(folder: Path, *, keys: Sequence[str] = (), mode: str = "snapshot", **columns: Any) -> Path:
    """Write a contract that extends the catalogue's: more columns in its key, properties of columns; returns where."""
    custom = {"extends": "catalog", "source": "catalog", "mode": mode} | columns.pop("contract", {})
    properties: dict[str, dict[str, Any]] = {}
    for position, name in enumerate(keys, start=2):
        properties[name] = {"name": name, "primaryKey": True, "primaryKeyPosition": position}
    for name, values in columns.items():
        item = properties.setdefault(name, {"name": name})
        listed = [{"property": key, "value": value} for key, value in values.items() if key != "logicalType"]
        item |= {"customProperties": listed} | ({"logicalType": "string"} if "logicalType" in values else {})
    document = {
        "apiVersion": "v3.1.0",
        "kind": "DataContract",
        "id": "sender",
        "version": "1.0.0",
        "status": "active",
        "customProperties": [{"property": key, "value": value} for key, value in custom.items()],
        "schema": [{"name": "catalog", "properties": list(properties.values())}],
    }
    path = folder / "sender.yaml"
    path.write_text(yaml.safe_dump(document, allow_unicode=True), encoding="utf-8")
    Books.contracts.pop(str(path), None)
    return path


def products(books: Books) -> dict[str, Product]:
    """Every product by part number."""
    rows = books.read("select * from crm.products order by source, part_key")
    return {row["part_number"]: row for row in rows}


def prices(books: Books) -> list[tuple[Any, ...]]:
    """Every price: part number, kind, currency, unit, minimum quantity, first day, first day after, amount; ordered."""
    rows = books.read(
        "select p.part_number, pp.kind, pp.currency, pp.unit, pp.min_quantity, pp.valid_from, pp.valid_until, pp.amount"
        " from crm.product_prices pp join crm.products p using (product_id) order by 1, 2, 3, 4, 5, 6"
    )
    return [tuple(row.values()) for row in rows]


def state(books: Books) -> dict[str, list[dict[str, Any]]]:
    """Everything of the catalogue that must not depend on the order of arrival: no surrogate ids, no instants."""
    return {name: books.read(statement) for name, statement in _STATE.items()}


_STATE = {
    "products": (
        "select source, part_key, part_number, name, description, category, unit, gtin, status, discontinued_on"
        " from crm.products order by 1, 2"
    ),
    "prices": (
        "select p.source, p.part_key, pp.kind, pp.currency, pp.unit, pp.min_quantity, pp.valid_from, pp.valid_until,"
        " pp.amount from crm.product_prices pp join crm.products p using (product_id) order by 1, 2, 3, 4, 5, 6, 7"
    ),
    "stock": (
        "select p.source, p.part_key, s.warehouse, s.quantity, s.counted_on"
        " from crm.product_stock s join crm.products p using (product_id) order by 1, 2, 3"
    ),
    "known_stock": ("select source, part_number, warehouse, quantity, true_on from report.stock order by 1, 2, 3"),
    "units": (
        "select p.source, p.part_key, u.unit, u.parts, u.holds from crm.product_units u"
        " join crm.products p using (product_id) order by 1, 2, 3"
    ),
    "rates": "select base, quote, rated_on, rate from crm.currency_rates order by 1, 2, 3",
}
