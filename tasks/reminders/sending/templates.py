"""Letters from templates: one file per language and tone, one layout for all, compiled and styled once.

A template of ``configs/templates/<language>/`` says only what is particular to it, in the blocks ``subject``,
``opening`` and ``closing``; paragraphs are parted by an empty line. ``layout.html`` and ``layout.txt`` do the rest.
An installation's own templates, under ``KONTOR_HOME/templates`` in the same places, come first.

The CSS of the layout is written into its elements when it is loaded, not for every mail. In HTML everything that comes
from data is escaped; the text has no markup to escape.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from babel import Locale
from jinja2 import Environment, FunctionLoader, StrictUndefined, Template, TemplateError
from markupsafe import Markup

from tasks.errors import UsageError

FALLBACK = "en"
# Languages that are close enough to be read: a Norwegian address book says "no".
_NEAREST = {"no": "nb", "nn": "nb", "mk": "bg"}
_JINJA = re.compile(r"{%.*?%}|{{.*?}}|{#.*?#}", re.DOTALL)


@dataclass(frozen=True)
class Words:
    """The fixed words of a language and how it forms plurals."""

    language: str
    locale: Locale
    texts: Mapping[str, Any]

    def __getattr__(self, name: str) -> str:
        """A word by its name, as templates ask for it."""
        try:
            return str(self.texts[name])
        except KeyError:
            raise AttributeError(name) from None

    def count(self, name: str, number: int) -> str:
        """``3 invoices`` in the form that the language's plural rules ask for (CLDR, by Babel)."""
        forms: Mapping[str, str] = self.texts[name]
        return forms.get(self.locale.plural_form(number), forms["other"]).format(n=number)


@dataclass(frozen=True)
class Written:
    """A letter's words."""

    subject: str
    html: str
    text: str


class Templates:
    """The templates of an installation; ``folders`` are searched in order, ``inline`` writes CSS into elements."""

    def __init__(self, folders: Sequence[Path], inline: Callable[[str], str]) -> None:
        self._folders = [folder for folder in folders if folder.is_dir()]
        self._inline = inline
        self._html = self._environment(escape=True)
        self._text = self._environment(escape=False)
        self._words: dict[str, Words] = {}

    def _environment(self, *, escape: bool) -> Environment:
        made = Environment(
            loader=FunctionLoader(self._source),
            autoescape=escape,
            undefined=StrictUndefined,
            auto_reload=False,
            cache_size=400,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        made.filters["paragraphs"] = _paragraphs
        made.globals["layout"] = "layout.html" if escape else "layout.txt"
        return made

    def _source(self, name: str) -> str | None:
        path = self._find(name)
        if path is None:
            return None
        source = path.read_text("utf-8")
        return with_css_inside(source, self._inline) if name == "layout.html" else source

    def _find(self, name: str) -> Path | None:
        return next((path for folder in self._folders if (path := folder / name).is_file()), None)

    def language_for(self, wanted: str, template: str) -> str:
        """The language in which this template is there: the one wanted, its nearest, else English."""
        base = wanted.strip().lower().replace("_", "-").partition("-")[0]
        for language in dict.fromkeys((base, _NEAREST.get(base, base), FALLBACK)):
            if (
                language.isalpha()
                and self._find(f"{language}/{template}.jinja")
                and self._find(f"{language}/words.yaml")
            ):
                return language
        raise UsageError(
            f"There is no template {template!r}, in no language.",
            hint="Name one of configs/templates in rules.reminder_stage, or put one under KONTOR_HOME/templates.",
        )

    def words(self, language: str) -> Words:
        """The fixed words of a language that :meth:`language_for` has found."""
        if language not in self._words:
            path = self._find(f"{language}/words.yaml")
            if path is None:
                raise UsageError(
                    f"There are no words for language {language!r}.", hint="Add words.yaml beside its templates."
                )
            texts = yaml.load(path.read_text("utf-8"), Loader=yaml.CSafeLoader)
            self._words[language] = Words(language, Locale.parse(texts["locale"]), texts)
        return self._words[language]

    def write(self, language: str, template: str, context: Mapping[str, Any]) -> Written:
        """The letter in this language (one that :meth:`language_for` has found).

        Raises:
            UsageError: the template has a mistake; the text names it, not the data.
        """
        name = f"{language}/{template}.jinja"
        values = {**context, "language": language, "words": self.words(language)}
        try:
            in_text, in_html = _compiled(self._text, name), _compiled(self._html, name)
            subject = " ".join("".join(in_text.blocks["subject"](in_text.new_context(values))).split())
            subject += values["repeat"]
            return Written(
                subject, in_html.render(values, subject=subject), _tidy(in_text.render(values, subject=subject))
            )
        except (TemplateError, KeyError) as error:
            raise UsageError(
                f"Template {name} cannot be used: {type(error).__name__}{_line(error)}.",
                hint="Correct it; docs/reference/sending.md lists what a template may say.",
            ) from None


def _compiled(environment: Environment, name: str) -> Template:
    return environment.get_template(name)


def _line(error: Exception) -> str:
    number = getattr(error, "lineno", None)
    return f" in line {number}" if number else ""


def _paragraphs(block: str) -> list[str]:
    """The paragraphs of a block, each on one line; escaped text stays escaped."""
    kind = Markup if isinstance(block, Markup) else str
    return [kind(" ".join(part.split())) for part in re.split(r"\n\s*\n", str(block)) if part.strip()]


def _tidy(text: str) -> str:
    """No more than one empty line in a row, no spaces at the ends of lines but the one after the signature's mark."""
    lines = [line if line == "-- " else line.rstrip() for line in text.splitlines()]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip("\n") + "\n"


def with_css_inside(source: str, inline: Callable[[str], str]) -> str:
    """A template whose ``<style>`` is written into its elements, once for all mails; rules for phones stay in it.

    The inliner reads HTML, not templates: statements travel through it as comments, values as plain words.
    """
    kept: list[str] = []

    def hide(found: re.Match[str]) -> str:
        kept.append(found.group())
        mark = f"kept{len(kept) - 1}tpek"
        return mark if found.group().startswith("{{") or _inside_a_tag(source, found.start()) else f"<!--{mark}-->"

    styled = inline(_JINJA.sub(hide, source))
    return re.sub(r"(?:<!--)?kept(\d+)tpek(?:-->)?", lambda found: kept[int(found.group(1))], styled)


def _inside_a_tag(source: str, place: int) -> bool:
    return source.rfind("<", 0, place) > source.rfind(">", 0, place)


@functools.lru_cache(maxsize=8)
def templates_of(folders: tuple[Path, ...], inline: Callable[[str], str]) -> Templates:
    """The templates in these folders, loaded once for this process."""
    return Templates(folders, inline)
