"""The mail to a catalogue's owner: what came in, and what of it needs a look. Pure."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime

from tasks.letters import Letter, Mailbox, message_id

_NOBODY = "kontor@localhost.localdomain"
_MOST_LINES = 20


@dataclass(frozen=True)
class FileNews:
    """What became of one file: its counts, why it was refused, and the guards that a person overruled."""

    file_name: str
    as_of: date | None
    state: str
    counts: Mapping[str, int]
    reasons: Sequence[str] = ()
    overruled: Sequence[str] = ()

    @property
    def needs_a_look(self) -> bool:
        """Whether a person should read about it."""
        looked_at = ("quarantined", "warned", "settled")
        return self.state == "refused" or bool(self.overruled) or any(self.counts.get(name) for name in looked_at)


@dataclass(frozen=True)
class CatalogNews:
    """What a run brought: its files, the first rows in quarantine in words, and how many prices are out of order."""

    as_of: date
    run_id: int
    files: Sequence[FileNews]
    quarantined: Sequence[str]
    ladder: int

    @property
    def needs_a_look(self) -> bool:
        """Whether there is anything to write about."""
        return any(file.needs_a_look for file in self.files)


def owner_letter(news: CatalogNews, to: tuple[Mailbox, ...], sender: str | None, *, now: datetime) -> Letter:
    """The letter about a run; the same Message-ID for the same run."""
    blocks = _blocks(news)
    text = "\n\n".join("\n".join([title, *(f"  {line}" for line in lines)]) for title, lines in blocks)
    return Letter(
        to=to,
        subject=_subject(news),
        text=text + "\n",
        html="".join(_section(title, lines) for title, lines in blocks),
        message_id=message_id(sender or _NOBODY, "catalog-upsert", news.as_of, news.run_id),
        dated=now,
    )


def _subject(news: CatalogNews) -> str:
    refused = sum(file.state == "refused" for file in news.files)
    if refused:
        return f"Catalogue {news.as_of}: {refused} of {len(news.files)} files refused"
    aside = sum(file.counts.get("quarantined", 0) for file in news.files)
    gone = sum(file.counts.get("settled", 0) for file in news.files)
    return f"Catalogue {news.as_of}: {aside} rows in quarantine, {gone} products discontinued"


def _blocks(news: CatalogNews) -> list[tuple[str, list[str]]]:
    blocks = [(f"{file.file_name} ({file.as_of or 'no day'}): {file.state}", _lines(file)) for file in news.files]
    if news.quarantined:
        blocks.append(("Rows that could not be used (kontor quarantine list)", list(news.quarantined[:_MOST_LINES])))
    if news.ladder:
        line = f"{news.ladder} products whose prices are not promotional, dealer, customer in rising order"
        blocks.append(("Prices out of order (kontor report price-ladder)", [line]))
    return blocks


def _lines(file: FileNews) -> list[str]:
    named = {"settled": "products discontinued", "warned": "rows to look at (ladder, stock, check digit)"}
    counts = [f"{count} {named.get(name, name.replace('_', ' '))}" for name, count in file.counts.items() if count]
    return [", ".join(counts) or "no rows", *file.reasons, *(f"overruled: {guard}" for guard in file.overruled)]


def _section(title: str, lines: Sequence[str]) -> str:
    items = "".join(f"<li>{html.escape(line)}</li>" for line in lines)
    return f"<h3>{html.escape(title)}</h3><ul>{items}</ul>"
