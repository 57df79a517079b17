"""How well and how fast records that are one are found.

First the truth sets, each with its settings: precision, recall and F1 of the pairs more likely one than two. Then
made-up customers of whom one in fifty stands twice, in capitals without a legal form, in another order, or with two
letters swapped: making their keys and comparing all of them at once, and looking one up by index as an import does.
The truth sets are read from ``KONTOR_REAL_DATA`` (default ``../shared/data``).

Run with ``.venv/bin/python -m tests.benchmarks.bench_duplicates [CUSTOMERS]`` (default 100,000).
It starts an embedded database of its own under a temporary folder and removes it.
"""

from __future__ import annotations

import os
import random
import sys
import time
from datetime import date
from pathlib import Path

from sqlalchemy import Connection, text

from configs.settings import PROJECT_ROOT
from tasks.database import OWNER, engine_for
from tasks.matching.keys_store import refresh_keys
from tasks.matching.store import fetch_records, fetch_rules, find_among, find_of
from tests.benchmarks.working import machine, own_server, show
from tests.truth_sets import fake_1000, febrl3, reach, restaurants

DAY = date(2026, 6, 15)
_PROBES = 200
_SYLLABLES = [consonant + vowel for consonant in "bdklmnrstv" for vowel in "aeio"]
_FORMS = ("AS", "EOOD", "Sp. z o.o.", "AB", "GmbH", "Ltd")
_SPELLINGS = ("capitals without a form", "words in another order", "two letters swapped")

_RUN = """
insert into ops.run_ledger (flow, actor, as_of, dry_run, host, process_id)
values ('bench', 'bench', :day, false, 'bench', 1) returning run_id
"""
_FILE = """
insert into landing.feed_files (contract, contract_version, contract_sha256, feed, source, mode, file_name, sha256,
                                byte_size, as_of, state, run_id)
values ('bench', '1', 'bench', 'organizations', 'bench', 'records', 'bench', 'bench', 1, :day, 'applied', :run_id)
returning feed_file_id
"""
_CUSTOMERS = """
insert into crm.organizations (customer_number, name, country, seen_as_of, feed_file_id)
select 'B' || n, name, 'NO', :day, :file from unnest(cast(:names as text[])) with ordinality as x(name, n)
"""


def _names(customers: int) -> tuple[list[str], int]:
    """Names of three made-up words and a form; how many stand twice, in turn in each of three other spellings."""
    chance = random.Random(20260615)
    words = ["".join(chance.choices(_SYLLABLES, k=3)).title() for _ in range(4000)]
    once = [tuple(chance.sample(words, 3)) for _ in range(customers * 49 // 50)]
    twice = [_respelt(name, place, chance) for place, name in enumerate(once[: customers - len(once)])]
    return [f"{' '.join(name)} {chance.choice(_FORMS)}" for name in once] + twice, len(twice)


def _respelt(name: tuple[str, ...], place: int, chance: random.Random) -> str:
    match place % len(_SPELLINGS):
        case 0:
            return " ".join(name).upper()
        case 1:
            return f"{name[2]}, {name[0]} {name[1]} {chance.choice(_FORMS)}"
    spelt, at = " ".join(name), chance.randrange(1, 4)
    return f"{spelt[:at]}{spelt[at + 1]}{spelt[at]}{spelt[at + 2 :]} {chance.choice(_FORMS)}"


def _fill(connection: Connection, names: list[str]) -> None:
    run_id = connection.scalar(text(_RUN), {"day": DAY})
    file = connection.scalar(text(_FILE), {"day": DAY, "run_id": run_id})
    connection.execute(text(_CUSTOMERS), {"day": DAY, "file": file, "names": names})


def _truth(folder: Path) -> None:
    lines = []
    for truth_set in (febrl3(folder), restaurants(folder), fake_1000(folder)):
        began = time.perf_counter()
        found = reach(truth_set)
        took = time.perf_counter() - began
        settings = f"prior {truth_set.prior:+.0f}; " + ", ".join(
            f"{field.name} {field.agree:+g}/{field.differ:+g}" for field in truth_set.fields
        )
        figures = (f"{found.precision:.4f}", f"{found.recall:.4f}", f"{found.f1:.4f}", f"{took:.1f}")
        lines.append((truth_set.name, len(truth_set.truth), *figures, settings))
    show("Truth sets", ("set", "true pairs", "precision", "recall", "F1", "seconds", "bits for and against"), lines)


def main(customers: int) -> None:
    """Print the truth sets, then the times."""
    print(machine())
    _truth(Path(os.environ.get("KONTOR_REAL_DATA", PROJECT_ROOT.parent / "shared" / "data")) / "deduplication")
    names, twice = _names(customers)
    with own_server() as settings, engine_for(settings, OWNER).connect() as connection:
        _fill(connection, names)
        began, worked = time.perf_counter(), time.process_time()
        ids = refresh_keys(connection, "organization")
        keyed = time.perf_counter() - began
        connection.exec_driver_sql("analyze crm.organization_keys")
        rules = fetch_rules(connection, "organization", DAY)
        began = time.perf_counter()
        pairs = find_among("organization", fetch_records(connection, "organization"), rules)
        compared, worked = time.perf_counter() - began, time.process_time() - worked
        probes = []
        for number in random.Random(1).sample(ids, min(_PROBES, len(ids))):
            began = time.perf_counter()
            find_of(connection, "organization", [number], rules)
            probes.append(time.perf_counter() - began)
        connection.rollback()
    right = sum(pair.right - pair.left == customers - twice for pair in pairs)
    slow = sorted(probes)[int(len(probes) * 0.95) - 1]
    show(
        f"{customers:,} customers, {twice:,} of them twice",
        ("what", "measured"),
        (
            ("making all keys", f"{keyed:.1f} s"),
            ("comparing all", f"{compared:.1f} s"),
            ("both, processor time of this process", f"{worked:.1f} s"),
            ("precision", f"{right / max(len(pairs), 1):.4f}"),
            ("recall", f"{right / twice:.4f}"),
            ("looking one up, p95", f"{slow * 1000:.1f} ms"),
        ),
    )


if __name__ == "__main__":
    main(int(sys.argv[1].replace(",", "")) if len(sys.argv) > 1 else 100_000)
