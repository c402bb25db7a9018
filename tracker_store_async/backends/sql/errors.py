"""The error table: what drivers, SQLAlchemy and the OS raise, and what we raise for it.

A driver's text is passed on only where it speaks of connecting and of rights: elsewhere
it may quote what it was given, and so the text of a message.
"""

from __future__ import annotations

import re
import ssl
from enum import Enum
from typing import Any

from sqlalchemy import exc

from tracker_store_async import errors


class Kind(Enum):
    """What went wrong, whatever the database."""

    UNAVAILABLE = "cannot be reached: check host and port, and that the server runs"
    FILE = (
        "cannot be reached: check the path, the rights on the file and its folder, and "
        "the disk"
    )
    LOST = "closed or lost the connection"
    BUSY = "has no connection or space left for us"
    READ_ONLY = "is read-only at the moment"
    TIMEOUT = "did not answer in time; what it was asked to do may be done"
    LOCKED = "was locked by another process or transaction for too long"
    CONTENDED = "kept ending the transaction in favour of others"
    POOL = (
        "has all connections of the pool in use: raise pool_size or "
        "pool_timeout_seconds"
    )
    TLS = "and this client do not agree on TLS: check ssl_mode and the ssl_ files"
    ACCESS = (
        "refused the credentials or the rights they carry: check username, password "
        "and grants"
    )
    FILE_ACCESS = "refused access: check the rights on the file and its folder"
    NO_DATABASE = (
        "has no such database: check `db`, or create it (with PostgreSQL, "
        "`login_db: postgres` has it created)"
    )
    NO_TABLE = (
        "lacks a table, column or schema of the layout: run `tracker-store schema "
        "upgrade` with a role that may create tables, or check `db` and `schema`"
    )
    DAMAGED = "is damaged or is not a database"
    DATA = "refused what was sent"


_RAISED: dict[Kind, type[errors.TrackerStoreError]] = {
    Kind.UNAVAILABLE: errors.StoreUnavailableError,
    Kind.FILE: errors.StoreUnavailableError,
    Kind.LOST: errors.StoreUnavailableError,
    Kind.BUSY: errors.StoreUnavailableError,
    Kind.READ_ONLY: errors.StoreUnavailableError,
    Kind.TIMEOUT: errors.StoreTimeoutError,
    Kind.LOCKED: errors.StoreTimeoutError,
    Kind.CONTENDED: errors.StoreUnavailableError,
    Kind.POOL: errors.StoreTimeoutError,
    Kind.TLS: errors.StoreUnavailableError,
    Kind.ACCESS: errors.StoreAccessError,
    Kind.FILE_ACCESS: errors.StoreAccessError,
    Kind.NO_DATABASE: errors.StoreUnavailableError,
    Kind.NO_TABLE: errors.SchemaError,
    Kind.DAMAGED: errors.StoreDataError,
    Kind.DATA: errors.StoreDataError,
}

_QUOTED = {
    *(Kind.UNAVAILABLE, Kind.FILE, Kind.BUSY, Kind.TLS),
    *(Kind.ACCESS, Kind.FILE_ACCESS, Kind.NO_DATABASE),
}
"""Kinds whose driver text speaks of names and addresses only."""

_SQLSTATES: dict[str, Kind] = {
    "08": Kind.LOST,
    "0A000": Kind.DATA,
    "25006": Kind.READ_ONLY,
    "26": Kind.LOST,  # a prepared statement is gone: the connection is not ours alone
    "28": Kind.ACCESS,
    "3D": Kind.NO_DATABASE,
    "3F": Kind.NO_TABLE,
    "40": Kind.CONTENDED,
    "42501": Kind.ACCESS,
    "42703": Kind.NO_TABLE,
    "42P01": Kind.NO_TABLE,
    "53": Kind.BUSY,
    "55P03": Kind.LOCKED,
    "57014": Kind.TIMEOUT,
    "57": Kind.LOST,
    "58": Kind.BUSY,
    "XX001": Kind.DAMAGED,
    "XX002": Kind.DAMAGED,
}
"""PostgreSQL: SQLSTATE, or the class it begins with, to kind."""

