"""Made-up customers and their contacts, each with a way of paying that the ledger then follows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from itertools import product
from random import Random

from stdnum.bg import vat as bg_vat
from stdnum.de import vat as de_vat
from stdnum.no import mva as no_vat
from stdnum.pl import nip as pl_vat
from stdnum.se import vat as se_vat

from tasks.demo.names import WORDING, domain_part, plain_latin

COUNTRIES = {"BG": 60, "PL": 22, "NO": 14, "SE": 14, "DE": 10}
"""How many customers each country has in the first file."""

LATE_COUNTRIES = ("BG", "SE", "PL")
"""The countries of the customers that only the second file brings."""

LANGUAGES = {"BG": "bg", "PL": "pl", "NO": "nb", "SE": "sv", "DE": "en"}
CURRENCIES = {"BG": "EUR", "PL": "PLN", "NO": "NOK", "SE": "SEK", "DE": "EUR"}
OWNERS = ("kalina", "petar", "rosen", "tsveta", "vesela")

HABITS = {"punctual": 66, "hesitant": 28, "disloyal": 12, "new": 12, "slipping": 2}
"""How many customers pay in which way; slipping ones were punctual until the middle of August."""

WITHOUT_PAYMENTS_CONTACT = frozenset({6, 41, 77, 102})
PAYMENTS_ROLE_ENDED = frozenset({15, 63})
PAYMENTS_ROLE_HANDED_OVER = frozenset({9, 28, 54, 88, 111})


@dataclass(frozen=True)
class Customer:
    """One customer: what the file of organisations says, and ``habit``, which no file says."""

    position: int
    number: str
    name: str
    country: str
    language: str
    vat_number: str
    currency: str
    terms_days: int
    segment: str
    owner: str
    habit: str

    @property
    def domain(self) -> str:
        """The customer's mail domain, under the reserved ending ``.example``."""
        return f"{domain_part(self.name)}.example"


@dataclass(frozen=True)
class Contact:
    """One row of the file of contacts; ``roles`` as the file spells them, several parted by a semicolon."""

    customer_number: str
    first_name: str
    last_name: str
    email: str
    phone: str
    language: str
    roles: str
    valid_from: date
    valid_to: date | None = None


def make_customers(rng: Random) -> list[Customer]:
    """The customers of the first file, in the order of their numbers."""
    countries = [country for country, count in COUNTRIES.items() for _ in range(count)]
    habits = [habit for habit, count in HABITS.items() for _ in range(count)]
    rng.shuffle(countries)
    rng.shuffle(habits)
    names = {country: _company_names(rng, country) for country in COUNTRIES}
    return [
        _customer(rng, position, country, habit, names[country])
        for position, (country, habit) in enumerate(zip(countries, habits, strict=True), start=1)
    ]


def make_late_customers(rng: Random, known: list[Customer]) -> list[Customer]:
    """The customers of the second file: new, numbered on from ``known``, none with a name already taken."""
    taken = {customer.name for customer in known}
    names = {
        country: (pair for pair in _company_names(rng, country) if pair[0] not in taken) for country in LATE_COUNTRIES
    }
    return [
        _customer(rng, position, country, "new", names[country])
        for position, country in enumerate(LATE_COUNTRIES, start=len(known) + 1)
    ]


def _company_names(rng: Random, country: str) -> Iterator[tuple[str, bool]]:
    """Names without end of luck: each once, with whether it is a public body (about one in nine)."""
    wording = WORDING[country]
    private = [form.format(word) for form, word in product(wording.forms, wording.words)]
    public = [form.format(place) for form, place in product(wording.public_forms, wording.places)]
    rng.shuffle(private)
    rng.shuffle(public)
    for index, name in enumerate(private):
        if index % 9 == 4 and public:
            yield public.pop(), True
        yield name, False


