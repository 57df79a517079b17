"""A catalogue with three prices a product taken in again, 5 % changed, beside the floor and a peer, and changes alone.

Run with ``.venv/bin/python -m tests.benchmarks.bench_catalog [--products N …] [--rounds N] [--workbook ROWS]``. A
workbook is timed end to end beside the time that calamine needs to iterate over its cells. The floor is COPY of the
file and hand-written MERGEs of products and prices into tables with the columns, keys, checks, indexes and foreign keys
of the real ones, history of prices included: nothing is read confined, checked, measured or remembered. What a file of
changes costs must follow the changes and not the catalogue, so files of 10, 1,000 and 10,000 of them are timed alone.
"""

from __future__ import annotations

import argparse
import csv
import random
from datetime import date, timedelta
from functools import partial
from pathlib import Path

import xlsxwriter
from python_calamine import CalamineWorkbook
from sqlalchemy import Connection, text

from configs.settings import Settings
from tasks.database import OWNER, engine_for
from tasks.feeds.confined import warm_up
from tests.benchmarks import peer
from tests.benchmarks.working import Clock, PeakMemory, driver_of, machine, own_server, show, take_in

SIZES = (10_000, 100_000, 1_000_000)
HEADINGS = ("part_number", "name", "category", "unit", "currency", "customer_price", "dealer_price", "promo_price")
FIRST = date(2026, 1, 5)
CHANGED = 0.05
DELTAS = (10, 1_000, 10_000)


