"""The error table: what PyMongo raises, for Motor too, and what we raise for it.

The driver's text is passed on only where it speaks of connecting and of rights:
elsewhere it may quote a document, and so the text of a message.
"""

from __future__ import annotations

import re
import ssl
from enum import Enum

from bson.errors import BSONError
from pymongo import errors as driver

from tracker_store_async import errors


class Kind(Enum):
    """What went wrong."""

    UNAVAILABLE = (
        "cannot be reached: check host, and whether tls is as the server wants it"
    )
    LOST = "closed or lost the connection"
    BUSY = "has no space or resources left for us"
    NO_PRIMARY = "has no primary that takes writes at the moment"
    TIMEOUT = "did not answer in time; what it was asked to do may be done"
    POOL = (
        "has all connections of the pool in use: raise pool_size or "
        "pool_timeout_seconds"
    )
    TLS = "and this client do not agree on TLS: check tls and the tls_ files"
    ACCESS = (
        "refused the credentials or the rights they carry: check username, password "
        "and auth_source"
    )
    INDEX = (
        "holds other indexes on these collections: drop them, or name another "
        "`collection`"
    )
    TOO_LARGE = "refused what was sent, because a document may have 16 MB at most"
    SETTING = (
        "cannot be used with these settings: `host` must be a MongoDB URL, with "
        "special characters in user and password percent-encoded, and its options "
        "and the tls_ files must be right"
    )
    DATA = "refused what was sent"


_RAISED: dict[Kind, type[errors.TrackerStoreError]] = {
    Kind.UNAVAILABLE: errors.StoreUnavailableError,
    Kind.LOST: errors.StoreUnavailableError,
    Kind.BUSY: errors.StoreUnavailableError,
    Kind.NO_PRIMARY: errors.StoreUnavailableError,
    Kind.TIMEOUT: errors.StoreTimeoutError,
    Kind.POOL: errors.StoreTimeoutError,
    Kind.TLS: errors.StoreUnavailableError,
    Kind.ACCESS: errors.StoreAccessError,
    Kind.INDEX: errors.SchemaError,
    Kind.TOO_LARGE: errors.StoreDataError,
    Kind.SETTING: errors.ConfigurationError,
    Kind.DATA: errors.StoreDataError,
}

_QUOTED = {Kind.UNAVAILABLE, Kind.TLS}
"""Kinds whose driver text speaks of names and addresses only."""

_CODES: dict[int, Kind] = {
    **dict.fromkeys((11, 13, 18, 33, 334, 8000), Kind.ACCESS),
    **dict.fromkeys((6, 7, 9001, 91, 11600, 11602), Kind.LOST),
    **dict.fromkeys((189, 10107, 10058, 11601, 13435, 13436), Kind.NO_PRIMARY),
    **dict.fromkeys((50, 64, 89, 202, 262), Kind.TIMEOUT),
    **dict.fromkeys((24, 46, 112, 132, 133, 146, 365, 14031), Kind.BUSY),
    **dict.fromkeys((67, 85, 86, 197), Kind.INDEX),
    **dict.fromkeys((10334, 17280, 17419, 17420), Kind.TOO_LARGE),
}
"""Server's error code to kind; the rest is `DATA`."""

_TLS_WORDS = ("ssl", "tls", "certificate")

_DRIVER_MODULES = ("pymongo", "motor", "bson", "gridfs")


def driver_error(error: BaseException) -> BaseException:
    """Return the error of the driver itself: nothing wraps it here."""
    return error


def code_of(error: BaseException) -> str | int | None:
    """Return the server's error code, or None."""
    if isinstance(error, driver.BulkWriteError):
        details = error.details or {}
        kinds = ("writeErrors", "writeConcernErrors")
        failed = [each for kind in kinds for each in details.get(kind, ())]
        return (failed[0].get("code") if failed else None) or error.code
    if isinstance(error, driver.OperationFailure):
        return error.code
    return None


def kind_of(error: BaseException) -> Kind | None:
    """Return what went wrong, or None if the error is not about the storage."""
    if isinstance(error, driver.OperationFailure):
        return _kind_of_refusal(error)
    if isinstance(error, driver.WaitQueueTimeoutError):
        return Kind.POOL
    if isinstance(error, driver.ConfigurationError):
        is_lookup = "DNS" in str(error) or "resolution" in str(error)
        return Kind.UNAVAILABLE if is_lookup else Kind.SETTING
    if isinstance(error, driver.ConnectionFailure):
        return _kind_of_connection(error)
    if isinstance(error, driver.DocumentTooLarge):
        return Kind.TOO_LARGE
    if isinstance(error, driver.InvalidOperation):
        return Kind.LOST if "close" in str(error) else Kind.DATA
    if isinstance(error, (driver.PyMongoError, BSONError, OverflowError, UnicodeError)):
        return Kind.DATA
    if isinstance(error, (FileNotFoundError, PermissionError)):
        return Kind.SETTING  # a file for TLS
    if isinstance(error, ssl.SSLError):
        return Kind.TLS
    if isinstance(error, TimeoutError):
        return Kind.TIMEOUT
    return Kind.UNAVAILABLE if isinstance(error, (OSError, EOFError)) else None


def _kind_of_refusal(error: driver.OperationFailure) -> Kind:
    if isinstance(error, driver.ExecutionTimeout) or error.timeout:
        return Kind.TIMEOUT
    return _CODES.get(int(code_of(error) or 0), Kind.DATA)


def _kind_of_connection(error: driver.ConnectionFailure) -> Kind:
    said = str(error).lower()
    if any(word in said for word in _TLS_WORDS):
        return Kind.TLS
    if isinstance(error, driver.ServerSelectionTimeoutError):
        return Kind.UNAVAILABLE
    if isinstance(error, driver.NotPrimaryError):
        return Kind.NO_PRIMARY
    if isinstance(error, driver.NetworkTimeout) or error.timeout:
        return Kind.TIMEOUT
    return Kind.LOST


def translate(error: BaseException, where: str) -> errors.TrackerStoreError | None:
    """Return our error for what a driver raised, or None if it is not about that.

    Args:
        error: What was raised.
        where: What the sentence begins with, such as `mongodb at 127.0.0.1/rasa`.
    """
    kind = kind_of(error)
    if kind is None:
        return None
    text = f"{where} {kind.value}"
    detail = _detail(error, kind)
    return _RAISED[kind](f"{text} ({detail})" if detail else text)


def _detail(error: BaseException, kind: Kind) -> str:
    code = code_of(error)
    said = _first_reason(error) if kind in _QUOTED else ""
    named = "" if code is None else f"code {code}"
    return ", ".join(filter(None, (said, named)))


def _first_reason(error: BaseException) -> str:
    """Return the driver's reason without its description of the whole topology."""
    said = re.split(r", Timeout: |\(configured timeouts|,\s*Topology", str(error))[0]
    return said.strip().splitlines()[0] if said.strip() else ""
