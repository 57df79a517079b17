"""Contracts: what is inherited, what is refused, and that those shipped are whole."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import pytest
import yaml

from tasks.errors import BadInput, UsageError
from tasks.feeds.contract_files import CONTRACTS_FOLDER, EXAMPLES_FOLDER
from tasks.feeds.contracts import list_contracts, load_contract
from tasks.feeds.custom_properties import AS_OF, COLUMN_PROPERTIES, CONTRACT_PROPERTIES, DIALECT
from tasks.feeds.intake import find_inbox_files, installed_contracts
from tests.unit.feeds.conftest import Extend

SHIPPED = sorted(path.stem for folder in (CONTRACTS_FOLDER, EXAMPLES_FOLDER) for path in folder.glob("*.yaml"))


def test_there_are_contracts_to_test() -> None:
    """The four feeds and the example senders are found, so that the tests below are not empty."""
    assert {"open_items", "settled_items", "organizations", "contacts", "highradius"} <= set(SHIPPED)


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_contract_is_valid_and_whole(name: str) -> None:
    """Each contract loads, has a key, an owner, a description for every column, and survives a process boundary."""
    contract = load_contract(name)
    assert contract.key
    assert contract.owner
    assert contract.description
    assert all(column.description for column in contract.columns)
    assert re.fullmatch("[0-9a-f]{64}", contract.sha256)
    assert pickle.loads(pickle.dumps(contract)) == contract


def test_the_listing_holds_the_feeds_without_examples() -> None:
    """Listing gives the project's own contracts; examples load by name only, so none claims a file by accident."""
    assert [contract.name for contract in list_contracts()] == [
        "bmecat",
        "bmecat_update",
        "catalog",
        "catalog_delta",
        "catalog_prices",
        "catalog_stock",
        "contacts",
        "corrected_contacts",
        "corrected_organizations",
        "currency_rates",
        "open_items",
        "organizations",
        "payments",
        "settled_items",
    ]


def test_a_contract_is_judged_as_a_whole_before_a_file_is_read_by_it(tmp_path: Path) -> None:
    """A word that the standard does not know keeps nobody from reading by other contracts, but from reading by this."""
    inbox, own = tmp_path / "inbox", tmp_path / "contracts"
    for folder in (inbox, own):
        folder.mkdir()
    text = (EXAMPLES_FOLDER / "tripletex_open_items.yaml").read_text("utf-8")
    slip = text.replace("kind: DataContract", "kind: DataKontract", 1)
    (own / "mine.yaml").write_text(slip, "utf-8")
    (inbox / "open_items_2026-11-16.csv").touch()
    (found,) = find_inbox_files(inbox, installed_contracts(tmp_path, ["open_items"]))
    assert found.contract == load_contract("open_items")
    (own / "mine.yaml").write_text(slip.replace("apne_poster*", "open_items*", 1), "utf-8")
    with pytest.raises(BadInput, match="kind: 'DataKontract' is not one of"):
        find_inbox_files(inbox, installed_contracts(tmp_path, ["open_items"]))


def test_a_misspelt_key_is_told_by_whoever_lists_contracts(tmp_path: Path) -> None:
    """A contract with a key too many is refused in the words of the standard, not passed over."""
    text = (EXAMPLES_FOLDER / "tripletex_open_items.yaml").read_text("utf-8")
    (tmp_path / "mine.yaml").write_text(text.replace("description:", "descriptoin:", 1), "utf-8")
    with pytest.raises(BadInput, match="'descriptoin' was unexpected"):
        list_contracts(tmp_path)


@pytest.mark.parametrize(
    "slip", ["customProperties: 3", "customProperties: [{property: x}]", "schema: 3", "schema: [3]"]
)
def test_another_shape_is_told_in_the_words_of_the_standard(tmp_path: Path, slip: str) -> None:
    """What is YAML and no contract is bad input that names the place, however far from a contract's shape it is."""
    name = slip.partition(":")[0]
    path = tmp_path / "mine.yaml"
    path.write_text(f"{HEAD}{slip}\n", "utf-8")
    with pytest.raises(BadInput, match=rf"mine\.yaml(?s:.*){name}"):
        load_contract(path)
    with pytest.raises(BadInput, match=name):
        list_contracts(tmp_path)


