"""The letters: in five languages, with sums and plurals of each, and harmless whatever a name or number holds."""

from __future__ import annotations

import email
import io
import json
import re
from datetime import UTC, date, datetime
from decimal import Decimal
from email import policy
from pathlib import Path
from typing import Any

import openpyxl
import pytest

from configs.settings import PROJECT_ROOT, Settings
from tasks.errors import UsageError
from tasks.letters import Letter, Mailbox
from tasks.mailer import Packer, inline_css
from tasks.reminders.sending.digest import MOST_ROWS, Office, compose
from tasks.reminders.sending.gate import OpenItem, Person
from tasks.reminders.sending.printed_statement import ROWS_A_PAGE
from tasks.reminders.sending.queue_store import Cleared
from tasks.reminders.sending.templates import Templates, with_css_inside

DAY = date(2026, 3, 20)
NOON = datetime(2026, 3, 20, 12, tzinfo=UTC)
OFFICE = Office("Kontor & Sons", Mailbox("office@kontor.example"), Mailbox("office@kontor.example"))
LANGUAGES = ("bg", "pl", "nb", "sv", "en")
STAGES = ("upcoming", "first", "second", "final")
TEMPLATES = Templates([PROJECT_ROOT / "configs" / "templates"], inline_css)


def item(number: int, amount: str = "100", currency: str = "EUR", due: date = date(2026, 3, 1)) -> OpenItem:
    """An invoice of February."""
    sum_ = Decimal(amount)
    return OpenItem(number, f"I-{number}", "accounting", sum_ < 0, date(2026, 2, 1), due, currency, sum_, sum_, False)


def cleared(*kept: OpenItem, **changed: Any) -> Cleared:
    """A mail that may leave, changed as a test needs it."""
    given: dict[str, Any] = {
        "reminder_id": 7, "attempt": 1, "message_id": "<reminder.7@kontor.example>", "thread": None, "stage": "first",
        "sequence": 1, "template": "first", "language": "en", "attachment": "none", "cc": None,
        "recipient": Person(5, "anna@customer.example", "Anna", "Smith", frozenset({"payments"})),
        "customer_number": "C-1", "customer_name": "Customer", "country": "BG", "owner": "", "kept": kept or (item(1),),
        "also_open": (), "due_soon": (), "credits": (), "unmatched": {}, "figures": {},
    }  # fmt: skip
    return Cleared(**{**given, **changed})


def letter(mail: Cleared) -> Letter:
    """Its letter."""
    return compose(mail, TEMPLATES, OFFICE, DAY, NOON)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_is_written_in_every_language(language: str, stage: str) -> None:
    """Subject, HTML and text name the items and the sum, nothing is left of the template, and the tones differ."""
    due = date(2026, 3, 25) if stage == "upcoming" else date(2026, 3, 1)
    kept = tuple(item(number, "1234.50", due=due) for number in (1, 2, 3))
    made = letter(cleared(*kept, stage=stage, template=stage, language=language))
    english = letter(cleared(*kept, stage=stage, template=stage, language="en"))
    assert made.html is not None
    for text in (made.subject, made.text, made.html):
        assert not re.search(r"{{|{%|kept\d+tpek|None|Undefined", text)
    assert (made.subject == english.subject) == (language == "en")
    for number in ("I-1", "I-2", "I-3"):
        assert number in made.text
        assert number in made.html
    assert "3" in made.subject
    assert "703" in made.subject
    subjects = {letter(cleared(*kept, stage=one, template=one, language=language)).subject for one in STAGES}
    assert len(subjects) == len(STAGES)


@pytest.mark.parametrize(
    ("language", "count", "said"),
    [
        ("pl", 1, "1 faktura"), ("pl", 3, "3 faktury"), ("pl", 5, "5 faktur"), ("pl", 22, "22 faktury"),
        ("bg", 1, "1 фактура"), ("bg", 2, "2 фактури"), ("nb", 1, "1 faktura"), ("nb", 2, "2 fakturaer"),
        ("sv", 2, "2 fakturor"), ("en", 1, "1 invoice"), ("en", 2, "2 invoices"),
    ],
)  # fmt: skip
def test_plurals_are_those_of_the_language(language: str, count: int, said: str) -> None:
    """Polish has three forms, the others two."""
    assert said in letter(cleared(*(item(n) for n in range(count)), language=language)).subject


def test_sums_of_different_currencies_stand_apart() -> None:
    """Each currency has its total; credits and unmatched money are shown in theirs."""
    mail = cleared(item(1, "100"), item(2, "50", "PLN"), credits=(item(3, "-30"),), unmatched={"PLN": Decimal("5")})
    made = letter(mail)
    assert "€100.00, PLN" in made.subject
    assert "To pay after credits: €70.00" in made.text
    assert "Received and not yet matched: PLN" in made.text
    assert "150" not in made.text


@pytest.mark.parametrize(
    ("wanted", "found"), [("no", "nb"), ("nn-NO", "nb"), ("bg_BG", "bg"), ("fr", "en"), ("", "en"), ("../x", "en")]
)
def test_a_language_without_templates_falls_back(wanted: str, found: str) -> None:
    """The nearest language, else English; nothing outside the folders is ever read."""
    assert TEMPLATES.language_for(wanted, "first") == found


