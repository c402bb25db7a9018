"""Passwords that change: asked for anew whenever a connection is made."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeAlias

from tracker_store_async.errors import StoreAccessError, StoreUnavailableError

PasswordSource: TypeAlias = Callable[[], str | Awaitable[str]]
"""Returns the password of now; sync (then it is called in a thread) or async."""


class SecretFile:
    """A file that holds a password, read anew each time it is asked for.

    That is how Vault's agent and Kubernetes hand out secrets that are rotated.

    Args:
        path: Path of the file. Line ends behind the password do not count.
    """

    def __init__(self, path: str) -> None:
        self._path = Path(path)

    def __call__(self) -> str:
        """Return what the file holds now."""
        return self._path.read_text().rstrip("\r\n")

    def __repr__(self) -> str:
        """Name the file, which is no secret."""
        return f"SecretFile({str(self._path)!r})"


async def current_password(source: PasswordSource) -> str:
    """Return the password of now.

    Raises:
        StoreUnavailableError: The source cannot be reached at the moment.
        StoreAccessError: The source failed otherwise, or returned no text; the error
            says no more than the kind of what it raised.
    """
    try:
        if inspect.iscoroutinefunction(source):
            password = await source()
        else:
            password = await asyncio.to_thread(source)
            if inspect.isawaitable(password):
                password = await password
    except Exception as error:  # noqa: BLE001 - any failure of somebody else's code
        passes = isinstance(error, ConnectionError | TimeoutError)
        kind = StoreUnavailableError if passes else StoreAccessError
        # What it raised may hold a secret: it is not chained.
        raise kind(
            f"the password cannot be had: its source raised {type(error).__name__}"
        ) from None
    if not isinstance(password, str):
        raise StoreAccessError(
            f"the source of the password returned {type(password).__name__}, not text"
        )
    return password
