"""Turning the errors of drivers into ours; each backend brings its own table.

A driver's text may quote what it was given, and so the text of a message. Our errors
are chained to a :class:`DriverError`, which has the driver's traceback and code but not
its text; a table passes on text only where it speaks of connecting and of rights.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from tracker_store_async import errors
from tracker_store_async.credentials import forget

if TYPE_CHECKING:
    from types import TracebackType


class DriverError(Exception):
    """What a driver raised: its class and code, without what it was given."""


class ErrorTable(Protocol):
    """What a backend knows of its driver's errors; a module of functions fits."""

    def driver_error(self, error: BaseException) -> BaseException:
        """Return the error of the driver itself, below what wraps it."""

    def code_of(self, error: BaseException) -> str | int | None:
        """Return the code that the server gave, or None."""

    def translate(
        self, error: BaseException, where: str
    ) -> errors.TrackerStoreError | None:
        """Return our error for a driver's, or None if it is not about the storage."""


def redacted(error: BaseException, table: ErrorTable) -> DriverError:
    """Return what to chain our error to: class, code and traceback, without text."""
    inner = table.driver_error(error)
    code = table.code_of(inner)
    name = f"{type(inner).__module__}.{type(inner).__qualname__}"
    shown = DriverError(name if code is None else f"{name}, code {code}")
    return shown.with_traceback(error.__traceback__)


class Translated:
    """A context that turns the errors of a driver into ours.

    Args:
        where: What the sentences begin with, such as `postgresql at 127.0.0.1/rasa`.
        table: The backend's error table.
        login: What is asked for the credentials: it is told when they are refused.
    """

    def __init__(self, where: str, table: ErrorTable, login: object = None) -> None:
        self._where = where
        self._table = table
        self._login = login

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Raise our error in place of a driver's."""
        if not isinstance(error, Exception) or isinstance(
            error, errors.TrackerStoreError
        ):
            return
        ours = self._table.translate(error, self._where)
        if isinstance(ours, errors.StoreAccessError):
            forget(self._login)
        if ours is not None:
            raise ours from redacted(error, self._table)
