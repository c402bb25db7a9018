"""A conversation as a person likes to read it: text, Markdown or one HTML page.

What is said stands out; what the assistant did is left out unless it is asked for. It
is made event by event, so a long conversation is not held in memory.
"""

from __future__ import annotations

import html
import re
from abc import ABC, abstractmethod
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tracker_store_async.errors import ConfigurationError
from tracker_store_async.events import decode_event
from tracker_store_async.inspection.terminal import duration, moment, printable
from tracker_store_async.inspection.timeline import SILENCE_SECONDS, Entry, describe
from tracker_store_async.moving.pages import pages_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping

    from tracker_store_async.rows import StoredConversation
    from tracker_store_async.store import TrackerStore

SPOKEN = frozenset({"user", "bot", "agent"})
PAGE_EVENTS = 500


class Writer(ABC):
    """Turns what is to be read into text of one format."""

    @abstractmethod
    def begin(self, sender_id: str, header: StoredConversation) -> str:
        """Return what stands above everything."""

    @abstractmethod
    def rule(self, title: str) -> str:
        """Return a division with a title: a session, a day, a silence."""

    @abstractmethod
    def say(self, entry: Entry, clock: str) -> str:
        """Return what somebody says."""

    @abstractmethod
    def note(self, entry: Entry, clock: str) -> str:
        """Return what the assistant did."""

    def end(self) -> str:
        """Return what stands below everything."""
        return ""


def _facts(header: StoredConversation) -> Iterator[tuple[str, str]]:
    if header.user_id:
        yield "user", header.user_id
    yield "events", f"{header.version:,}"
    for name in ("created_at", "updated_at"):
        when = moment(getattr(header, name))
        if when is not None:
            label = "begun" if name == "created_at" else "last event stored"
            yield label, f"{when:%Y-%m-%d %H:%M:%S %Z}"


class TextWriter(Writer):
    """Plain text, safe for a terminal."""

    def begin(self, sender_id: str, header: StoredConversation) -> str:
        """Return the id and what is known of the conversation."""
        title = f"Conversation {printable(sender_id)}"
        facts = [f"{name}: {printable(value)}" for name, value in _facts(header)]
        return "\n".join([title, "=" * len(title), *facts, ""]) + "\n"

    def rule(self, title: str) -> str:
        """Return a line with a title."""
        return f"\n-- {title} --\n\n"

    def say(self, entry: Entry, clock: str) -> str:
        """Return the words, each of their lines below the one before."""
        begin = f"{clock}  {entry.label}: "
        lines = [printable(line) for line in entry.text.splitlines() or [""]]
        text = f"\n{' ' * len(begin)}".join(lines)
        note = f"   ({printable(entry.note)})" if entry.note else ""
        return f"{begin}{text}{note}\n"

    def note(self, entry: Entry, clock: str) -> str:
        """Return one line in brackets."""
        text = printable(" ".join(filter(None, (entry.text, entry.note))))
        return f"{clock}  [{printable(entry.label)}: {text}]\n"


_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>()#+\-.!|~&=:])")


class MarkdownWriter(Writer):
    """Markdown, in which nothing stored means anything."""

    def begin(self, sender_id: str, header: StoredConversation) -> str:
        """Return a title and a list."""
        facts = [f"- {name}: {self._plain(value)}\n" for name, value in _facts(header)]
        return f"# Conversation {self._plain(sender_id)}\n\n{''.join(facts)}\n"

    def rule(self, title: str) -> str:
        """Return a heading."""
        return f"## {self._plain(title)}\n\n"

    def say(self, entry: Entry, clock: str) -> str:
        """Return a quotation under a name."""
        lines = entry.text.splitlines() or [""]
        quoted = "".join(f"> {self._plain(line)}  \n" for line in lines)
        note = f" *{self._plain(entry.note)}*" if entry.note else ""
        return f"**{entry.label}** {clock}{note}\n\n{quoted}\n"

    def note(self, entry: Entry, clock: str) -> str:
        """Return one line, in italics."""
        text = " ".join(filter(None, (entry.label, entry.text, entry.note)))
        return f"*{clock} {self._plain(' '.join(text.split()))}*\n\n"

    @staticmethod
    def _plain(text: str) -> str:
        return _MARKDOWN.sub(r"\\\1", printable(text))


_STYLE = """
:root{color-scheme:light dark;--page:#f6f7f9;--text:#1c2330;--faint:#5d6778;
--user:#d7e8ff;--bot:#fff;--line:#d5dae2}
@media(prefers-color-scheme:dark){:root{--page:#14171c;--text:#e4e8ef;--faint:#98a2b3;
--user:#1f3b63;--bot:#222730;--line:#363d49}}
body{margin:0 auto;max-width:46rem;padding:1.5rem 1rem 4rem;background:var(--page);
color:var(--text);font:16px/1.5 system-ui,sans-serif}
h1{font-size:1.3rem;overflow-wrap:anywhere}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.1rem 1rem;margin:0 0 2rem;
color:var(--faint)}dd{margin:0;overflow-wrap:anywhere}
h2{display:flex;align-items:center;gap:1rem;margin:2rem 0 1rem;font-size:.85rem;
font-weight:600;color:var(--faint)}
h2::before,h2::after{content:"";flex:1;border-top:1px solid var(--line)}
article{margin:.6rem 0;max-width:85%}
article.user{margin-left:auto}
article p{margin:0;padding:.5rem .9rem;border-radius:1rem;background:var(--bot);
border:1px solid var(--line);white-space:pre-wrap;overflow-wrap:anywhere}
article.user p{background:var(--user)}
article header,aside{font-size:.8rem;color:var(--faint);padding:0 .9rem}
article.user header{text-align:right}
aside{margin:.3rem 0;overflow-wrap:anywhere}
"""