def test_columns_of_the_public_interface() -> None:
    """The contracts have the columns that users rely on, in their order."""
    open_items = load_contract("open_items")
    staged = [column.name for column in open_items.columns if column.staged]
    assert " ".join(staged) == (
        "customer_number customer_name invoice_number document_type issue_date due_date currency amount open_amount "
        "disputed note"
    )
    assert load_contract("settled_items").column_names == (*open_items.column_names, "settled_date")
    assert " ".join(load_contract("organizations").column_names) == (
        "customer_number name country language vat_number currency payment_terms_days segment owner contacted_on"
    )
    assert " ".join(load_contract("contacts").column_names) == (
        "customer_number first_name last_name email phone language roles valid_from valid_to"
    )


def test_names_and_addresses_are_classified_personal() -> None:
    """Columns that name or reach a person say so in the contract."""
    personal = {column.name for column in load_contract("contacts").columns if column.personal}
    assert personal == {"first_name", "last_name", "email", "phone"}


def test_a_child_inherits_and_overrides(extend: Extend) -> None:
    """A sender adds a heading in front, a totals word, a constant, and softens a check; all else stays the parent's."""
    parent = load_contract("open_items")
    child = extend(
        "open_items",
        columns={"invoice_number": {"aliases": ["Belegnummer"]}, "currency": {"constant": "EUR"}},
        quality=[{"name": "due_not_before_issue", "type": "custom", "engine": "kontor", "severity": "warning",
                  "implementation": {}}],
        dialect={"decimal": ",", "totals": ["Gesamt"]},
        source="acme",
    )  # fmt: skip
    assert child.column("invoice_number").aliases == ("Belegnummer", *parent.column("invoice_number").aliases)
    assert child.column("currency").constant == "EUR"
    assert child.dialect.totals == ("Gesamt", *parent.dialect.totals)
    assert child.dialect.decimal == ","
    assert child.dialect.header_depth == parent.dialect.header_depth
    assert [check.severity for check in child.checks if check.name == "due_not_before_issue"] == ["warn"]
    assert (child.feed, child.source, child.extends) == ("open_items", "acme", ("open_items",))
    assert child.column("amount") == parent.column("amount")


def test_whose_ledger_it_is_does_not_pass_on(extend: Extend) -> None:
    """A child without a source of its own is its own ledger, so that it cannot settle its parent's items."""
    assert load_contract("open_items").source == "accounting"
    assert extend("open_items").source == "sender"


def test_a_check_can_be_switched_off(extend: Extend) -> None:
    """Severity off removes an inherited check for this sender."""
    child = extend("open_items", quality=[{"name": "due_within_reason", "type": "custom", "engine": "kontor",
                                           "severity": "off", "implementation": {}}])  # fmt: skip
    assert "due_within_reason" not in {check.name for check in child.checks}


def test_the_digest_sees_a_change_in_an_ancestor(tmp_path: Path) -> None:
    """The sha256 is taken over the effective contract: a change in the parent changes the child's."""
    parent = (CONTRACTS_FOLDER / "open_items.yaml").read_text(encoding="utf-8")
    child = (EXAMPLES_FOLDER / "tripletex_open_items.yaml").read_text(encoding="utf-8")
    (tmp_path / "open_items.yaml").write_text(parent, encoding="utf-8")
    (tmp_path / "child.yaml").write_text(child, encoding="utf-8")
    before = load_contract(tmp_path / "child.yaml").sha256
    (tmp_path / "open_items.yaml").write_text(parent.replace("headerDepth: 30", "headerDepth: 31"), encoding="utf-8")
    assert load_contract(tmp_path / "child.yaml").sha256 != before


