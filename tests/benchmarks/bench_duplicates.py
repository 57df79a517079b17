"""How well and how fast records that are one are found.

First the truth sets, each with its settings: precision, recall and F1 of the pairs more likely one than two. Then
made-up customers of whom one in fifty stands twice, in capitals without a legal form, in another order, or with two
letters swapped: making their keys and comparing all of them at once, and looking one up by index as an import does.
The truth sets are read from ``KONTOR_REAL_DATA`` (default ``../shared/data``). Where the extra ``duplicates`` is
installed, Splink stands beside: trained by itself on the truth sets, and with our weights, as ``--splink`` asks it, on
the customers.

Run with ``.venv/bin/python -m tests.benchmarks.bench_duplicates [CUSTOMERS]`` (default 100,000).
It starts an embedded database of its own under a temporary folder and removes it.
"""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from pathlib import Path

from sqlalchemy import Connection, text

from configs.settings import PROJECT_ROOT
from tasks.database import OWNER, engine_for
from tasks.matching.candidates import Pair
from tasks.matching.keys_store import refresh_keys
from tasks.matching.score import Record
from tasks.matching.splink_batch import find_by_splink, is_installed
from tasks.matching.store import fetch_records, fetch_rules, find_among, find_of
from tests.benchmarks.splink_peer import reach_by_splink
from tests.benchmarks.working import machine, own_server, show
from tests.truth_sets import Reached, TruthSet, fake_1000, febrl3, reach, restaurants

DAY = date(2026, 6, 15)
_PROBES = 200
_THRESHOLD = 0.92  # of the rule of names that a new installation has
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
        settings = f"prior {truth_set.prior:+.0f}; " + ", ".join(
            f"{field.name} {field.agree:+g}/{field.differ:+g}" for field in truth_set.fields
        )
        lines.append(_line(truth_set, truth_set.name, reach, settings))
        if is_installed():
            lines.append(_line(truth_set, f"{truth_set.name}, Splink", reach_by_splink, "trained by itself"))
    told = [line for line in lines if line]
    show("Truth sets", ("set", "true pairs", "precision", "recall", "F1", "seconds", "bits for and against"), told)


def _line(
    truth_set: TruthSet, name: str, find: Callable[[TruthSet], Reached | None], settings: str
) -> Sequence[object]:
    began = time.perf_counter()
    found = find(truth_set)
    if found is None:
        return ()
    took = time.perf_counter() - began
    figures = (f"{found.precision:.4f}", f"{found.recall:.4f}", f"{found.f1:.4f}", f"{took:.1f}")
    return (name, len(truth_set.truth), *figures, settings)


def _by_splink(records: Mapping[int, Record], pairs: Sequence[Pair], apart: int, twice: int) -> list[tuple[str, str]]:
    """What Splink finds among the customers with our weights, and what of it we do not; nothing without the extra.

    Of two customers that are one the numbers lie ``apart`` from each other.
    """
    if not is_installed():
        return []
    began = time.perf_counter()
    found = find_by_splink(records, _THRESHOLD)
    took = time.perf_counter() - began
    right = sum(pair.right - pair.left == apart for pair in found)
    known = {(pair.left, pair.right) for pair in pairs}
    return [
        ("Splink: comparing all", f"{took:.1f} s"),
        ("Splink: precision; recall", f"{right / max(len(found), 1):.4f}; {right / twice:.4f}"),
        ("Splink: pairs that we do not find", str(sum((pair.left, pair.right) not in known for pair in found))),
    ]


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
        records = fetch_records(connection, "organization")
        pairs = find_among("organization", records, rules)
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
            *_by_splink(records, pairs, customers - twice, twice),
        ),
    )


if __name__ == "__main__":
    main(int(sys.argv[1].replace(",", "")) if len(sys.argv) > 1 else 100_000)