class HtmlWriter(Writer):
    """One page that needs no other file, in light and dark."""

    def begin(self, sender_id: str, header: StoredConversation) -> str:
        """Return the head of the page."""
        title = f"Conversation {self._plain(sender_id)}"
        facts = "".join(
            f"<dt>{name}</dt><dd>{self._plain(value)}</dd>"
            for name, value in _facts(header)
        )
        return (
            '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width,initial-scale=1">\n'
            '<meta http-equiv="Content-Security-Policy" '
            "content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
            f"<title>{title}</title>\n<style>{_STYLE}</style>\n"
            f"<main>\n<h1>{title}</h1>\n<dl>{facts}</dl>\n"
        )

    def rule(self, title: str) -> str:
        """Return a heading between two lines."""
        return f"<h2>{self._plain(title)}</h2>\n"

    def say(self, entry: Entry, clock: str) -> str:
        """Return a bubble."""
        side = "user" if entry.label == "user" else "bot"
        note = f" · {self._plain(entry.note)}" if entry.note else ""
        text = "\n".join(map(self._plain, entry.text.splitlines()))
        return (
            f'<article class="{side}"><header>{self._plain(entry.label)} '
            f"{clock}{note}</header><p>{text}</p></article>\n"
        )

    def note(self, entry: Entry, clock: str) -> str:
        """Return a small line."""
        text = " ".join(filter(None, (entry.label, entry.text, entry.note)))
        return f"<aside>{clock} {self._plain(text)}</aside>\n"

    def end(self) -> str:
        """Return the end of the page."""
        return "</main>\n</html>\n"

    @staticmethod
    def _plain(text: str) -> str:
        return html.escape(printable(text))


FORMATS: dict[str, type[Writer]] = {
    "text": TextWriter,
    "markdown": MarkdownWriter,
    "html": HtmlWriter,
}


async def transcript(
    store: TrackerStore,
    sender_id: str,
    format_name: str = "text",
    *,
    complete: bool = False,
) -> AsyncIterator[str]:
    """Yield the transcript of a conversation, piece by piece; nothing if there is none.

    Args:
        store: Where from; it is only read.
        sender_id: The conversation.
        format_name: `text`, `markdown` or `html`.
        complete: Whether to tell also what the assistant did, not only what was said.

    Raises:
        ConfigurationError: There is no such format.
    """
    if format_name not in FORMATS:
        raise ConfigurationError(f"format must be one of {', '.join(FORMATS)}")
    writer = FORMATS[format_name]()
    teller = _Teller(writer, complete=complete)
    is_begun = False
    async for page in pages_of(store, sender_id, PAGE_EVENTS):
        if not is_begun:
            is_begun = True
            yield writer.begin(sender_id, page)
        yield "".join(teller.tell(page))
    if is_begun:
        yield writer.end()


class _Teller:
    """Decides what is told of each event."""

    def __init__(self, writer: Writer, *, complete: bool) -> None:
        self._writer = writer
        self._complete = complete
        self._last_time: float | None = None
        self._date = ""

    def tell(self, page: StoredConversation) -> Iterator[str]:
        """Yield what is to be read of a page."""
        for position, (_, data) in enumerate(page.rows, page.first_position):
            try:
                fields = decode_event(data).as_dict()
            except ValueError:
                fields = {"event": f"event {position} cannot be read"}
            yield from self._tell_one(fields)

    def _tell_one(self, fields: Mapping[str, Any]) -> Iterator[str]:
        when = moment(fields.get("timestamp"))
        clock = "" if when is None else f"{when:%H:%M:%S}"
        title = self._title(fields)
        if title:
            yield self._writer.rule(title)
        if fields.get("event") == "session_started":
            return
        entry = describe(fields, complete=self._complete)
        if fields.get("event") in SPOKEN:
            if fields.get("event") == "user" and not self._complete:
                entry = replace(entry, note="")  # what the assistant made of it
            yield self._writer.say(entry, clock)
        elif self._complete:
            yield self._writer.note(entry, clock)

    def _title(self, fields: Mapping[str, Any]) -> str:
        """Return the title of a division that begins with an event, if one does."""
        when = moment(fields.get("timestamp"))
        is_start = fields.get("event") == "session_started"
        if not is_start and fields.get("event") not in SPOKEN and not self._complete:
            return ""
        parts = ["new session"] if is_start else []
        if when is not None:
            date = f"{when:%A, %d %B %Y}"
            if date != self._date:
                parts.append(date)
                self._date = date
            timestamp: Any = fields["timestamp"]
            if self._last_time is not None:
                gap = timestamp - self._last_time
                if gap >= SILENCE_SECONDS:
                    parts.append(f"{duration(gap)} later")
            self._last_time = timestamp
        return ", ".join(parts)
