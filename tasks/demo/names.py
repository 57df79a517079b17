"""Words for made-up people and companies in five countries, and their spelling in plain Latin letters.

Nothing here names a real customer: places and firms are invented, first and last names are common ones.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass

COMPANY = "Витоша Дистрибуция ЕООД"

# The Bulgarian Transliteration Act of 2009, letter by letter.
_CYRILLIC = {
    "а": "a", "б": "b", "в": "v", "г": "g", "д": "d", "е": "e", "ж": "zh", "з": "z",
    "и": "i", "й": "y", "к": "k", "л": "l", "м": "m", "н": "n", "о": "o", "п": "p",
    "р": "r", "с": "s", "т": "t", "у": "u", "ф": "f", "х": "h", "ц": "ts", "ч": "ch",
    "ш": "sh", "щ": "sht", "ъ": "a", "ь": "y", "ю": "yu", "я": "ya",
}  # fmt: skip
# Letters that Unicode does not take apart into a base letter and a mark.
_LETTERS = {"ł": "l", "ø": "o", "æ": "ae", "ß": "ss", "đ": "d", **_CYRILLIC}


@dataclass(frozen=True)
class Wording:
    """What companies and people are called in one country.

    ``forms`` hold ``{}`` for one of ``words``; ``public_forms`` take one of ``places``.
    ``last_names`` are pairs of the woman's and the man's form.
    """

    words: tuple[str, ...]
    forms: tuple[str, ...]
    places: tuple[str, ...]
    public_forms: tuple[str, ...]
    women: tuple[str, ...]
    men: tuple[str, ...]
    last_names: tuple[tuple[str, str], ...]


def _same(*names: str) -> tuple[tuple[str, str], ...]:
    return tuple((name, name) for name in names)


def _suffixed(suffix: str, *names: str) -> tuple[tuple[str, str], ...]:
    return tuple((name + suffix, name) for name in names)


WORDING: dict[str, Wording] = {
    "BG": Wording(
        words=(
            "Искра", "Балкан", "Тракия", "Мизия", "Рила", "Пирин", "Хемус", "Орион", "Сигма", "Волт", "Прогрес",
            "Изток", "Люлин", "Стара Ела", "Бряг", "Камчия", "Родопа", "Светлина", "Ампер", "Дунавия",
        ),
        forms=(
            "Електро {} ООД", "{} Инженеринг ЕООД", "{} Монтаж ООД", "{} Индустрия АД", "Кабели {} ЕООД",
            "{} Строй ООД", "Ел Маркет {} ЕООД",
        ),
        places=("Горно Поле", "Бели Брод", "Ясенково", "Долна Лъка", "Каменна Река"),
        public_forms=("Община {}", "МБАЛ {}", "Водоснабдяване {} ЕАД"),
        women=("Мария", "Елена", "Десислава", "Йорданка", "Цветелина", "Виолета", "Ралица", "Яна"),
        men=("Георги", "Иван", "Димитър", "Николай", "Стефан", "Петър", "Християн", "Юлиян"),
        last_names=_suffixed("а", "Иванов", "Георгиев", "Димитров", "Петров", "Христов", "Желязков", "Щерев", "Къчев"),
    ),
    "PL": Wording(
        words=("Iskra", "Wisłok", "Źródło", "Śląsk", "Łącznik", "Żubr", "Bałtyk", "Mazowia", "Elmix", "Prądnik"),
        forms=("{} Elektro Sp. z o.o.", "Hurtownia {} S.A.", "Zakład Elektryczny {} s.c.", "{} Instalacje Sp. z o.o."),
        places=("Nowa Łąka", "Dębogóra", "Stare Źródła"),
        public_forms=("Gmina {}", "Szpital Powiatowy {}"),
        women=("Małgorzata", "Agnieszka", "Łucja", "Żaneta", "Elżbieta", "Grażyna"),
        men=("Paweł", "Michał", "Łukasz", "Stanisław", "Zdzisław", "Józef"),
        last_names=(
            ("Kowalska", "Kowalski"), ("Wiśniewska", "Wiśniewski"), ("Wójcik", "Wójcik"), ("Zielińska", "Zieliński"),
            ("Dąbrowska", "Dąbrowski"), ("Gołąb", "Gołąb"), ("Śliwa", "Śliwa"),
        ),
    ),
    "NO": Wording(
        words=("Fjordlys", "Nordvåg", "Bjørkedal", "Tømmerås", "Sølvkysten", "Kråkenes", "Østerlia", "Blåtind"),
        forms=("{} Elektro AS", "{} Installasjon AS", "{} Byggvarer ASA", "{} Industri AS"),
        places=("Sørfjell", "Ytre Blåvik"),
        public_forms=("{} kommune", "{} energiverk KF"),
        women=("Ingrid", "Åse", "Solveig", "Marit", "Bjørg"),
        men=("Øyvind", "Håkon", "Lars", "Pål", "Bjørn"),
        last_names=_same("Sørensen", "Bråten", "Ødegård", "Lunde", "Næss", "Haugen"),
    ),
    "SE": Wording(
        words=("Älvkraft", "Norrsken", "Björkö", "Säterdal", "Ljusåker", "Öresten", "Fjällström", "Åkerlund"),
        forms=("{} El AB", "{} Installation AB", "{} Grossist AB", "{} Industriservice HB"),
        places=("Östra Mossby", "Ängsvik"),
        public_forms=("{} kommun", "{} energi AB"),
        women=("Åsa", "Märta", "Karin", "Sofia", "Gunilla"),
        men=("Örjan", "Göran", "Erik", "Håkan", "Björn"),
        last_names=_same("Sjöberg", "Lindström", "Åberg", "Nyström", "Östlund", "Hägg"),
    ),
    "DE": Wording(
        words=("Grünwerk", "Schönfeld", "Königstal", "Nordlicht", "Mühlbach", "Größing"),
        forms=("{} Elektrotechnik GmbH", "{} Anlagenbau GmbH & Co. KG", "Elektrogroßhandel {} GmbH"),
        places=("Oberweiden", "Bad Tannhöhe"),
        public_forms=("Stadtwerke {} GmbH", "Gemeinde {}"),
        women=("Jördis", "Käthe", "Ulrike", "Anneliese", "Bärbel"),
        men=("Jürgen", "Günther", "Matthias", "Sören", "Uwe"),
        last_names=_same("Müller", "Schröder", "Weiß", "Köhler", "Böhm", "Fuchs"),
    ),
}  # fmt: skip


def plain_latin(text: str) -> str:
    """``text`` in ASCII letters: Цветелина → Tsvetelina, Ødegård → Odegard, Weiß → Weiss."""
    spelled = "".join(_spell(letter) for letter in text)
    return unicodedata.normalize("NFKD", spelled).encode("ascii", "ignore").decode("ascii")


def _spell(letter: str) -> str:
    plain = _LETTERS.get(letter.lower())
    if plain is None:
        return letter
    return plain.capitalize() if letter.isupper() else plain


def domain_part(text: str) -> str:
    """``text`` as one label of a domain name: lower-case ASCII letters, digits and hyphens."""
    words = "".join(c if c.isalnum() else " " for c in plain_latin(text).lower())
    return "-".join(words.split())