def _customer(rng: Random, position: int, country: str, habit: str, names: Iterator[tuple[str, bool]]) -> Customer:
    name, is_public = next(names)
    return Customer(
        position=position,
        number=f"{1000 + position:06d}",
        name=name,
        country=country,
        language=LANGUAGES[country],
        vat_number=_vat_number(rng, country) if rng.random() < 0.9 else "",
        currency="EUR" if country == "PL" and position % 9 == 0 else CURRENCIES[country],
        terms_days=rng.choice((14, 30, 30, 30, 45)),
        segment="public" if is_public else rng.choice(("retail", "wholesale", "wholesale", "dealer")),
        owner=rng.choice(OWNERS),
        habit=habit,
    )


def _vat_number(rng: Random, country: str) -> str:
    """A number whose check digits are right, from the upper end of each country's range."""
    while True:
        match country:
            case "BG" if bg_vat.is_valid(digits := f"99{rng.randrange(10**7):07d}"):
                return f"BG{digits}"
            case "PL" if pl_vat.is_valid(digits := f"999{rng.randrange(10**7):07d}"):
                return f"PL{digits}"
            case "NO" if no_vat.is_valid(number := f"NO99{rng.randrange(10**7):07d}MVA"):
                return number
            case "SE" if se_vat.is_valid(number := f"SE5599{rng.randrange(10**6):06d}01"):
                return number
            case "DE" if de_vat.is_valid(digits := f"99{rng.randrange(10**7):07d}"):
                return f"DE{digits}"


def make_contacts(rng: Random, customers: list[Customer]) -> list[Contact]:
    """One to three contacts per customer; four customers have none for payments, two have one whose role has ended."""
    return [contact for customer in customers for contact in _contacts_of(rng, customer)]


def _contacts_of(rng: Random, customer: Customer) -> Iterator[Contact]:
    people = _people(rng, customer.country)
    since = date(2019 + rng.randrange(6), rng.randrange(12) + 1, 1)
    for roles, valid_from, valid_to in _roles_of(rng, customer, since):
        first, last = next(people)
        yield Contact(
            customer_number=customer.number,
            first_name=first,
            last_name=last,
            email=f"{plain_latin(first)}.{plain_latin(last)}@{customer.domain}".lower(),
            phone=_phone(rng, customer.country),
            language=customer.language,
            roles=roles,
            valid_from=valid_from,
            valid_to=valid_to,
        )


def _roles_of(rng: Random, customer: Customer, since: date) -> Iterator[tuple[str, date, date | None]]:
    """Roles, their first day and their last, one for each contact that ``customer`` has."""
    if customer.position in PAYMENTS_ROLE_ENDED:
        yield "payments", since, date(2026, 6, 30)
    elif customer.position in PAYMENTS_ROLE_HANDED_OVER:
        yield "payments", since, date(2026, 9, 30)
        yield "payments;orders", date(2026, 10, 1), None
    elif customer.position not in WITHOUT_PAYMENTS_CONTACT:
        yield rng.choice(("payments", "payments", "payments;orders")), since, None
    yield rng.choice(("manager", "manager;promotions")), since, None
    if rng.random() < 0.4:
        yield rng.choice(("promotions", "orders", "orders;promotions")), since, None


def _people(rng: Random, country: str) -> Iterator[tuple[str, str]]:
    """First and last names, no first name twice, so that no two contacts of a customer share an address."""
    wording = WORDING[country]
    firsts = [(name, 0) for name in wording.women] + [(name, 1) for name in wording.men]
    rng.shuffle(firsts)
    return ((first, rng.choice(wording.last_names)[form]) for first, form in firsts)


def _phone(rng: Random, country: str) -> str:
    """A number nobody can be reached at: only Sweden and Germany set ranges aside for fiction, elsewhere blank."""
    match country:
        case "SE":
            return f"+46 31 390 06 {rng.randrange(100):02d}"
        case "DE":
            return f"+49 30 23125 {rng.randrange(1000):03d}"
    return ""
