"""Builders of small feed files and of contracts that extend the project's own; builders never assert."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import xlsxwriter
import yaml

from tasks.feeds.contracts import FeedContract, load_contract

HEADER = ("Customer number", "Invoice number", "Due date", "Currency", "Amount")

WriteText = Callable[..., Path]
WriteWorkbook = Callable[..., Path]
Extend = Callable[..., FeedContract]


@pytest.fixture
def write_text(tmp_path: Path) -> WriteText:
    """Write lines as a text file: ``write_text("a;b", "1;2", name=…, encoding=…)`` → its path."""

    def write(*lines: str, name: str = "open_items.csv", encoding: str = "utf-8", end: str = "\n") -> Path:
        path = tmp_path / name
        path.write_bytes((end.join(lines) + end).encode(encoding))
        return path

    return write


@pytest.fixture
def write_workbook(tmp_path: Path) -> WriteWorkbook:
    """Write rows as an .xlsx: strings stay text, numbers numbers, dates dates; {sheet: rows} for several sheets."""

    def write(
        rows: Sequence[Sequence[Any]] | Mapping[str, Sequence[Sequence[Any]]],
        name: str = "open_items.xlsx",
        hidden: Sequence[str] = (),
    ) -> Path:
        path = tmp_path / name
        options = {"default_date_format": "yyyy-mm-dd", "strings_to_numbers": False}
        with xlsxwriter.Workbook(str(path), options) as workbook:
            for title, content in (rows if isinstance(rows, Mapping) else {"Sheet1": rows}).items():
                sheet = workbook.add_worksheet(title)
                if title in hidden:
                    sheet.hide()
                else:
                    sheet.activate()  # the first sheet can only be hidden while another is the active one
                for number, row in enumerate(content):
                    for position, cell in enumerate(row):
                        if cell is not None and cell != "":
                            sheet.write(number, position, cell)
        return path

    return write


@pytest.fixture
def extend(tmp_path: Path) -> Extend:
    """Return a contract that extends another: ``extend("open_items", dialect={…}, columns={"amount": {…}})``."""

    def build(
        parent: str, columns: Mapping[str, Mapping[str, Any]] | None = None, quality: Sequence[Any] = (), **custom: Any
    ) -> FeedContract:
        properties = [
            {"name": name, "customProperties": [{"property": key, "value": value} for key, value in values.items()]}
            for name, values in (columns or {}).items()
        ]
        document = {
            "apiVersion": "v3.1.0",
            "kind": "DataContract",
            "id": "sender",
            "version": "1.0.0",
            "status": "active",
            "customProperties": [
                {"property": key, "value": value} for key, value in ({"extends": parent} | custom).items()
            ],
            "schema": [{"name": parent, "properties": properties, "quality": list(quality)}],
        }
        path = tmp_path / "sender.yaml"
        path.write_text(yaml.safe_dump(document, allow_unicode=True), encoding="utf-8")
        return load_contract(path)

    return build
