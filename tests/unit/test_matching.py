"""Keys that make spellings alike, scores that explain themselves, and the pairs of the truth sets."""

from __future__ import annotations

import logging
import math
import sys
from itertools import combinations
from pathlib import Path

import pytest
from cleanco.clean import basename, prepare_default_terms
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.errors import UsageError
from tasks.matching.candidates import candidate_pairs, find_pairs, of_field, one_to_one
from tasks.matching.keys import (
    email_key,
    gtin_key,
    name_key,
    person_key,
    phone_key,
    product_keys,
    vat_key,
    without_legal_form,
)
from tasks.matching.score import ORGANIZATION, ORGANIZATION_PRIOR, Record, score_pair
from tasks.matching.splink_batch import CLOSED, MOST_SHARING, find_by_splink, is_installed, settings_of
from tests.conftest import CAMPAIGN_FACTOR
from tests.truth_sets import febrl3, reach, restaurants


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Витоша Дистрибуция ЕООД", "VITOSHA DISTRIBUTSIYA EOOD"),
        ("Firma Przykład Sp. z o.o.", "FIRMA PRZYKLAD SP ZOO"),
        ("Nordlys A/S", "Nordlys AS"),
        ("Müller & Söhne GmbH", "Muller and Sohne"),
        ("Acme, Inc.", "ACME Incorporated"),
        ("ООО Ромашка", "Romashka"),
        ("株式会社トヨタ", "トヨタ"),
    ],
)
def test_names_are_alike_without_form_case_and_script(one: str, other: str) -> None:
    """One firm in two spellings has one key."""
    assert name_key(one) == name_key(other) is not None


def test_legal_forms_are_taken_away_as_cleanco_does() -> None:
    """Asking only the terms that can be there leaves what asking all of them leaves, for each term and two at once."""
    terms = [" ".join(words) for _, words in prepare_default_terms()]
    assert len(terms) > 200
    for one, other in zip(terms, reversed(terms), strict=True):
        for name in (f"Витоша {one}.", f"Витоша {other} {one}!", one):
            assert without_legal_form(name).split() == str(basename(name)).split()


def test_a_name_that_is_only_a_legal_form_keeps_it() -> None:
    """Two such firms must not become one nameless one."""
    assert name_key("AS") == "as"
    assert name_key("  ") is None


@pytest.mark.parametrize(
    ("number", "country", "key"),
    [
        ("BG 175 074 752", None, "BG175074752"),
        ("175074752", "BG", "BG175074752"),
        ("175074753", "BG", None),
        ("526-025-02-74", "PL", "PL5260250274"),
        ("EL 094259216", None, "GR094259216"),
        ("", "BG", None),
        ("12345", "ZZ", "ZZ12345"),
    ],
)
def test_a_tax_number_keeps_its_check_digit_or_has_no_key(number: str, country: str | None, key: str | None) -> None:
    """Spaces and the country's code do not matter; a wrong digit does."""
    assert vat_key(number, country) == key


def test_addresses_and_numbers_have_one_spelling() -> None:
    """Case, spaces and national prefixes are taken away; what cannot be one has no key."""
    assert email_key(" Anna@Firma.Example ") == "anna@firma.example"
    assert email_key("anna") is None
    assert phone_key("02/ 987 65 43", "BG") == phone_key("+359 2 9876543", None) == "+35929876543"
    assert phone_key("12", "BG") is None
    assert person_key("Anna", "Berg") == person_key("BERG", "anna") == "anna berg"


@settings(max_examples=40 * CAMPAIGN_FACTOR)
@given(st.text(max_size=60), st.sampled_from([None, "BG", "NO", "PL", "xx", ""]))
def test_no_text_breaks_a_key(text: str, country: str | None) -> None:
    """Whatever stands in a cell, a key is made or not, and made twice it is the same."""
    for key in (
        name_key(text),
        vat_key(text, country),
        email_key(text),
        phone_key(text, country),
        person_key(text, ""),
    ):
        assert key is None or key.strip()
    again = name_key(name_key(text) or "")
    assert again is None or set(again.split()) <= set((name_key(text) or "").split())


def test_naughty_strings_break_no_key(real_data: Path) -> None:
    """Neither do the strings that are known to break programs."""
    import json

    strings = json.loads((real_data / "addresses" / "names" / "blns.json").read_text("utf-8"))
    assert len(strings) > 500
    for text in strings:
        name_key(text), vat_key(text, "BG"), phone_key(text, "BG"), email_key(text)


ALFA: Record = {"name": "alfa trade", "vat": "BG1", "country": "BG", "email": "a@b.c", "phone": None}


