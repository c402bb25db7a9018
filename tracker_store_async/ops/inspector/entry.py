"""Signing in: the token once in a form, then a cookie that the token signs.

The cookie holds a name, for the audit trail, and when it expires; never the token. It
has no path of its own: browsers then send it to the inspector alone, wherever that is
mounted. Another token makes every cookie worthless.
"""

from __future__ import annotations

import base64
import hmac
import json
import re
import time
from typing import TYPE_CHECKING
from urllib.parse import urlencode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tracker_store_async.ops.access import Gate

COOKIE = "tracker_store_inspector"
LIFETIME_SECONDS = 12 * 3600
MAX_NAME_LENGTH = 100

_PLACES = re.compile(r"(?:\./|conversation)(?:\?[!-~]{0,4000})?")
"""Where one may be sent after signing in: nothing that leaves the inspector."""


class Entry:
    """Gives out cookies, and recognises them.

    Args:
        gate: Has the token.
        now: Tells the time, in seconds since the epoch.
    """

    def __init__(self, gate: Gate, now: Callable[[], float] = time.time) -> None:
        self._gate = gate
        self._now = now

    def cookie_for(self, name: str, *, is_https: bool) -> str:
        """Return the `Set-Cookie` of somebody who gave the right token."""
        expires = int(self._now()) + LIFETIME_SECONDS
        held = json.dumps([name[:MAX_NAME_LENGTH], expires]).encode()
        text = base64.urlsafe_b64encode(held).decode().rstrip("=")
        value = f"{text}.{self._gate.signature(f'inspector {text}')}"
        return _set_cookie(value, LIFETIME_SECONDS, is_https=is_https)

    def name_in(self, cookies: str | None) -> str | None:
        """Return the name that signed in, or None if there is no valid cookie.

        Args:
            cookies: The header `Cookie`, or None.
        """
        found = map(self._name_in_one, _values(cookies or ""))
        return next(filter(None, found), None)

    def _name_in_one(self, value: str) -> str | None:
        text, _, signature = value.partition(".")
        expected = self._gate.signature(f"inspector {text}")
        # As bytes, since a text must be ASCII to be compared so.
        given = signature.encode("utf-8", "surrogatepass")
        if not text or not hmac.compare_digest(given, expected.encode()):
            return None
        padding = "=" * (-len(text) % 4)
        name, expires = json.loads(base64.urlsafe_b64decode(text + padding))
        return str(name) if expires > self._now() else None


def _values(cookies: str) -> Iterator[str]:
    """Yield the values of our cookie; the standard library gives up at odd ones.

    Whatever else runs on this host, at any port, sends its cookies here too.
    """
    for part in cookies.split(";"):
        name, _, value = part.strip().partition("=")
        if name == COOKIE:
            yield value


def forget_cookie(*, is_https: bool) -> str:
    """Return the `Set-Cookie` that signs somebody out."""
    return _set_cookie("", 0, is_https=is_https)


def _set_cookie(value: str, seconds: int, *, is_https: bool) -> str:
    rules = f"Max-Age={seconds}; HttpOnly; SameSite=Strict"
    return f"{COOKIE}={value}; {rules}{'; Secure' if is_https else ''}"


def sign_in_link(page: str, query: str) -> str:
    """Return the link to the form, from which one comes back to a page."""
    here = f"{page or './'}{f'?{query}' if query else ''}"
    return f"sign-in?{urlencode({'next': safe_place(here)})}"


def safe_place(place: str) -> str:
    """Return a link within the inspector: this one, or the list."""
    return place if _PLACES.fullmatch(place) else "./"
