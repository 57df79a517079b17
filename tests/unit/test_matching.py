"""Keys that make spellings alike, scores that explain themselves, and the pairs of the truth sets."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.matching.candidates import candidate_pairs, find_pairs, of_field, one_to_one
from tasks.matching.keys import email_key, name_key, person_key, phone_key, vat_key
from tasks.matching.score import ORGANIZATION, ORGANIZATION_PRIOR, Record, score_pair
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
    assert candidate_pairs(crowd, {"name": of_field("name")}) == {}
    assert len(candidate_pairs(crowd, {"id": of_field("id")})) == 50
    found = find_pairs({1: ALFA, 2: ALFA, 3: ALFA}, {"vat": of_field("vat")}, ORGANIZATION, ORGANIZATION_PRIOR, 0.9)
    assert [(pair.left, pair.right) for pair in found] == [(1, 2), (1, 3), (2, 3)]
    assert [(pair.left, pair.right) for pair in one_to_one(found)] == [(1, 2)]


def test_the_truth_sets_are_found(real_data: Path) -> None:
    """FEBRL 3 at F1 0.995 or better, Fodors and Zagat's at 0.97 or better."""
    folder = real_data / "deduplication"
    for truth_set, least in ((febrl3(folder), 0.995), (restaurants(folder), 0.97)):
        found = reach(truth_set)
        assert found.f1 >= least, (truth_set.name, found)