def test_a_score_says_which_field_spoke_for_what() -> None:
    """What is missing on one side says nothing; a different tax number speaks against one name."""
    same = score_pair(ALFA, {**ALFA, "phone": "+1"}, ORGANIZATION, ORGANIZATION_PRIOR)
    assert set(same.fields) == {"name", "vat", "country", "email"}
    assert same.score > 0.999
    other = score_pair(ALFA, {**ALFA, "vat": "BG2", "email": None}, ORGANIZATION, ORGANIZATION_PRIOR)
    assert other.explained()["vat"] == {"alike": 0.0, "bits": -4.0}
    assert other.score < 0.9


@given(
    st.fixed_dictionaries({name: st.one_of(st.none(), st.text(max_size=12)) for name in ALFA}),
    st.fixed_dictionaries({name: st.one_of(st.none(), st.text(max_size=12)) for name in ALFA}),
)
def test_a_score_does_not_depend_on_who_comes_first(left: Record, right: Record) -> None:
    """Left and right are names only, and a score is a probability."""
    one = score_pair(left, right, ORGANIZATION, ORGANIZATION_PRIOR)
    other = score_pair(right, left, ORGANIZATION, ORGANIZATION_PRIOR)
    assert one.score == pytest.approx(other.score)
    assert 0 <= one.score <= 1


