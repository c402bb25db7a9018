"""The inspector's answers to requests, for any framework.

All links are relative, so that it works wherever it is mounted, also behind a proxy
that removes a prefix. A conversation's id stands in the query of a link: there a slash,
a dot or a percent sign means nothing to anybody on the way.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from tracker_store_async.auditing import acting_as, current_actor
from tracker_store_async.errors import (
    InvalidInputError,
    InvalidSenderIdError,
    StoreUnavailableError,
    TrackerStoreError,
)
from tracker_store_async.inspection.terminal import zone_name
from tracker_store_async.ops.access import names_loopback
from tracker_store_async.ops.endpoints import JSON, Answer
from tracker_store_async.ops.inspector.entry import (
    Entry,
    forget_cookie,
    safe_place,
    sign_in_link,
)
from tracker_store_async.ops.inspector.options import InspectorOptions
from tracker_store_async.ops.inspector.reading import Reader
from tracker_store_async.ops.inspector.rendering import (
    STATIC_TYPES,
    render,
    static_file,
)
from tracker_store_async.ops.inspector.searching import Search, search
from tracker_store_async.ops.inspector.views import ConversationView, NotHereError
from tracker_store_async.redaction import REDACTOR

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tracker_store_async.ops.access import Gate
    from tracker_store_async.store import TrackerStore

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
"""Methods that frameworks hand over; nearly all are refused."""

PAGES = ("", "conversation", "state", "tail")
"""Pages that one has to sign in for."""

MAX_FORM_BYTES = 8192
MAX_QUERY_FIELDS = 32
PAGE_SECONDS = 20.0
"""Longest time that one page may take."""

HTML = "text/html; charset=utf-8"
PURPOSE = "inspect"
"""What an audit trail says of what is read here."""

SAFE_HEADERS = (
    (
        "content-security-policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'",
    ),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "same-origin"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    ("x-robots-tag", "noindex"),
)


@dataclass(frozen=True, slots=True)
class Asked:
    """A request.

    Attributes:
        method: Its method.
        page: What follows `/inspector/` in its path.
        query: Its query, as it came.
        headers: Its headers, by lower-case name.
        body: Its body; one byte more than `MAX_FORM_BYTES` is enough of a longer one.
        is_https: Whether it came over TLS.
    """

    method: str
    page: str
    query: str = field(default="", repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)
    is_https: bool = False


class Inspector:
    """Answers for one store.

    Args:
        store: The store; it is opened by the first request that asks for it.
        gate: Has the token that one signs in with.
        options: How it behaves.
    """

    def __init__(
        self,
        store: TrackerStore,
        gate: Gate,
        options: InspectorOptions | None = None,
    ) -> None:
        self._store = store
        self._reader = Reader(store)
        self._gate = gate
        self._entry = Entry(gate)
        self._options = options or InspectorOptions()

    async def answer(self, asked: Asked) -> Answer:
        """Return the answer to a request."""
        refused = self._refusal(asked)
        if refused is not None:
            return refused
        if asked.page in STATIC_TYPES:
            return _static(asked.page)
        if asked.page in ("sign-in", "sign-out"):
            return self._sign_in_or_out(asked)
        if asked.page not in PAGES:  # relative links would lead on and on from below
            return _error(404, "Not here", "There is no such page.")
        name = self._reader_name(asked)
        if name is None:
            if asked.page in ("tail", "state"):
                return _json(401, {"error": "sign in again"})
            return _redirect(sign_in_link(asked.page, asked.query))
        return await self._answer_to(asked, name)

    def _refusal(self, asked: Asked) -> Answer | None:
        """Return why a request is not looked at any further, or None."""
        host = asked.headers.get("host", "")
        if self._options.loopback_only and not names_loopback(host):
            return _error(
                403,
                "Not by this name",
                "Without a token the inspector answers at 127.0.0.1 and localhost "
                "alone. Set TRACKER_STORE_TOKEN to reach it by another name.",
            )
        is_form = asked.page in ("sign-in", "sign-out")
        allowed = ("GET", "HEAD", "POST") if is_form else ("GET", "HEAD")
        if asked.method not in allowed:
            refused = _error(405, "Only reading", "The inspector changes nothing.")
            return _with(refused, ("allow", ", ".join(allowed)))
        if asked.method == "POST" and not _is_from_here(asked):
            return _error(403, "Not from here", "Use the form of this site.")
        return None

    # -- who is let in -----------------------------------------------------------------

    def _reader_name(self, asked: Asked) -> str | None:
        """Return who reads, for the audit trail; None if it is nobody we know."""
        name = None
        if not self._gate.is_open:
            name = self._entry.name_in(asked.headers.get("cookie"))
        if name is not None:
            return f"inspector: {name}"
        if not self._gate.lets_in(asked.headers.get("authorization")):
            return None
        actor = current_actor()
        return "inspector" if actor is None else actor.name

    def _sign_in_or_out(self, asked: Asked) -> Answer:
        if asked.page == "sign-out":
            if asked.method != "POST":
                return _redirect("./")
            forgotten = ("set-cookie", forget_cookie(is_https=asked.is_https))
            return _with(_redirect("sign-in"), forgotten)
        if self._gate.is_open:
            return _redirect("./")
        if asked.method != "POST":
            place = safe_place(_fields(asked.query).get("next", "./"))
            return _page(200, "sign_in.html", place=place, name="", problem="")
        if len(asked.body) > MAX_FORM_BYTES:
            return _error(413, "Too long", "No name and no token is as long as that.")
        return self._signed_in(asked)

    def _signed_in(self, asked: Asked) -> Answer:
        form = _fields(asked.body.decode("utf-8", "replace"))
        place = safe_place(form.get("next", "./"))
        name = form.get("name", "").strip()
        problem = "" if name else "Give a name: it is written into the audit trail."
        if not self._gate.matches(form.get("token", "").strip()):
            problem = "That is not the token."
        if problem:
            return _page(403, "sign_in.html", place=place, name=name, problem=problem)
        cookie = self._entry.cookie_for(name, is_https=asked.is_https)
        return _with(_redirect(place), ("set-cookie", cookie))

    # -- pages -------------------------------------------------------------------------

    async def _answer_to(self, asked: Asked, name: str) -> Answer:
        try:
            with acting_as(name, PURPOSE):
                async with asyncio.timeout(PAGE_SECONDS):
                    return await self._show(asked, name)
        except NotHereError as error:
            return _failure(asked, 404, "Not here", str(error))
        except InvalidSenderIdError:
            return _failure(asked, 404, "Not here", "No conversation has such an id.")
        except InvalidInputError as error:
            return _failure(asked, 400, "That cannot be asked", REDACTOR.error(error))
        except StoreUnavailableError as error:
            return _failure(asked, 503, "The storage is away", REDACTOR.error(error))
        except TrackerStoreError as error:
            return _failure(asked, 500, "It cannot be read", REDACTOR.error(error))
        except TimeoutError:
            return _failure(asked, 503, "It took too long", "Try again.")

    async def _show(self, asked: Asked, name: str) -> Answer:
        query = _fields(asked.query)
        if asked.page == "":
            return await self._list(Search.of_query(query), name)
        view = ConversationView(self._reader, unmasked=self._options.unmasked)
        if asked.page == "conversation":
            shown = await view.page(query)
            shown |= self._about(name)
            return await asyncio.to_thread(_page, 200, "conversation.html", **shown)
        if asked.page == "state":
            return _json(200, {"state": await view.state(query)})
        news = await view.tail(query)
        return _json(200, news) if news else Answer(204, b"", JSON, SAFE_HEADERS)

    async def _list(self, wanted: Search, name: str) -> Answer:
        found = await search(self._store, self._reader, wanted)
        shown = {"wanted": wanted, "found": found, **self._about(name)}
        return await asyncio.to_thread(_page, 200, "list.html", **shown)

    def _about(self, name: str) -> dict[str, Any]:
        is_named = not self._gate.is_open and name.startswith("inspector: ")
        return {
            "backend": self._store.backend_name,
            "zone": zone_name(),
            "reader": name.removeprefix("inspector: ") if is_named else "",
        }


def _is_from_here(asked: Asked) -> bool:
    """Whether a form was sent by our own page, as far as the browser says."""
    site = asked.headers.get("sec-fetch-site", "same-origin")
    return site in ("same-origin", "none")


def _fields(text: str) -> dict[str, str]:
    try:
        pairs = parse_qsl(
            text,
            keep_blank_values=True,
            errors="replace",
            max_num_fields=MAX_QUERY_FIELDS,
        )
    except ValueError:
        return {}
    return dict(pairs)


def _static(name: str) -> Answer:
    kept = ("cache-control", "public, max-age=31536000, immutable")
    return Answer(200, static_file(name), STATIC_TYPES[name], (*SAFE_HEADERS, kept))


def _page(status: int, template: str, **values: Any) -> Answer:
    text = render(template, **values)
    # What no encoding has is escaped by then; this is for what nobody thought of.
    return Answer(status, text.encode("utf-8", "backslashreplace"), HTML, SAFE_HEADERS)


def _json(status: int, value: Mapping[str, Any]) -> Answer:
    return Answer(status, json.dumps(value).encode(), JSON, SAFE_HEADERS)


def _redirect(place: str) -> Answer:
    return Answer(303, b"", HTML, (*SAFE_HEADERS, ("location", place)))


def _with(answer: Answer, header: tuple[str, str]) -> Answer:
    headers = (*answer.headers, header)
    return Answer(answer.status, answer.body, answer.content_type, headers)


def _error(status: int, title: str, text: str) -> Answer:
    return _page(status, "error.html", title=title, text=text)


def _failure(asked: Asked, status: int, title: str, text: str) -> Answer:
    if asked.page in ("tail", "state"):
        return _json(status, {"error": f"{title}. {text}"})
    return _error(status, title, text)
