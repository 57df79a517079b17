"""The mail to a catalogue's owner: what came in, and what of it needs a look. Pure."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime

from tasks.letters import Letter, Mailbox, message_id

_NOBODY = "kontor@localhost.localdomain"


@dataclass(frozen=True)
class Finding:
    """Something in the catalogue to look at: what, the first lines of it in words, how many, and where all of it is."""

    title: str
    lines: Sequence[str]
    count: int
    see: str


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
    """What a run brought: its files, and what of them is to be looked at."""

    as_of: date
    run_id: int
    files: Sequence[FileNews]
    findings: Sequence[Finding] = ()

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
    named = {
        "quarantined": "rows in quarantine",
        "settled": "products discontinued",
        "warned": "rows to look at",
    }
    counted = {what: sum(file.counts.get(name, 0) for file in news.files) for name, what in named.items()}
    told = ", ".join(f"{count:,} {what}" for what, count in counted.items() if count)
    return f"Catalogue {news.as_of}: {told or 'a guard was overruled'}"


def _blocks(news: CatalogNews) -> list[tuple[str, list[str]]]:
    blocks = [
        (f"{file.file_name} ({file.as_of or 'no day'}): {_STATES[file.state]}", _lines(file)) for file in news.files
    ]
    for found in news.findings:
        more = found.count - len(found.lines)
        rest = [f"and {more:,} more: {found.see}"] if more > 0 else [f"see {found.see}"]
        blocks.append((f"{found.title} ({found.count:,})", [*found.lines, *rest]))
    return blocks


_STATES = {
    "applied": "taken in",
    "superseded": "taken in beneath a newer revision",
    "refused": "refused, nothing of it was applied",
}


def _lines(file: FileNews) -> list[str]:
    named = {
        "settled": "products discontinued",
        "warned": "rows to look at (ladder, stock, price of zero, check digit)",
    }
    counts = [f"{count:,} {named.get(name, name.replace('_', ' '))}" for name, count in file.counts.items() if count]
    told = [", ".join(counts)] if counts else []
    mend = ["What to do: docs/runbooks/catalog_upsert.md, A file was refused"] if file.state == "refused" else []
    return [*told, *file.reasons, *mend, *(f"overruled by a person: {guard}" for guard in file.overruled)]


def _section(title: str, lines: Sequence[str]) -> str:
    items = "".join(f"<li>{html.escape(line)}</li>" for line in lines)
    return f"<h3>{html.escape(title)}</h3><ul>{items}</ul>"
