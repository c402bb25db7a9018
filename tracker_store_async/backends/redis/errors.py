"""The error table: what redis-py and the OS raise, and what we raise for it."""

from __future__ import annotations

import asyncio
import re
import ssl
from enum import Enum

from redis import exceptions as exc
from redis.asyncio.sentinel import MasterNotFoundError

from tracker_store_async import errors
from tracker_store_async.backends.redis.credentials import CredentialsMissingError


class Kind(Enum):
    """What went wrong."""

    UNAVAILABLE = "cannot be reached: check host and port, and that the server runs"
    LOST = "lost the connection; what it was asked to do may be done"
    BUSY = "cannot serve us at the moment"
    READ_ONLY = "is read-only at the moment: a replica, or too few replicas answer"
    FULL = "has no memory left: raise maxmemory, or set record_exp"
    TIMEOUT = "did not answer in time; what it was asked to do may be done"
    TLS = "and this client do not agree on TLS: check use_ssl and the ssl_ files"
    ACCESS = (
        "refused the credentials or the rights they carry: check username, password "
        "and the ACL"
    )
    NO_MASTER = "sentinels know no such master: check endpoints and sentinel_service"
    NO_CLUSTER = "is no cluster, or not all of it is up: check deployment_mode"
    WRONG_TYPE = "holds something of another kind under one of our keys: set key_prefix"
    DATA = "refused what was sent"


_RAISED: dict[Kind, type[errors.TrackerStoreError]] = {
    Kind.TIMEOUT: errors.StoreTimeoutError,
    Kind.ACCESS: errors.StoreAccessError,
    Kind.WRONG_TYPE: errors.StoreDataError,
    Kind.DATA: errors.StoreDataError,
}
"""The rest is `StoreUnavailableError`."""

_QUOTED = {Kind.UNAVAILABLE, Kind.TLS}
"""Kinds whose text speaks of addresses only."""

_CODES: dict[str, Kind] = {
    **dict.fromkeys(("NOAUTH", "WRONGPASS", "NOPERM"), Kind.ACCESS),
    **dict.fromkeys(("READONLY", "NOREPLICAS"), Kind.READ_ONLY),
    **dict.fromkeys(("BUSY", "LOADING", "MASTERDOWN", "TRYAGAIN"), Kind.BUSY),
    **dict.fromkeys(("MISCONF", "UNBLOCKED", "MAXCLIENTS"), Kind.BUSY),
    **dict.fromkeys(("CLUSTERDOWN", "MOVED", "ASK", "CROSSSLOT"), Kind.NO_CLUSTER),
    "OOM": Kind.FULL,
    "WRONGTYPE": Kind.WRONG_TYPE,
}
"""The word that a server's error begins with, to kind."""

_CLASSES: tuple[tuple[type[BaseException], Kind], ...] = (
    (exc.AuthenticationError, Kind.ACCESS),
    (exc.AuthorizationError, Kind.ACCESS),
    (exc.NoPermissionError, Kind.ACCESS),
    (exc.AuthenticationWrongNumberOfArgsError, Kind.ACCESS),
    (exc.BusyLoadingError, Kind.BUSY),
    (exc.ReadOnlyError, Kind.READ_ONLY),
    (exc.OutOfMemoryError, Kind.FULL),
    (MasterNotFoundError, Kind.NO_MASTER),
    (exc.ClusterDownError, Kind.NO_CLUSTER),
    (exc.TimeoutError, Kind.TIMEOUT),
    (asyncio.TimeoutError, Kind.TIMEOUT),
    (exc.MaxConnectionsError, Kind.BUSY),
)


_SCRIPT_DENIED = ("acl failure in script", "the user executing the script can't")
"""What Redis from 7.2 on, and 7.0, say to a user who has not the rights for what a
script does."""


_OF_A_SCRIPT = re.compile(
    r"(?:ERR )?Error running script \(call to f_\w+\): (?:@\w+: ?\d+: ?)+-?([A-Z]+) "
)
"""What Redis before 7 wraps around the answer to a command of a script."""


def driver_error(error: BaseException) -> BaseException:
    """Return the error itself: redis-py wraps nothing."""
    return error


def code_of(error: BaseException) -> str | None:
    """Return the word that the server's answer began with, or None."""
    if not isinstance(error, exc.ResponseError):
        return None
    within = _OF_A_SCRIPT.match(str(error))
    if within is not None:
        return within[1]
    first = str(error).partition(" ")[0]
    # a script's error ends with its own name and line
    return first if first.isupper() and first.isalpha() else None


def is_read_only(error: object) -> bool:
    """Whether a server says that it is a replica."""
    return isinstance(error, exc.ResponseError) and (
        isinstance(error, exc.ReadOnlyError) or code_of(error) == "READONLY"
    )


def kind_of(error: BaseException) -> Kind | None:
    """Return what went wrong, or None if the error is not about the server."""
    chain = _chain_of(error)
    if isinstance(error, (exc.RedisError, OSError)) and any(
        isinstance(each, ssl.SSLError) for each in chain
    ):
        return Kind.TLS
    if isinstance(error, AttributeError) and _was_raised_by_redis(error):
        # On a cluster whose nodes change, redis-py disconnects a connection that it is
        # just making; then it trips over the writer that is gone.
        return Kind.LOST
    for kind_of_error, kind in _CLASSES:
        if isinstance(error, kind_of_error):
            return kind
    return _said_kind(error, chain)


def _chain_of(error: BaseException) -> list[BaseException]:
    chain = [error]
    while (inner := chain[-1].__cause__ or chain[-1].__context__) is not None:
        if inner in chain:
            break
        chain.append(inner)
    return chain


def _was_raised_by_redis(error: BaseException) -> bool:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    module = "" if trace is None else trace.tb_frame.f_globals.get("__name__", "")
    return str(module).startswith("redis.")


def _said_kind(error: BaseException, chain: list[BaseException]) -> Kind | None:
    code = code_of(error)
    said = str(error).lower()
    if code is not None and code in _CODES:
        return _CODES[code]
    if isinstance(error, exc.ResponseError) and any(t in said for t in _SCRIPT_DENIED):
        return Kind.ACCESS
    if "noscript" in said or "cluster support disabled" in said:
        return Kind.NO_CLUSTER
    if isinstance(error, exc.RedisClusterException):
        causes = (kind_of(each) for each in chain[1:])
        return next((kind for kind in causes if kind), Kind.NO_CLUSTER)
    if isinstance(error, (exc.ConnectionError, OSError, EOFError)):
        return Kind.ACCESS if "invalid username" in said else Kind.UNAVAILABLE
    return Kind.DATA if isinstance(error, (exc.RedisError, UnicodeError)) else None


def translate(error: BaseException, where: str) -> errors.TrackerStoreError | None:
    """Return our error for what the driver raised, or None if it is not about that.

    Args:
        error: What was raised.
        where: What the sentence begins with, such as `redis at 127.0.0.1:6379`.
    """
    for each in _chain_of(error):
        if isinstance(each, CredentialsMissingError):
            return type(each.ours)(f"{where}: {each.ours}")
    kind = kind_of(error)
    if kind is None:
        return None
    text = f"{where} {kind.value}"
    detail = code_of(error) or ""
    if kind in _QUOTED:
        detail = (str(error).strip().splitlines() or [""])[0]
    raised = _RAISED.get(kind, errors.StoreUnavailableError)
    return raised(f"{text} ({detail})" if detail else text)