_MYSQL_CODES: dict[int, Kind] = {
    **dict.fromkeys((0, 1053, 1077, 1152, 1927, 2006, 2013, 2014, 2055), Kind.LOST),
    **dict.fromkeys((1158, 1159, 1160, 1161, 4031), Kind.LOST),
    **dict.fromkeys((2002, 2003, 2005, 1042, 1129, 1130), Kind.UNAVAILABLE),
    **dict.fromkeys((1021, 1040, 1041, 1114, 1203, 1226), Kind.BUSY),
    **dict.fromkeys((1290, 1792, 1836), Kind.READ_ONLY),
    **dict.fromkeys((1317, 1969, 3024), Kind.TIMEOUT),
    **dict.fromkeys((1205, 1684, 3572), Kind.LOCKED),
    **dict.fromkeys((1020, 1213, 1412), Kind.CONTENDED),
    **dict.fromkeys((2026, 3159), Kind.TLS),
    **dict.fromkeys((1044, 1045, 1142, 1143, 1227, 1251, 1370, 1698), Kind.ACCESS),
    **dict.fromkeys((1820, 1862, 2049, 2059, 2061, 4151), Kind.ACCESS),
    1049: Kind.NO_DATABASE,
    **dict.fromkeys((1054, 1146), Kind.NO_TABLE),
}
"""MySQL and MariaDB: error number to kind; the rest is `DATA`."""

_SQLITE_CODES: dict[int, Kind] = {
    3: Kind.FILE_ACCESS,  # PERM
    5: Kind.LOCKED,  # BUSY
    6: Kind.LOCKED,  # LOCKED
    8: Kind.FILE_ACCESS,  # READONLY
    10: Kind.FILE,  # IOERR
    11: Kind.DAMAGED,  # CORRUPT
    13: Kind.BUSY,  # FULL
    14: Kind.FILE,  # CANTOPEN
    15: Kind.LOCKED,  # PROTOCOL
    23: Kind.FILE_ACCESS,  # AUTH
    26: Kind.DAMAGED,  # NOTADB
}
"""SQLite: primary result code to kind; the rest is `DATA`."""

_ORACLE_CODES: dict[int, Kind] = {
    **dict.fromkeys((28, 1012, 1033, 1034, 1089, 3113, 3114, 3135), Kind.LOST),
    **dict.fromkeys((12154, 12170, 12203, 12537, 12541, 12543), Kind.UNAVAILABLE),
    **dict.fromkeys((18, 20, 1652, 1653, 1654, 1691, 12516, 12519, 12520), Kind.BUSY),
    12545: Kind.UNAVAILABLE,
    **dict.fromkeys((1456, 16000), Kind.READ_ONLY),
    **dict.fromkeys((1013, 3136), Kind.TIMEOUT),
    **dict.fromkeys((54, 30006), Kind.LOCKED),
    **dict.fromkeys((60, 8177), Kind.CONTENDED),
    **dict.fromkeys((1005, 1017, 1031, 1045, 28000, 28001), Kind.ACCESS),
    **dict.fromkeys((12505, 12514), Kind.NO_DATABASE),
    **dict.fromkeys((904, 942, 4043), Kind.NO_TABLE),
}
"""Oracle: number after `ORA-` to kind; the rest is `DATA`."""

_ORACLE_DRIVER_CODES: dict[str, Kind] = {
    "DPY-1001": Kind.LOST,
    "DPY-4011": Kind.LOST,
    "DPY-4024": Kind.TIMEOUT,
    "DPY-4001": Kind.ACCESS,
    "DPY-6000": Kind.UNAVAILABLE,
    "DPY-6001": Kind.NO_DATABASE,
    "DPY-6003": Kind.NO_DATABASE,
    "DPY-6005": Kind.UNAVAILABLE,
}

_PSYCOPG_TEXTS: tuple[tuple[str, Kind], ...] = (
    ("authentication failed", Kind.ACCESS),
    ("no password supplied", Kind.ACCESS),
    ("pg_hba.conf", Kind.ACCESS),
    ('fatal:  role "', Kind.ACCESS),
    ('fatal:  database "', Kind.NO_DATABASE),
    ("too many", Kind.BUSY),
    ("connection slots", Kind.BUSY),
    ("ssl error", Kind.TLS),
    ("support ssl", Kind.TLS),
    ("certificate", Kind.TLS),
    ("connection failed", Kind.UNAVAILABLE),
    ("connection attempts failed", Kind.UNAVAILABLE),
    ("connection timeout", Kind.UNAVAILABLE),
    ("[errno", Kind.UNAVAILABLE),
    ("failed to resolve host", Kind.UNAVAILABLE),
)
"""psycopg: what it says without a code while it connects, first match first."""

_PSYCOPG_CONNECTION_ERRORS = ("OperationalError", "ConnectionTimeout")
"""psycopg's classes for a connection that never was, or is no more, when libpq gives no
SQLSTATE."""

_DRIVER_MODULES = (
    "asyncpg",
    "asyncmy",
    "oracledb",
    "psycopg",
    "sqlite3",
    "sqlalchemy",
)
"""Where drivers' errors are defined; SQLAlchemy adapts some of them."""

_CLOSED_TEXTS = ("connection closed", "no active connection", "is closed")


def driver_error(error: BaseException) -> BaseException:
    """Return the error of the driver itself, below SQLAlchemy's wrapping."""
    while isinstance(error, exc.StatementError) and error.orig is not None:
        error = error.orig
    return error