def test_an_unknown_name_is_answered_with_those_that_exist() -> None:
    """A name that is not there is a usage error that lists the contracts and guesses the nearest."""
    with pytest.raises(UsageError, match="organizations") as error:
        load_contract("open_item")
    assert error.value.hint == "Did you mean open_items?"


def _broken(tmp_path: Path, text: str) -> str:
    path = tmp_path / "broken.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(BadInput) as error:
        load_contract(path)
    assert error.value.hint
    return error.value.message


HEAD = "apiVersion: v3.1.0\nkind: DataContract\nid: broken\nversion: 1.0.0\nstatus: active\n"


def test_every_defect_is_named_at_once(tmp_path: Path) -> None:
    """Misspelt properties, wrong values and wrong formats come in one message, each with place, found and expected."""
    message = _broken(
        tmp_path,
        HEAD
        + """
customProperties:
  - {property: extends, value: open_items}
  - {property: mode, value: snapshots}
  - {property: dialekt, value: {}}
  - {property: dialect, value: {decimal: "'", encodings: [utf-99], dateFormats: [dd.mm]}}
schema:
  - name: open_items
    properties:
      - name: amount
        customProperties:
          - {property: alias, value: [Betrag]}
          - {property: scale, value: "2"}
""",
    )
    assert message.startswith("broken.yaml is not a valid feed contract; 7 defect(s)")
    for part in (
        "mode: found 'snapshots'; expected one of snapshot, ledger, records",
        "dialekt: found an unknown name; did you mean dialect?",
        'dialect.decimal: found "\'"',
        "dialect.encodings: found ['utf-99']",
        "dialect.dateFormats: found ['dd.mm']",
        "'amount', alias: found an unknown name; did you mean aliases?",
        "'amount', scale: found '2'; expected a whole number from 0 to 4",
    ):
        assert part in message


def test_a_key_that_the_standard_does_not_know_is_refused(tmp_path: Path) -> None:
    """A misspelt key of the standard itself is a defect, not silence."""
    message = _broken(tmp_path, HEAD + "schema:\n  - name: x\n    propertys: []\n")
    assert "propertys" in message


def test_a_key_given_twice_is_refused(tmp_path: Path) -> None:
    """YAML would take the last one without a word."""
    assert "found key 'status' twice" in _broken(tmp_path, HEAD + "status: draft\n")


def test_a_circle_of_contracts_is_refused(tmp_path: Path) -> None:
    """A contract that extends itself is refused instead of read for ever."""
    text = HEAD + "customProperties:\n  - {property: extends, value: broken.yaml}\nschema: [{name: x}]\n"
    assert "broken → broken" in _broken(tmp_path, text)


def test_no_stays_a_word(tmp_path: Path) -> None:
    """The country code NO and the answer no are texts in a contract, quoted or not."""
    contract = load_contract("open_items")
    assert contract.column("disputed").values["no"] == "no"
    assert load_contract("tripletex_customers").column("country").default == "NO"


def test_both_orders_of_day_and_month_need_a_decision(extend: Extend) -> None:
    """A contract that names d/m/yyyy and m/d/yyyy is refused unless it says that the sender mixes them."""
    formats = {"dateFormats": ["d/m/yyyy", "m/d/yyyy"]}
    with pytest.raises(BadInput, match="expected one order of day and month"):
        extend("open_items", dialect=formats)
    assert extend("open_items", dialect=formats | {"mixedDayAndMonth": True}).dialect.mixed_day_and_month


def test_an_alias_of_two_columns_is_refused(extend: Extend) -> None:
    """A heading must mean one column of a contract."""
    with pytest.raises(BadInput, match="'Kwota' means both"):
        extend("open_items", columns={"open_amount": {"aliases": ["Kwota"]}})


