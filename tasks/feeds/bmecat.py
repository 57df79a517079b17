"""A BMEcat catalogue (1.2 or 2005) as a grid: one row per product, currency, quantity and period of prices.

The XML is read element by element, each product is let go of before the next one, and rows become columns a few
thousand at a time: memory grows with what the contract reads of a catalogue, not with its XML. Nothing outside of the
file is loaded: no document type definition, no network, and a file that declares entities of its own is refused.

BMEcat 1.2 calls a product ARTICLE and its number SUPPLIER_AID, BMEcat 2005 PRODUCT and SUPPLIER_PID; the headings here
are those of 2005. A price of some type is one of ``PRICE_AMOUNT type``, per one order unit: PRICE_FACTOR and
PRICE_QUANTITY are worked in. Of the types that the contract takes for one column, the one that it names first counts
where a product has several. Two amounts of one type for the same currency, quantity and period, as for two countries,
become two rows, which collide. CONTENT_UNIT and NO_CU_PER_OU say what is in one order unit, and only together. Headings
under which nothing stands are left out, since they would say "none"; so is GROUP_NAME of changes, which do not spell
their groups out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from lxml import etree

from tasks.feeds.bmecat_groups import Groups, child_text, local_name, text_of
from tasks.feeds.delimited import NotText
from tasks.feeds.folding import fold
from tasks.feeds.grids import Body

PRODUCTS = ("PRODUCT", "ARTICLE")
TRANSACTIONS = {"T_NEW_CATALOG": True, "T_UPDATE_PRODUCTS": False, "T_UPDATE_PRICES": False}
_SAME = {"SUPPLIER_AID": "SUPPLIER_PID", "EAN": "INTERNATIONAL_PID"}
_CONTENT = ("CONTENT_UNIT", "NO_CU_PER_OU")
_PLAIN = ("SUPPLIER_PID", "DESCRIPTION_SHORT", "DESCRIPTION_LONG", "INTERNATIONAL_PID", "ORDER_UNIT", *_CONTENT)
_PERIODS = {"valid_start_date": "VALID_START", "valid_end_date": "VALID_END"}
_HIDDEN = {"PRICE_FACTOR", "PRICE_QUANTITY"}
_GROUP = "GROUP_NAME"

_ROWS_AT_ONCE = 4096

Row = dict[str, str]
# Of one currency, quantity and period: heading → rank of the type of price → its amounts.
Amounts = dict[str, dict[int, list[str]]]


class BmecatGrid:
    """The whole catalogue; ``complete`` says whether its contract is one of complete catalogues.

    ``ranks``: folded heading → the contract's column and how early the contract names the heading for it.

    Raises:
        NotText: it is not well-formed, not BMEcat, declares entities, or holds changes where all is expected.
    """

    sheet = None
    tells_errors = True

    def __init__(self, path: Path, *, complete: bool, ranks: Mapping[str, tuple[str, int]]) -> None:
        self._titles: list[str] = []
        self._currency = ""
        self._complete = complete
        self._ranks = ranks
        self._groups = Groups()
        self._columns = _Columns(self._read(path))
        if complete and self._groups.tie_products:
            numbers = self._columns.column("SUPPLIER_PID").to_pylist()
            self._columns.put(_GROUP, pa.array([self._groups.tied_to(number) for number in numbers], pa.string()))

    def head(self, depth: int) -> Sequence[Sequence[str]]:
        """Return the titles, which say when the catalogue was made and what it follows, then the headings."""
        return [*([title] for title in self._titles), list(self._columns.names)][:depth]

    def body(self, header_row: int, width: int) -> Body:  # noqa: ARG002 - one signature for all grids
        """Return the rows, numbered from 1 in the order of the file."""
        columns = [self._columns.column(name) for name in self._columns.names]
        return Body(columns, pa.array(np.arange(1, self._columns.size + 1, dtype=np.int32)), marked=False)

    def _read(self, path: Path) -> Iterator[Row]:
        events = etree.iterparse(
            str(path),
            events=("start", "end"),
            resolve_entities=False,
            load_dtd=False,
            no_network=True,
            dtd_validation=False,
            huge_tree=False,
        )
        try:
            yield from self._products(events)
        except etree.XMLSyntaxError as error:
            line = error.position[0] if error.position else 0
            raise NotText(f"it is not well-formed XML (line {line})") from None

    def _products(self, events: Any) -> Iterator[Row]:
        root = None
        for event, element in events:
            name = local_name(element)
            if root is None:
                root = element
                _refuse_entities(element)
                if name != "BMECAT":
                    raise NotText(f"it is XML, but its outermost element is {name}, not BMECAT")
            if event == "start":
                self._begin(name, element)
            elif name == "HEADER":
                self._header(element)
            elif name in PRODUCTS:
                yield from self._rows_of(element)
                _let_go(element)
            elif self._groups.read(name, element):
                _let_go(element)

    def _begin(self, name: str, element: Any) -> None:
        if name not in TRANSACTIONS:
            return
        if (before := element.get("prev_version") or "").isdecimal():
            self._titles.append(f"PREV_VERSION {before}")
        if self._complete and not TRANSACTIONS[name]:
            raise NotText(
                f"it holds changes only ({name}), and its contract is one of complete catalogues",
                "Name it as the sender's contract of changes expects, such as bmecat_update_DATE.xml, or import it with"
                " `kontor import FILE --contract bmecat_update`.",
            )

    def _header(self, header: Any) -> None:
        for element in header.iter():
            if local_name(element) == "CURRENCY":
                self._currency = text_of(element)
            if local_name(element) == "DATETIME" and element.get("type") == "generation_date":
                self._titles.append(f"GENERATION_DATE {child_text(element, 'DATE')}")

    def _rows_of(self, product: Any) -> Iterator[Row]:
        common: Row = {"MODE": product.get("mode") or ""}
        for element in product.iter():
            name = _SAME.get(local_name(element), local_name(element))
            if name in _PLAIN or name in _HIDDEN:
                common.setdefault(name, text_of(element))
        if self._complete:
            common[_GROUP] = self._groups.named_by(product)
        priced: dict[tuple[tuple[str, str], ...], Amounts] = {}
        for details in product:
            if local_name(details) in ("PRODUCT_PRICE_DETAILS", "ARTICLE_PRICE_DETAILS"):
                self._prices(details, common, priced)
        whole = all(common.get(name) for name in _CONTENT)
        left_out = _HIDDEN if whole else _HIDDEN.union(_CONTENT)
        common = {name: value for name, value in common.items() if name not in left_out}
        if not priced:
            yield common
        for key, amounts in priced.items():
            yield from _rows_with({**common, **dict(key)}, amounts)

    def _prices(self, details: Any, common: Row, priced: dict[tuple[tuple[str, str], ...], Amounts]) -> None:
        period = {
            _PERIODS[kind]: child_text(element, "DATE")
            for element in details
            if local_name(element) == "DATETIME" and (kind := element.get("type") or "") in _PERIODS
        }
        for price in details:
            if local_name(price) not in ("PRODUCT_PRICE", "ARTICLE_PRICE"):
                continue
            key = {
                "PRICE_CURRENCY": child_text(price, "PRICE_CURRENCY") or self._currency,
                "LOWER_BOUND": child_text(price, "LOWER_BOUND") or "1",
                **period,
            }
            heading = f"PRICE_AMOUNT {price.get('price_type')}"
            column, rank = self._ranks.get(fold(heading), (heading, 0))
            amounts = priced.setdefault(tuple(key.items()), {}).setdefault(column, {}).setdefault(rank, [])
            amount = _per_unit(price, common)
            if amount not in amounts:
                amounts.append(amount)


def _rows_with(common: Row, amounts: Amounts) -> Iterator[Row]:
    """One row, or more where a type of price has more than one amount."""
    first_named = {column: by_rank[min(by_rank)] for column, by_rank in amounts.items()}
    for place in range(max(map(len, first_named.values()))):
        yield common | {column: found[place] for column, found in first_named.items() if place < len(found)}


class _Columns:
    """Rows as columns, a block at a time; ``names`` are the headings under which anything stands, as first seen."""

    def __init__(self, rows: Iterator[Row]) -> None:
        self.names: dict[str, None] = {}
        self.size = 0
        self._blocks: list[tuple[int, dict[str, pa.Array]]] = []
        self._put: dict[str, pa.Array] = {}
        while block := list(islice(rows, _ROWS_AT_ONCE)):
            filled = {name: None for row in block for name, value in row.items() if value}
            self.names |= filled
            self.size += len(block)
            values = {name: pa.array([row.get(name, "") for row in block], pa.string()) for name in filled}
            self._blocks.append((len(block), values))

    def column(self, name: str) -> pa.Array:
        """The cells below a heading."""
        if name in self._put:
            return self._put[name]
        parts = [values.get(name, pa.array([""] * size, pa.string())) for size, values in self._blocks]
        return pa.concat_arrays(parts)

    def put(self, name: str, values: pa.Array) -> None:
        """Let these cells stand below the heading, whatever the rows said."""
        self.names.setdefault(name)
        self._put[name] = values


def _per_unit(price: Any, common: Row) -> str:
    """The price of one order unit; as written where it is no number, for the contract to say so."""
    amount = child_text(price, "PRICE_AMOUNT")
    try:
        factor = Decimal(child_text(price, "PRICE_FACTOR") or "1")
        each = Decimal(amount) * factor / Decimal(common.get("PRICE_QUANTITY") or "1")
    except (InvalidOperation, ZeroDivisionError):
        return amount
    return f"{each.normalize():f}" if each.is_finite() else amount


def _refuse_entities(root: Any) -> None:
    declared = root.getroottree().docinfo.internalDTD
    if declared is not None and next(declared.iterentities(), None) is not None:
        raise NotText("its XML declares entities of its own, which no catalogue needs")


def _let_go(element: Any) -> None:
    """Free the product and what stands before it, so that memory does not grow with the file."""
    element.clear()
    while element.getprevious() is not None:
        del element.getparent()[0]
