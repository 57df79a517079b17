"""The groups of a BMEcat catalogue, and which product stands in which: what a product's category is called.

Three places may say it. ``CATALOG_GROUP_SYSTEM`` is the catalogue's own tree, to which ``PRODUCT_TO_CATALOGGROUP_MAP``
(1.2: ``ARTICLE_TO_CATALOGGROUP_MAP``) ties the products after the last one of them; where a file has such ties, they
alone count. Otherwise a product's features name a group of ``CLASSIFICATION_SYSTEM``, by its number, or a group of a
system outside of the file, by its name. A group is told with those above it, ``Hardware / Notebook``; the root is not.
"""

from __future__ import annotations

from typing import Any, NamedTuple

LONGEST = 300  # characters of a category; of a longer path the groups farthest up are left out
_APART = " / "
_FEATURES = ("PRODUCT_FEATURES", "ARTICLE_FEATURES")
_TIES = ("PRODUCT_TO_CATALOGGROUP_MAP", "ARTICLE_TO_CATALOGGROUP_MAP")
_SYSTEMS = ("CLASSIFICATION_SYSTEM_NAME", "FEATURE_SYSTEM_NAME")
_GROUPS = {
    "CATALOG_STRUCTURE": ("GROUP_ID", "GROUP_NAME", "PARENT_ID"),
    "CLASSIFICATION_GROUP": (
        "CLASSIFICATION_GROUP_ID",
        "CLASSIFICATION_GROUP_NAME",
        "CLASSIFICATION_GROUP_PARENT_ID",
    ),
    "FEATURE_GROUP": ("FEATURE_GROUP_ID", "FEATURE_GROUP_NAME", "FEATURE_GROUP_PARENT_ID"),
}
_OWN = ""  # the name of the catalogue's own tree among the systems


class _Group(NamedTuple):
    name: str
    parent: str
    is_root: bool


class Groups:
    """What was read of groups so far."""

    def __init__(self) -> None:
        self._groups: dict[tuple[str, str], _Group] = {}
        self._system = _OWN
        self._ties: dict[str, str] = {}
        self._paths: dict[tuple[str, str], str] = {}

    @property
    def tie_products(self) -> bool:
        """Whether the catalogue says itself which product stands in which of its groups."""
        return bool(self._ties)

    def read(self, name: str, element: Any) -> bool:
        """Note what an element that has ended says of groups; return whether nobody needs it any more."""
        if name in _SYSTEMS:
            self._system = text_of(element)
        elif name in _GROUPS:
            number, called, parent = (child_text(element, tag) for tag in _GROUPS[name])
            system = _OWN if name == "CATALOG_STRUCTURE" else self._system
            self._groups[system, number] = _Group(called, parent, element.get("type") == "root")
        elif name in _TIES:
            product = child_text(element, "PROD_ID") or child_text(element, "ART_ID")
            self._ties.setdefault(product, child_text(element, "CATALOG_GROUP_ID"))
        return name in _GROUPS or name in _TIES

    def tied_to(self, product: str) -> str:
        """The group that the catalogue ties the product to; blank where it ties it to none."""
        return self._path(_OWN, self._ties.get(product, ""))

    def named_by(self, product: Any) -> str:
        """The group that the product's features name; blank where they name none."""
        named = [element for element in product if local_name(element) in _FEATURES]
        for element in named:
            system = child_text(element, "REFERENCE_FEATURE_SYSTEM_NAME")
            if path := self._path(system, child_text(element, "REFERENCE_FEATURE_GROUP_ID")):
                return path
        return next(filter(None, (child_text(element, "REFERENCE_FEATURE_GROUP_NAME") for element in named)), "")

    def _path(self, system: str, number: str) -> str:
        key = (system, number)
        if key not in self._paths and key in self._groups:
            self._paths[key] = self._find_path(system, number)
        return self._paths.get(key, "")

    def _find_path(self, system: str, number: str) -> str:
        names: list[str] = []
        seen: set[str] = set()  # a tree that bites its own tail ends where it began
        while (group := self._groups.get((system, number))) and number not in seen and not group.is_root:
            if names and len(_APART.join([group.name, *names])) > LONGEST:
                break
            names.insert(0, group.name)
            seen.add(number)
            number = group.parent
        return _APART.join(filter(None, names))


def local_name(element: Any) -> str:
    """The element's name without its namespace; blank for comments and instructions."""
    return element.tag.rpartition("}")[2] if isinstance(element.tag, str) else ""


def text_of(element: Any) -> str:
    """The element's own text on one line."""
    return " ".join((element.text or "").split())


def child_text(element: Any, name: str) -> str:
    """The text of the first child of this name; blank where there is none."""
    return next((text_of(child) for child in element if local_name(child) == name), "")
