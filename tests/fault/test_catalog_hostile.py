"""Odd and hostile files handed to the catalogue's contracts: each a table or a refusal in words, and soon."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tasks.errors import FileRefused
from tasks.feeds.confined import Cost, read_confined
from tasks.feeds.contracts import FeedContract, load_contract
from tests.catalogues import catalog_contract

SLOWEST = 30.0
LAYOUT = {
    "groupHeadings": "category",
    "sheetNames": "description",
    "dialect": {"sheetsTogether": True, "headerRows": 3},
}


def _reasons(path: Path, contract: FeedContract) -> list[str]:
    """Why the file is refused; nothing of one that is read."""
    try:
        read_confined(path, contract)
    except FileRefused as refusal:
        return list(refusal.reasons)
    return []


@pytest.mark.parametrize("folder", ["hostile", pytest.param("workbooks", marks=pytest.mark.campaign)])
def test_every_odd_workbook_ends_in_a_table_or_in_words(real_data: Path, tmp_path: Path, folder: str) -> None:
    """With several sheets, headings over three rows and groups allowed, which look at more of a file than others do."""
    contract = load_contract(catalog_contract(tmp_path, contract=LAYOUT, name={"fillDown": "*"}))
    paths = [path for path in sorted((real_data / "spreadsheets" / folder).rglob("*")) if path.is_file()]
    assert paths
    for path in paths:
        began = time.perf_counter()
        reasons = _reasons(path, contract)
        assert time.perf_counter() - began < SLOWEST, path
        # An error's name stands there only if our own code failed on what it had not foreseen.
        assert not any("broke down on it (" in reason for reason in reasons), (path, reasons)


def _bmecat(path: Path, products: int) -> Path:
    article = (
        '<ARTICLE mode="new"><SUPPLIER_AID>P{n}</SUPPLIER_AID><ARTICLE_DETAILS><DESCRIPTION_SHORT>Product {n}'
        "</DESCRIPTION_SHORT></ARTICLE_DETAILS><ARTICLE_FEATURES>{features}</ARTICLE_FEATURES><ARTICLE_PRICE_DETAILS>"
        '<ARTICLE_PRICE price_type="nrp"><PRICE_AMOUNT>{n}.5</PRICE_AMOUNT><PRICE_CURRENCY>EUR</PRICE_CURRENCY>'
        "</ARTICLE_PRICE></ARTICLE_PRICE_DETAILS></ARTICLE>"
    )
    tie = (
        "<ARTICLE_TO_CATALOGGROUP_MAP><ART_ID>P{n}</ART_ID><CATALOG_GROUP_ID>7</CATALOG_GROUP_ID>"
        "</ARTICLE_TO_CATALOGGROUP_MAP>"
    )
    features = "<FEATURE><FNAME>Colour</FNAME><FVALUE>red</FVALUE></FEATURE>" * 40
    with path.open("w", encoding="utf-8") as stream:
        stream.write("<BMECAT><T_NEW_CATALOG><CATALOG_STRUCTURE><GROUP_ID>7</GROUP_ID><GROUP_NAME>Pens</GROUP_NAME>")
        stream.write("</CATALOG_STRUCTURE>")
        stream.writelines(article.format(n=n, features=features) for n in range(products))
        stream.writelines(tie.format(n=n) for n in range(products))
        stream.write("</T_NEW_CATALOG></BMECAT>")
    return path


@pytest.mark.campaign
def test_a_large_bmecat_file_is_streamed(tmp_path: Path) -> None:
    """Thirty thousand products more, eighty megabytes of XML, cost the reader a fraction of that in memory."""
    contract, costs, sizes = load_contract("bmecat"), [], []
    for products in (1_000, 31_000):
        path = _bmecat(tmp_path / f"bmecat_{products}.xml", products)
        found: list[Cost] = []
        frame = read_confined(path, contract, on_cost=found.append).frame
        assert (len(frame), set(frame["category"])) == (products, {"Pens"})
        costs.append(found[0].peak_bytes)
        sizes.append(path.stat().st_size)
    assert sizes[1] - sizes[0] > 70_000_000
    assert costs[1] - costs[0] < (sizes[1] - sizes[0]) / 2