def test_a_template_that_is_missing_or_wrong_is_named(tmp_path: Path) -> None:
    """An installation's own templates come first; a mistake in one is told by its name and line, without data."""
    with pytest.raises(UsageError, match="no template 'third'"):
        letter(cleared(template="third"))
    (tmp_path / "en").mkdir()
    folders = [tmp_path, PROJECT_ROOT / "configs" / "templates"]
    own = "{% extends layout %}{% block subject %}Own{% endblock %}{% block opening %}"
    for body, mistake in (("{{ nothing }}", "UndefinedError"), ("{% if %}", "TemplateSyntaxError in line 1")):
        (tmp_path / "en" / "first.jinja").write_text(
            f"{own}{body}{{% endblock %}}{{% block closing %}}{{% endblock %}}"
        )
        with pytest.raises(UsageError, match=f"en/first.jinja cannot be used: {mistake}") as error:
            compose(cleared(), Templates(folders, inline_css), OFFICE, DAY, NOON)
        assert "Anna" not in error.value.message


def test_no_name_or_number_does_anything(real_data: Path) -> None:
    """Names and numbers known to break programs are shown: no tag, no header and no link comes of them."""
    naughty = json.loads((real_data / "addresses" / "names" / "blns.json").read_text("utf-8"))[::5]
    plain = letter(cleared())
    tags = re.findall(r"<(\w+)", str(plain.html))
    for text in naughty:
        person = Person(5, "anna@customer.example", text, "", frozenset({"payments"}))
        made = letter(cleared(item(1)._replace(invoice_number=text or "-"), recipient=person, customer_number=text))
        assert re.findall(r"<(\w+)", str(made.html)) == tags
        parsed = email.message_from_bytes(Packer(Settings()).pack(made).content, policy=policy.compat32)
        assert parsed.keys() == [
            "Content-Type", "MIME-Version", "Date", "Message-ID", "Auto-Submitted", "X-Auto-Response-Suppress",
            "Subject", "From", "To", "Reply-To",
        ]  # fmt: skip


def test_a_statement_holds_every_item_as_text_and_numbers() -> None:
    """It comes when the rule says so or the list is long; a number that looks like a formula stays text."""
    assert letter(cleared()).attachments == ()
    many = tuple(item(number) for number in range(MOST_ROWS + 3))
    made = letter(cleared(*many))
    assert "and 3 more" in made.text
    assert len(made.attachments) == 1
    evil = item(1)._replace(invoice_number='=HYPERLINK("http://x","y")')
    [file] = letter(cleared(evil, item(2, "12.5", "PLN"), attachment="xlsx", language="sv")).attachments
    assert file.file_name == "kontoutdrag_2026-03-20.xlsx"
    sheet = openpyxl.load_workbook(io.BytesIO(file.content)).active
    assert sheet is not None
    rows = [[cell.value for cell in row] for row in sheet.iter_rows()]
    assert rows[1][0] == '\'=HYPERLINK("http://x","y")'
    assert {cell.data_type for row in sheet.iter_rows() for cell in row} <= {"s", "n", "d"}
    assert [(row[4], row[6]) for row in rows[4:]] == [("EUR", 100), ("PLN", 12.5)]


def test_a_printed_statement_arrives_whole() -> None:
    """As PDF it has every item on as many pages as it needs, the same bytes each time; a formula in it stays text."""
    odd = item(1)._replace(invoice_number="$x^2$ \\frac{")
    mail = cleared(odd, *(item(number, "12.5", "PLN") for number in range(2, ROWS_A_PAGE + 2)), attachment="pdf",
                   language="bg")  # fmt: skip
    made = letter(mail)
    parsed = email.message_from_bytes(Packer(Settings()).pack(made).content, policy=policy.default)
    [file] = parsed.iter_attachments()
    assert (file.get_content_type(), file.get_filename()) == ("application/pdf", "извлечение_2026-03-20.pdf")
    content = file.get_content()
    assert content.startswith(b"%PDF-1.")
    assert len(re.findall(rb"/Type /Page\b", content)) == 2
    assert b"FontFile2" in content, "letters that can be searched come with their font"
    assert content == letter(mail).attachments[0].content


def test_whom_to_answer_and_how_to_decline() -> None:
    """Answers go to the customer's owner where that is an address; only a notice beforehand may be declined."""
    assert letter(cleared(owner="eva@kontor.example")).reply_to == Mailbox("eva@kontor.example")
    assert letter(cleared(owner="Eva")).reply_to == OFFICE.reply_to
    assert letter(cleared()).headers == ()
    due = item(1, due=date(2026, 3, 25))
    [(name, value)] = letter(cleared(due, stage="upcoming", template="upcoming")).headers
    assert name == "List-Unsubscribe"
    assert value.startswith("<mailto:office@kontor.example")


def test_styles_are_written_into_elements_once_and_statements_stay() -> None:
    """Rules for phones stay in the head, and no part of the template is lost or moved."""
    source = (PROJECT_ROOT / "configs" / "templates" / "layout.html").read_text("utf-8")
    styled = with_css_inside(source, inline_css)
    assert re.findall(r"{%.*?%}|{{.*?}}", styled) == re.findall(r"{%.*?%}|{{.*?}}", source)
    assert "@media" in styled
    assert "!important" in styled
    assert styled.count('style="') > 15
