"""Who is let in: whoever has the token, in a header or in a cookie that it signs."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from urllib.parse import urlsplit

from tracker_store_async.errors import ConfigurationError

MIN_TOKEN_LENGTH = 16


class Gate:
    """Compares with the token, in constant time.

    Args:
        token: At least 16 characters; None lets everybody in.

    Attributes:
        is_open: Whether everybody is let in.

    Raises:
        ConfigurationError: The token is too short.
    """

    def __init__(self, token: str | None) -> None:
        if token is not None and len(token) < MIN_TOKEN_LENGTH:
            raise ConfigurationError(
                f"the token must have at least {MIN_TOKEN_LENGTH} characters, so that "
                "nobody guesses it"
            )
        self.is_open = token is None
        self._token = b"" if token is None else token.encode()

    def lets_in(self, authorization: str | None) -> bool:
        """Whether the header of that name holds the token."""
        if self.is_open:
            return True
        scheme, _, given = (authorization or "").partition(" ")
        return self.matches(given.strip()) and scheme.lower() == "bearer"

    def matches(self, given: str) -> bool:
        """Whether this is the token; how long it takes does not tell."""
        return hmac.compare_digest(_encoded(given), self._token) and not self.is_open

    def signature(self, text: str) -> str:
        """Return what only somebody with the token can make of a text."""
        return hmac.new(self._token, _encoded(text), hashlib.sha256).hexdigest()


def _encoded(text: str) -> bytes:
    """Return the bytes of what a header held; Sanic hands on any as surrogates."""
    return text.encode("utf-8", "surrogatepass")


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach what listens there."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def names_loopback(host_header: str) -> bool:
    """Whether the header `Host` of a request names this machine by its loopback.

    A page of somebody else's may have its own name lead here (DNS rebinding): what a
    browser then sends has that name.
    """
    try:
        return is_loopback(urlsplit(f"//{host_header}").hostname or "")
    except ValueError:
        return False