def kind_of(error: BaseException) -> Kind | None:
    """Return what went wrong, or None if the error is not about the database."""
    error = driver_error(error)
    if isinstance(error, exc.TimeoutError):
        return Kind.POOL
    if isinstance(error, ssl.SSLError) or isinstance(error.__cause__, ssl.SSLError):
        return Kind.TLS
    if isinstance(error, ConnectionError) and "rejected SSL" in str(error):
        return Kind.TLS
    if isinstance(error, TimeoutError):
        return Kind.TIMEOUT
    return _coded_kind(error) or _plain_kind(error)


def _coded_kind(error: BaseException) -> Kind | None:
    code = code_of(error)
    if code is None:
        return None
    if isinstance(code, str):
        if code.startswith("DPY-"):
            return _ORACLE_DRIVER_CODES.get(code, Kind.DATA)
        return _SQLSTATES.get(code) or _SQLSTATES.get(code[:2], Kind.DATA)
    if hasattr(error, "sqlite_errorcode"):
        if code & 0xFF == 1 and str(error).startswith("no such"):
            return Kind.NO_TABLE
        return _SQLITE_CODES.get(code & 0xFF, Kind.DATA)
    if _oracle_details(error) is not None:
        return _ORACLE_CODES.get(code, Kind.DATA)
    return _MYSQL_CODES.get(code, Kind.DATA)


def code_of(error: BaseException) -> str | int | None:
    """Return the SQLSTATE or the error number that the database gave, or None."""
    error = driver_error(error)
    number = getattr(error, "sqlite_errorcode", None)
    if isinstance(number, int):
        return number
    oracle = _oracle_details(error)
    if oracle is not None:
        full = str(getattr(oracle, "full_code", ""))
        return full if full.startswith("DPY-") else int(oracle.code)
    first = error.args[0] if error.args else None
    is_driver = not isinstance(error, (OSError, exc.SQLAlchemyError))
    if is_driver and type(first) is int:
        return first  # MySQL's errors have an SQLSTATE too, which says less
    sqlstate = getattr(error, "sqlstate", None)
    return sqlstate if isinstance(sqlstate, str) and sqlstate else None


def _oracle_details(error: BaseException) -> Any:
    first = error.args[0] if error.args else None
    return first if hasattr(first, "full_code") and hasattr(first, "code") else None


def _plain_kind(error: BaseException) -> Kind | None:
    if isinstance(error, (OSError, EOFError)):
        return Kind.UNAVAILABLE
    module = type(error).__module__.partition(".")[0]
    if isinstance(error, (UnicodeError, OverflowError)):
        return Kind.DATA
    if module not in _DRIVER_MODULES or isinstance(error, exc.SQLAlchemyError):
        # aiosqlite says so with a plain ValueError.
        is_closed = type(error) is ValueError and str(error).lower() in _CLOSED_TEXTS
        return Kind.LOST if is_closed else None
    if type(error).__name__ == "InternalClientError":
        # asyncpg's, on a connection that the server ended while it lay idle.
        return Kind.LOST
    said = str(error).lower()
    if module == "psycopg" and type(error).__name__ in _PSYCOPG_CONNECTION_ERRORS:
        return next((kind for text, kind in _PSYCOPG_TEXTS if text in said), Kind.LOST)
    return Kind.LOST if any(text in said for text in _CLOSED_TEXTS) else Kind.DATA


def is_contended(error: BaseException) -> bool:
    """Whether the database gave way to another transaction: trying again is right."""
    return kind_of(error) in (Kind.CONTENDED, Kind.LOCKED)


def translate(error: BaseException, where: str) -> errors.TrackerStoreError | None:
    """Return our error for what a driver raised, or None if it is not about that.

    Args:
        error: What was raised.
        where: What the sentence begins with, such as `postgresql at 127.0.0.1/rasa`.
    """
    kind = kind_of(error)
    if kind is None:
        return None
    text = f"{where} {kind.value}"
    detail = _detail(error, kind)
    return _RAISED[kind](f"{text} ({detail})" if detail else text)


def _detail(error: BaseException, kind: Kind) -> str:
    error = driver_error(error)
    code = code_of(error)
    said = ""
    if kind in _QUOTED or isinstance(error, OSError):
        said = _first_line(error)
    named = "" if code is None else f"code {code}"
    return ", ".join(filter(None, (said, named)))


def _first_line(error: BaseException) -> str:
    # MySQL's errors are a number and a text.
    said = error.args[1] if len(error.args) == 2 else error
    if isinstance(error, OSError):
        said = error
    lines = str(said).strip().splitlines() or [""]
    # SQLAlchemy's adapters put the class first: "<class 'asyncpg...'>: text".
    return re.sub(r"^<class '[\w.]+'>: ", "", lines[0])