def test_names_that_would_stand_in_sql_are_plain(tmp_path: Path) -> None:
    """A column or check whose name is more than letters, digits and underscores is refused: it stands in statements."""
    message = _broken(
        tmp_path,
        HEAD
        + """
schema:
  - name: items
    properties:
      - {name: "note text); drop table crm.invoices; --", logicalType: string}
      - {name: Amount, logicalType: number}
    quality:
      - {name: "it's wrong", type: custom, engine: kontor, implementation: {}}
""",
    )
    expected = "expected [a-z][a-z0-9_]{0,62}"
    assert f"name: found 'note text); drop table crm.invoices; --'; {expected}" in message
    assert f"name: found 'Amount'; {expected}" in message
    assert f'name: found "it\'s wrong"; {expected}' in message


@pytest.mark.parametrize("name", ["../../etc", "a/b", "Items", "items\\n", "ä", ".", "1items", "a" * 64])
def test_an_id_that_is_no_plain_name_is_refused(tmp_path: Path, name: str) -> None:
    """The id names a folder of the archive, so it can neither leave it nor differ by case alone."""
    message = _broken(tmp_path, HEAD.replace("id: broken", f'id: "{name}"') + "schema: [{name: items}]\n")
    assert "id: found" in message
    assert "expected [a-z][a-z0-9_-]{0,62}" in message


def _check(sql: object) -> list[dict[str, object]]:
    implementation = {"sql": sql, "columns": ["amount"], "reason": "amount {amount}"}
    return [{"name": "probe", "type": "custom", "engine": "kontor", "implementation": implementation}]


@pytest.mark.parametrize(
    ("sql", "found"),
    [
        ("amount > 0; drop table crm.invoices", ";"),
        ("amount > 0 -- and so on", "--"),
        ("amount > 0 /* and */", "/*"),
        ("exists (SELECT 1)", "select"),
        ("amount in (table crm.invoices)", "table"),
        ("'a'from'b' is null", "from"),
        ("note = 'it''s' or (with x as (delete)) is null", "with"),
        ("note = E'\\' or select'", "e'"),
        ("note = $$ ' $$", "$"),
        ("note = 'open", "'"),
        ("true) or (true", "parentheses that do not pair"),
        ("(true", "parentheses that do not pair"),
        ("", "''"),
        (["amount > 0"], "['amount > 0']"),
    ],
)
def test_a_check_that_is_more_than_a_condition_is_refused(extend: Extend, sql: object, found: str) -> None:
    """Statements, comments, unusual quoting and parentheses that lead out of the condition are named and refused."""
    with pytest.raises(BadInput) as error:
        extend("open_items", quality=_check(sql))
    assert f"quality 'probe', implementation.sql: found {found}" in error.value.message


@pytest.mark.parametrize(
    "sql",
    [
        "note <> 'select; from -- /* ('",
        '"from" is null or offset_days > 0',
        "note like 'it''s (%' or date '2026-01-01' < due_date",
        "amount::numeric(19, 4) > 0 or from_date is null or reset_by = 'with'",
    ],
)
def test_words_in_quotation_marks_and_in_names_are_no_statements(extend: Extend, sql: str) -> None:
    """Texts, quoted names and longer names may hold the words that a condition may not."""
    assert extend("open_items", quality=_check(sql)).checks[-1].sql == sql


def test_contracts_are_documents_of_the_standard() -> None:
    """The four feeds state the version of the standard and the kind of document."""
    for path in sorted(CONTRACTS_FOLDER.glob("*.yaml")):
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert (document["apiVersion"], document["kind"]) == ("v3.1.0", "DataContract")


def test_the_reference_page_describes_every_custom_property() -> None:
    """Each name of the vocabulary has its line in a table of the page, and no line describes a name that is gone."""
    page = (CONTRACTS_FOLDER.parents[1] / "docs" / "reference" / "contracts.md").read_text(encoding="utf-8")
    _, _, tables = page.partition("## Custom properties of a contract")
    described = re.findall(r"^\| `(\w+)` \|", tables, re.MULTILINE)
    assert sorted(described) == sorted([*CONTRACT_PROPERTIES, *DIALECT, *AS_OF, *COLUMN_PROPERTIES])