def write_changes(path: Path, products: int, count: int, round_number: int) -> Path:
    """Write a file of ``count`` repriced products, spread over the catalogue."""
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(HEADINGS)
        for number in range(0, products, max(products // count, 1)):
            writer.writerow(_row(number, 1_000 + number % 90_000 + 300 + round_number))
    return path


def _row(number: int, cents: int) -> tuple[str, ...]:
    prices = [f"{cents * share / 10_000:.2f}" for share in (100, 80, 70)]
    return (f"P-{number:07}", f"Product number {number}", f"Group {number % 40}", "C62", "EUR", *prices)


def write_catalogue(path: Path, products: int, week: int) -> Path:
    """Write the catalogue of a week; each week another 5 % of the prices differ from the first ones."""
    chance = random.Random(week)
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(HEADINGS)
        for number in range(products):
            changed = week > 0 and chance.random() < CHANGED
            cents = 1_000 + number % 90_000 + (week if changed else 0)
            writer.writerow(_row(number, cents))
    return path


_CREATE = """
create schema if not exists bench;
drop table if exists bench.floor_staged, bench.floor_prices, bench.floor_products;
create unlogged table bench.floor_staged (
    part_number text, name text, category text, unit text, currency text, customer_price numeric(19, 4),
    dealer_price numeric(19, 4), promo_price numeric(19, 4));
create table bench.floor_products (like crm.products including all);
create table bench.floor_prices (like crm.product_prices including all);
alter table bench.floor_products add foreign key (feed_file_id) references landing.feed_files;
alter table bench.floor_prices add foreign key (product_id) references bench.floor_products,
    add foreign key (feed_file_id) references landing.feed_files;
"""
_PRODUCTS = """
merge into bench.floor_products t
using (select upper(replace(part_number, '-', '')) as part_key, s.* from bench.floor_staged s) s
on t.source = 'floor' and t.part_key = s.part_key
when matched and (t.part_number, t.name, t.category, t.unit)
    is distinct from (s.part_number, s.name, s.category, s.unit)
    then update set part_number = s.part_number, name = s.name, category = s.category, unit = s.unit,
        feed_file_id = :file
when not matched then insert (source, part_key, part_number, name, category, unit, feed_file_id)
    values ('floor', s.part_key, s.part_number, s.name, s.category, s.unit, :file)
"""
_WANTED = """
select p.product_id, k.kind, s.currency, s.unit, k.amount
from bench.floor_staged s
join bench.floor_products p on p.source = 'floor' and p.part_key = upper(replace(s.part_number, '-', ''))
cross join lateral (values ('customer', s.customer_price), ('dealer', s.dealer_price), ('promo', s.promo_price))
    k(kind, amount)
"""
_ENDED = f"""
merge into bench.floor_prices t using ({_WANTED}) s
on t.product_id = s.product_id and t.kind = s.kind and t.currency = s.currency and t.unit = s.unit
   and t.min_quantity = 1 and t.valid_until is null
when matched and t.amount <> s.amount then update set valid_until = :as_of
"""
_BEGUN = f"""
merge into bench.floor_prices t using ({_WANTED}) s
on t.product_id = s.product_id and t.kind = s.kind and t.currency = s.currency and t.unit = s.unit
   and t.min_quantity = 1 and t.valid_until is null
when not matched then insert (product_id, kind, currency, unit, min_quantity, valid_from, amount, feed_file_id)
    values (s.product_id, s.kind, s.currency, s.unit, 1, :as_of, s.amount, :file)
"""


def load_floor(settings: Settings, path: Path, as_of: date) -> None:
    """COPY the file and MERGE products and prices, with the memory that the import gives itself."""
    with engine_for(settings, OWNER).begin() as connection:
        connection.exec_driver_sql("set local work_mem = '192MB'")
        connection.exec_driver_sql("truncate bench.floor_staged")
        copy = "copy bench.floor_staged from stdin (format csv, header)"
        with path.open("rb") as file, driver_of(connection).cursor() as cursor, cursor.copy(copy) as target:
            while block := file.read(1 << 20):
                target.write(block)
        connection.exec_driver_sql("analyze bench.floor_staged, bench.floor_products, bench.floor_prices")
        parameters = {
            "as_of": as_of,
            "file": connection.scalar(text("select max(feed_file_id) from landing.feed_files")),
        }
        for statement in (_PRODUCTS, _ENDED, _BEGUN):
            connection.execute(text(statement), parameters)


def measure_workbook(settings: Settings, rows: int, rounds: int) -> Clock:
    """Take an .xlsx in, first whole and then as it was, beside a bare iteration over its cells."""
    path = settings.home / "bench" / "catalog.xlsx"
    path.parent.mkdir(exist_ok=True)
    with xlsxwriter.Workbook(path, {"constant_memory": True}) as book:
        sheet = book.add_worksheet("Catalogue")
        sheet.write_row(0, 0, HEADINGS)
        for number in range(rows):
            *texts, customer, dealer, promo = _row(number, 1_000 + number % 90_000)
            sheet.write_row(number + 1, 0, (*texts, float(customer), float(dealer), float(promo)))
    clock = Clock()
    clock.measure("first import", partial(take_in, settings, path, "catalog", FIRST))
    for week in range(1, rounds + 1):
        clock.measure("calamine iterates", partial(_iterate, path))
        clock.measure("import", partial(take_in, settings, path, "catalog", FIRST + timedelta(weeks=week)))
    return clock


def _iterate(path: Path) -> int:
    return sum(len(row) for row in CalamineWorkbook.from_path(str(path)).get_sheet_by_index(0).iter_rows())


def _create(connection: Connection) -> None:
    driver_of(connection).execute(_CREATE)


def measure(settings: Settings, products: int, rounds: int) -> tuple[Clock, float]:
    """Load the first catalogue everywhere, then let the ways take turns; returns the clock and the peak in MB."""
    folder = settings.home / "bench"
    folder.mkdir(exist_ok=True)
    clock = Clock()
    with engine_for(settings, OWNER).begin() as connection:
        _create(connection)
    first = write_catalogue(folder / "catalog_0.csv", products, 0)
    with PeakMemory() as peak_of_first:
        clock.measure("first import", partial(take_in, settings, first, "catalog", FIRST))
    most = peak_of_first.megabytes
    clock.measure("first floor", partial(load_floor, settings, first, FIRST))
    if peer.is_there():
        peer.load_catalogue(settings, first)
    for week in range(1, rounds + 1):
        day = FIRST + timedelta(weeks=week)
        path = write_catalogue(folder / f"catalog_{week}.csv", products, week)
        clock.measure("floor", partial(load_floor, settings, path, day))
        with PeakMemory() as peak:
            clock.measure("import", partial(take_in, settings, path, "catalog", day))
        most = max(most, peak.megabytes)
        for place, count in enumerate(DELTAS, start=1):
            changes = write_changes(folder / "delta.csv", products, count, week)
            work = partial(take_in, settings, changes, "catalog_delta", day + timedelta(days=place))
            clock.measure(f"changes of {count:,}", work)
        if peer.is_there():
            clock.measure("dlt merge", partial(peer.load_catalogue, settings, path))
        print({name: [round(second, 2) for second in taken] for name, taken in clock.seconds.items()}, flush=True)
    return clock, most


def main() -> None:
    """Measure and print the ratios."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--products", type=int, nargs="*", default=SIZES)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workbook", type=int, default=50_000)
    chosen = parser.parse_args()
    warm_up()
    with own_server() as settings:
        clock = measure_workbook(settings, chosen.workbook, chosen.rounds)
    lines = [(name, f"{clock.least(name):.2f}") for name in clock.seconds]
    show(f"A workbook of {chosen.workbook:,} products; {machine()}", ("work", "seconds"), lines)
    rows: list[tuple[str, ...]] = []
    for products in chosen.products:
        with own_server() as settings:
            clock, peak = measure(settings, products, chosen.rounds)
        floor = clock.least("floor")
        rows += [
            (f"{products:,}", name, f"{clock.least(name):.2f}", f"{clock.least(name) / floor:.2f}")
            for name in clock.seconds
        ]
        print(f"{products:,} products: at most {peak:.0f} MB held")
    if rows:
        title = f"A catalogue with three prices a product, 5 % changed; {machine()}"
        show(title, ("products", "way", "seconds", "ratio to the floor"), rows)


if __name__ == "__main__":
    main()
