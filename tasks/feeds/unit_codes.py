"""Units of measure: the codes of UN/ECE Recommendations 20 and 21 that trade uses, and how people write them.

Spellings are English, Bulgarian, Polish, Norwegian, Swedish and German. A spelling that means two units in two
countries stands for none and is left to the contract's ``values``.
"""

from __future__ import annotations

from collections.abc import Mapping

from tasks.feeds.folding import fold

# Recommendation 20 (units), then Recommendation 21 (packages, with X in front) and the old package codes that BMEcat
# 1.2 and EDIFACT still use.
UNIT_SPELLINGS: Mapping[str, tuple[str, ...]] = {
    "C62": ("one", "each", "ea", "pc", "pcs", "piece", "pieces", "unit", "бр", "брой", "броя", "szt", "szt.", "sztuka",
            "sztuk", "sztuki", "st", "stk", "styck", "stycken", "stykk", "stück", "stuck", "ед", "pce", "h87"),
    "PR": ("pair", "pairs", "par", "чифт", "чифта", "para", "pary", "paar"),
    "SET": ("set", "sets", "комплект", "компл", "к-т", "kpl", "kompl", "komplet", "sett", "sats"),
    "KT": ("kit", "kits"),
    "DZN": ("dozen", "doz", "dz", "дузина", "tuzin", "dusin", "dussin", "dutzend"),
    "CEN": ("hundred", "100 st", "100 pcs"),
    "MIL": ("thousand", "1000 st", "1000 pcs"),
    "MTR": ("m", "metre", "metres", "meter", "meters", "mtr", "м", "метър", "метра", "л.м", "лм", "mb", "metr", "metry",
            "metrów"),
    "CMT": ("cm", "centimetre", "centimeter", "см"),
    "MMT": ("mm", "millimetre", "millimeter", "мм"),
    "KMT": ("km", "kilometre", "kilometer", "км"),
    "MTK": ("m2", "m²", "sqm", "square metre", "square meter", "кв.м", "кв м", "м2", "м²"),
    "MTQ": ("m3", "m³", "cubic metre", "cubic meter", "куб.м", "м3", "м³"),
    "KGM": ("kg", "kilo", "kilogram", "kilograms", "кг", "килограм", "килограма"),
    "GRM": ("g", "gr", "gram", "grams", "г", "гр", "грам"),
    "TNE": ("t", "tonne", "tonnes", "ton", "тон", "тона", "tona", "tonn"),
    "LTR": ("l", "litre", "liter", "litres", "liters", "ltr", "л", "литър", "литра", "litr"),
    "MLT": ("ml", "millilitre", "milliliter", "мл"),
    "HUR": ("h", "hour", "hours", "час", "часа", "godz", "godzina", "time", "timer", "timme"),
    "DAY": ("day", "days", "ден", "дни", "dzień", "dag", "dagar", "dager"),
    "BX": ("box", "boxes", "кутия", "кут", "pudełko", "pudelko", "karton", "eske", "låda", "lada", "kasse"),
    "CT": ("carton", "cartons", "ctn", "кашон", "каш", "kartong", "krt"),
    "PK": ("pack", "packs", "package", "packages", "pkt", "pak", "пакет", "пак", "опаковка", "оп", "op", "opak",
           "opakowanie", "paczka", "förp", "forp", "förpackning", "pakke", "paket", "frp"),
    "PF": ("pallet", "pallets", "pal", "палет", "палета", "пал", "paleta", "pall", "palle", "palette"),
    "RO": ("roll", "rolls", "rll", "ролка", "ролки", "rolka", "rull", "rulle", "rolle", "krążek"),
    "BG": ("bag", "bags", "чувал", "торба", "worek", "säck", "sekk", "påse", "pose"),
    "BO": ("bottle", "bottles", "btl", "бутилка", "butelka", "flaska", "flaske"),
    "CA": ("can", "cans", "tin", "кен", "puszka", "burk", "boks"),
    "DR": ("drum", "drums", "варел", "beczka", "bęben", "trumma", "fat"),
    "SH": ("sheet", "sheets", "лист", "листа", "arkusz", "ark"),
    "TU": ("tube", "tubes", "туба", "tubka", "tub"),
    "CS": ("case", "cases", "стек"),
}  # fmt: skip
_SAME = {"H87": "C62", "PCE": "C62", "NMP": "PK", "XPK": "PK", "XBX": "BX", "XCT": "CT", "XPX": "PF", "XBG": "BG",
         "XBO": "BO", "XCA": "CA", "XDR": "DR", "XRO": "RO", "XTU": "TU", "XCS": "CS", "EA": "C62", "RL": "RO",
         "NRL": "RO", "MTS": "MTR", "PA": "PK", "D62": "C62"}  # fmt: skip


def unit_codes() -> frozenset[str]:
    """Return the codes that a cell may be read as."""
    return frozenset(UNIT_SPELLINGS)


def unit_spellings() -> Mapping[str, str]:
    """Return folded spelling → code; codes that mean the same package or piece become one."""
    spelt = {fold(code): code for code in UNIT_SPELLINGS}
    spelt |= {fold(code): same for code, same in _SAME.items()}
    for code, words in UNIT_SPELLINGS.items():
        for word in words:
            spelt.setdefault(fold(word), code)
    return spelt