def test_a_key_that_very_many_share_is_passed_over() -> None:
    """A hundred records with one word meet by nothing; of two lists each record is linked once."""
    crowd: dict[int, Record] = {number: {"name": "same", "id": str(number // 2)} for number in range(100)}
    assert len(candidate_pairs(crowd, {"name": of_field("name")})) == 0
    assert len(candidate_pairs(crowd, {"id": of_field("id")})) == 50
    three, by_vat = {1: ALFA, 2: ALFA, 3: ALFA}, {"vat": of_field("vat")}
    found = find_pairs(three, by_vat, ORGANIZATION, ORGANIZATION_PRIOR, {"vat": 0.9})
    assert [(pair.left, pair.right) for pair in found] == [(1, 2), (1, 3), (2, 3)]
    assert [(pair.left, pair.right) for pair in one_to_one(found)] == [(1, 2)]


_NAMES = st.sampled_from(["alfa trade", "alfa trading", "trade alfa", "beta", "betta", "gamma x alfa", "", None])
_KEYS = st.one_of(st.none(), st.sampled_from(["1", "2", "1 2", "3"]))
_RECORDS = st.lists(
    st.fixed_dictionaries({"name": _NAMES, "vat": _KEYS, "country": _KEYS, "email": _KEYS, "phone": _KEYS}), max_size=9
)


@settings(max_examples=60 * CAMPAIGN_FACTOR)
@given(_RECORDS, st.sampled_from([0.0, 0.3, 0.92, 1.0]), st.sampled_from([0.0, 0.8]))
def test_many_at_once_are_found_as_one_by_one(rows: list[Record], by_name: float, by_vat: float) -> None:
    """Whatever the records and thresholds, arrays find the pairs that scoring each with each finds."""
    records = dict(enumerate(rows, start=7))
    thresholds = {"name": by_name, "vat": by_vat}
    blocks = {name: of_field(name) for name in thresholds}
    expected = []
    for left, right in combinations(records, 2):
        one, other = records[left], records[right]
        met = tuple(name for name in thresholds if one[name] and one[name] == other[name])
        scored = score_pair(one, other, ORGANIZATION, ORGANIZATION_PRIOR)
        if any(scored.score >= thresholds[name] for name in met):
            expected.append((left, right, scored, met))
    found = find_pairs(records, blocks, ORGANIZATION, ORGANIZATION_PRIOR, thresholds)
    assert [(pair.left, pair.right, pair.scored, pair.matched_by) for pair in found] == expected


def test_the_truth_sets_are_found(real_data: Path) -> None:
    """FEBRL 3 at F1 0.995 or better, Fodors and Zagat's at 0.97 or better."""
    folder = real_data / "deduplication"
    for truth_set, least in ((febrl3(folder), 0.995), (restaurants(folder), 0.97)):
        found = reach(truth_set)
        assert found.f1 >= least, (truth_set.name, found)


def test_a_products_name_is_its_words_and_its_figures() -> None:
    """Order, marks, decimal commas and zeros do not matter; a figure does, doubled letters do not keep two apart."""
    plain = product_keys("Kabel YMMJ 3 x 1,5 mm²")
    assert plain == product_keys("YMMJ-kabel 3x1.50mm2") == ("kabel mm ymmj", "3 1.5 2", "kbl m ymj|3 1.5 2")
    assert product_keys("Kabel YMMJ 3 x 2,5 mm²")[1:] != plain[1:]
    assert product_keys("Kabbel YMMJ 3x1.5 mm2")[2] == plain[2]
    assert product_keys('LETTER "D" KEY RING')[1] == "d"
    assert product_keys("Kabel YMMJ 3 G 1,5 mm²")[1] == "3 g 1.5 2"
    assert product_keys("  4711 ") == (None, "4711", None)
    assert product_keys(None) == (None, None, None)


def test_a_trade_item_number_gets_its_zeros_back_or_has_no_key() -> None:
    """What a spreadsheet took off in front is put back; a wrong check digit and nothing but zeros are none."""
    assert gtin_key("4006381333931") == gtin_key("04006381333931") == "04006381333931"
    assert gtin_key("96385074") == "00000096385074"
    assert (gtin_key("4006381333930"), gtin_key("0000"), gtin_key(None), gtin_key("1" * 15)) == (None,) * 4


# --- Splink -----------------------------------------------------------------------------------------------------------


needs_splink = pytest.mark.skipif(
    not is_installed(), reason="Splink is not installed here: it is the extra `duplicates`"
)


def test_splink_weighs_fields_as_the_own_comparison_does() -> None:
    """Of every comparison m and u sum up to 1, and a field that agrees or not weighs its bits."""
    weights = {field.name: field for field in ORGANIZATION}
    for comparison in settings_of()["comparisons"]:
        levels = [level for level in comparison["comparison_levels"] if "m_probability" in level]
        for side in ("m_probability", "u_probability"):
            assert sum(level[side] for level in levels) == pytest.approx(1)
            assert all(0 < level[side] < 1 for level in levels)
        bits = [math.log2(level["m_probability"] / level["u_probability"]) for level in levels]
        field = weights[comparison["output_column_name"]]
        assert bits[0] == pytest.approx(field.agree)
        assert bits == sorted(bits, reverse=True)
        assert bits[-1] == pytest.approx(field.differ, abs=0.5)


@pytest.fixture
def without_splink(monkeypatch: pytest.MonkeyPatch) -> None:
    """An installation without the extra: Python is told that there is no such package."""
    monkeypatch.setitem(sys.modules, "splink", None)


@pytest.mark.usefixtures("without_splink")
def test_without_the_extra_splink_is_refused_with_what_to_install() -> None:
    """Nothing is compared in its stead: whoever asks for Splink is told."""
    with pytest.raises(UsageError, match="not installed") as told:
        find_by_splink({}, 0.9)
    assert "duplicates" in str(told.value.hint)


@needs_splink
def test_splink_finds_what_is_spelt_otherwise(caplog: pytest.LogCaptureFixture) -> None:
    """One firm in two spellings is found with the bits its fields have here, and our evidence; two firms are not."""
    caplog.set_level(logging.INFO)
    names = {1: "vitosha distributsiya", 2: "vitosha distribucia", 3: "nordlys", 4: "sydlys shipping"}
    records: dict[int, Record] = {number: {"name": name, "country": "BG"} for number, name in names.items()}
    [pair] = find_by_splink(records, 0.5)
    assert (pair.left, pair.right, pair.matched_by) == (1, 2, ("splink",))
    assert pair.scored.score == pytest.approx(2**2.5 / (1 + 2**2.5))  # names 6, country 0.5, to begin with -4
    assert set(pair.scored.fields) == {"name", "country"}
    assert find_by_splink(records, 0.9) == find_by_splink({}, 0.5) == []
    assert caplog.records == []  # what it tells of its steps is nothing for a run's log


@needs_splink
def test_splink_passes_over_a_key_that_very_many_share() -> None:
    """One name and country of more customers than a key may have is no reason to compare them; a tax number is one."""
    many: dict[int, Record] = {n: {"name": "cash sale", "country": "BG"} for n in range(MOST_SHARING + 1)}
    assert find_by_splink(many, 0.5) == []
    taxed = {n: {**record, "vat": f"BG{n // 2}"} for n, record in many.items()}
    found = find_by_splink(taxed, 0.5)
    assert {(pair.left, pair.right) for pair in found} == {(n, n + 1) for n in range(0, MOST_SHARING, 2)}


@needs_splink
def test_the_database_of_splink_reaches_no_file_and_no_network(tmp_path: Path) -> None:
    """It reads and writes nothing but what it is given, fetches no extension, and cannot be talked out of it."""
    import duckdb

    (tmp_path / "names.csv").write_text("name\nAnna\n", encoding="utf-8")
    with duckdb.connect(":memory:", config=CLOSED) as connection:
        for statement in (
            f"select * from '{tmp_path}/names.csv'",
            f"copy (select 1) to '{tmp_path}/out.csv'",
            "install httpfs",
            "set enable_external_access = true",
        ):
            with pytest.raises(duckdb.Error, match=r"disabled|Cannot enable"):
                connection.execute(statement)
        assert connection.execute("select current_setting('temp_directory')").fetchone() == ("",)
    assert [path.name for path in tmp_path.iterdir()] == ["names.csv"]
