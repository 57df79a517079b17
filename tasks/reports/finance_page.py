"""Finance's report as HTML and as plain text, from one description of its parts. Pure: pictures and figures come in.

The HTML serves mail programs, phones and browsers alike. In a mail its pictures are named ``cid:…`` and travel with it;
in a page that stands alone they are within it. The text says the same without them.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from tasks.reports.finance import FinanceReport, notices
from tasks.reports.finance_parts import Block, Cell, Part, parts_of
from tasks.reports.finance_words import FOLDER, Words

PICTURES = ("aging", "trend")
_MARKS = {"red": "●", "yellow": "▲"}
_WIDEST_TEXT = 60


@dataclass(frozen=True)
class Rendered:
    """The report in the reader's language: subject line, HTML and text."""

    subject: str
    html: str
    text: str


def cid_sources() -> dict[str, str]:
    """How a mail's HTML names the pictures that travel with it."""
    return {name: f"cid:{content_id(name)}" for name in PICTURES}


def content_id(name: str) -> str:
    """The name under which a picture travels."""
    return f"{name}@kontor"


def data_sources(pictures: Mapping[str, bytes]) -> dict[str, str]:
    """The pictures themselves, for a page that stands alone."""
    return {name: f"data:image/png;base64,{base64.b64encode(png).decode()}" for name, png in pictures.items() if png}


@dataclass(frozen=True)
class Document:
    """A mail or page: its words around the parts; ``notices`` are colours with what must not be overlooked."""

    title: str
    subtitle: str
    preheader: str
    notices: Sequence[tuple[str, str]]
    parts: Sequence[Part]
    footer: str


def render(report: FinanceReport, words: Words, sources: Mapping[str, str]) -> Rendered:
    """The report as HTML and text; ``sources`` says where each picture is, one that is not named is left out."""
    overdue = _overdue_in_words(report, words)
    document = Document(
        words("title", day=report.as_of),
        f"{words('compared', day=report.before.day)} · {words('all_rows')}",
        overdue,
        [(item.colour, words(item.key, **item.values)) for item in notices(report)],
        parts_of(report, words),
        words("footer"),
    )
    return render_document(document, words("subject", day=report.as_of, overdue=overdue), words, sources)


def render_document(document: Document, subject: str, words: Words, sources: Mapping[str, str]) -> Rendered:
    """A document as HTML and text under its subject."""
    context = {
        "language": words.language,
        "title": document.title,
        "subtitle": document.subtitle,
        "preheader": document.preheader,
        "notices": [{"colour": colour, "mark": _MARKS[colour], "text": said} for colour, said in document.notices],
        "footer": document.footer,
    }
    html_parts = _html_parts(document.parts, sources)
    html = _environment().get_template("report.html").render(**context, parts=html_parts)
    text = _environment().get_template("report.txt").render(**context, parts=document.parts, aligned=_aligned)
    return Rendered(subject, html, text)


def _overdue_in_words(report: FinanceReport, words: Words) -> str:
    overdue = [item for _, item in sorted(report.now.totals.items()) if item.overdue_amount]
    return ", ".join(words.money(item.overdue_amount, item.currency) for item in overdue) or words("nothing_overdue")


@lru_cache(maxsize=1)
def _environment() -> Environment:
    """The templates, compiled once; HTML is escaped, text is not, and a name that is missing is an error."""
    return Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=lambda name: bool(name) and str(name).endswith(".html"),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )


def _html_parts(parts: Sequence[Part], sources: Mapping[str, str]) -> list[dict[str, Any]]:
    return [
        {
            "title": part.title,
            "note": part.note,
            "pictures": [
                {"source": Markup(sources[item.name]), "alternative": item.alternative}
                for item in part.pictures
                if item.name in sources
            ],
            "blocks": [_html_block(block) for block in part.blocks],
        }
        for part in parts
    ]


def _html_block(block: Block) -> dict[str, Any]:
    return {
        "headings": block.headings,
        "rows": [[_html_cell(cell) for cell in row] for row in block.rows],
        "rights": block.rights,
        "foot": block.foot,
        "empty": block.empty,
        "title": block.title,
    }


_COLOURS = {"red": "#a40e26", "yellow": "#7a4d00", "green": "#116329", "grey": "#57606a"}


def _html_cell(cell: Cell) -> str | Markup:
    if isinstance(cell, str):
        return cell
    text, colour = cell
    return Markup('<span class="{0}" style="color:{1};">{2}</span>').format(colour, _COLOURS[colour], escape(text))


def _aligned(block: Block) -> str:
    """A block's rows as columns of a plain text; a cell that is very long ends its line."""
    lines = [list(block.headings), *([plain(cell) for cell in row] for row in block.rows)]
    widths = [min(max(len(line[at]) for line in lines), _WIDEST_TEXT) for at in range(len(block.headings))]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(_text_line(line, widths, block.rights) for line in lines)


def _text_line(line: Sequence[str], widths: Sequence[int], rights: Sequence[int]) -> str:
    pairs = enumerate(zip(line, widths, strict=True))
    cells = [text.rjust(width) if at in rights else text.ljust(width) for at, (text, width) in pairs]
    return "  ".join(cells).rstrip()


def plain(cell: Cell) -> str:
    """A cell without its colour."""
    return cell if isinstance(cell, str) else cell[0]
