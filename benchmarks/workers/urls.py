"""The URL of a place in the forms that drivers want it in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

if TYPE_CHECKING:
    from benchmarks.contestant import Place

SQLITE_TIMEOUT_SECONDS = 60


def sqlalchemy_engine_arguments(
    place: Place, file_name: str
) -> tuple[str, dict[str, Any]]:
    """Return the URL and the arguments of an async engine that uses the place."""
    if place.backend == "sqlite":
        url = f"sqlite+aiosqlite:///{place.folder}/{file_name}"
        # long enough for 64 conversations that wait for one writer
        return url, {"connect_args": {"timeout": SQLITE_TIMEOUT_SECONDS}}
    parts = urlsplit(place.url)
    query = dict(parse_qsl(parts.query))
    connect: dict[str, Any] = {"server_settings": {"search_path": place.namespace}}
    if mode := query.pop("sslmode", None):  # which asyncpg calls so in URLs alone
        connect["ssl"] = mode
    parts = parts._replace(scheme="postgresql+asyncpg", query=urlencode(query))
    return urlunsplit(parts), {
        "connect_args": connect,
        "pool_size": place.connection_count,
        "max_overflow": 0,
    }


def libpq_url(place: Place) -> str:
    """Return the URL for psycopg, with the schema in front of the search path."""
    parts = urlsplit(place.url)
    options = "options=" + quote(f"-c search_path={place.namespace}")
    query = f"{parts.query}&{options}" if parts.query else options
    return urlunsplit(parts._replace(query=query))


def address_of(url: str, default_port: int) -> dict[str, Any]:
    """Return host, port, user, password and database of a URL."""
    parts = urlsplit(url)
    return {
        "host": parts.hostname or "127.0.0.1",
        "port": parts.port or default_port,
        "user": unquote(parts.username) if parts.username else None,
        "password": unquote(parts.password) if parts.password else None,
        "database": parts.path.lstrip("/") or None,
    }
