"""Which store a command line means: a file, a URL, or an `endpoints.yml`."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tracker_store_async.config import (
    TRACKER_STORE,
    EndpointConfig,
    read_endpoint_config,
)
from tracker_store_async.errors import ConfigurationError
from tracker_store_async.settings import mask_url, suggest

if TYPE_CHECKING:
    from collections.abc import Mapping

URL_VARIABLE = "TRACKER_STORE_URL"
DEFAULT_ENDPOINTS = "endpoints.yml"

_TYPE_OF_SCHEME = {
    "sqlite": "sql",
    "postgres": "sql",
    "postgresql": "sql",
    "mysql": "sql",
    "mariadb": "sql",
    "oracle": "sql",
    "redis": "redis",
    "rediss": "redis",
    "mongodb": "mongod",
    "mongodb+srv": "mongod",
}


@dataclass(frozen=True, slots=True)
class Target:
    """A configured store.

    Attributes:
        config: Its configuration.
        label: What to call it, without a password.
        option: How to name it again on a command line, without a password.
        file: The SQLite file, where the command line or the environment names one.
    """

    config: EndpointConfig
    label: str
    option: str
    file: Path | None = None


def find_target(
    db: str | None = None,
    url: str | None = None,
    endpoints: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> Target:
    """Return the store that the options name, or else the environment or the directory.

    Without an option it is `TRACKER_STORE_URL`, then `endpoints.yml` in the current
    directory.

    Args:
        db: Path of a SQLite file.
        url: URL of a database.
        endpoints: Path of an endpoints file.
        environment: The variables; None takes the process's own.

    Raises:
        ConfigurationError: No store is named, more than one is, or its URL or file is
            wrong.
    """
    if sum(option is not None for option in (db, url, endpoints)) > 1:
        raise ConfigurationError("give only one of --db, --url and --endpoints")
    if db is not None:
        return _file_target(db)
    if url is not None:
        return _url_target(url, "--url URL")
    if endpoints is not None:
        return _endpoints_target(endpoints)
    url = (os.environ if environment is None else environment).get(URL_VARIABLE)
    if url:
        return _url_target(url, "")
    if Path(DEFAULT_ENDPOINTS).exists():
        return _endpoints_target(Path(DEFAULT_ENDPOINTS))
    raise ConfigurationError(
        "no store is named: use --db FILE for a SQLite file, --url URL or --endpoints "
        f"FILE, or set {URL_VARIABLE} (there is no {DEFAULT_ENDPOINTS} here)"
    )


def find_section(endpoints: Path | None, instead: str = "") -> Target:
    """Return the store of an endpoints file, for what only such a file can say.

    Args:
        endpoints: Its path; None takes `endpoints.yml` in the current directory.
        instead: Another option that would do, for the error, such as `--file FILE or `.

    Raises:
        ConfigurationError: There is no such file, or it is wrong.
    """
    if endpoints is None and not Path(DEFAULT_ENDPOINTS).exists():
        raise ConfigurationError(
            f"nothing is named: use {instead}--endpoints FILE (there is no "
            f"{DEFAULT_ENDPOINTS} here)"
        )
    return _endpoints_target(endpoints or Path(DEFAULT_ENDPOINTS))


def _file_target(db: str) -> Target:
    if "://" in db:
        raise ConfigurationError("--db takes the path of a SQLite file: use --url")
    config = EndpointConfig(type="sql", dialect="sqlite", db=db)
    return Target(config, db, f"--db {shlex.quote(db)}", Path(db))


def _url_target(url: str, option: str) -> Target:
    scheme, separator, _ = url.partition("://")
    dialect = scheme.lower().partition("+")[0]
    kind = _TYPE_OF_SCHEME.get(scheme.lower()) or _TYPE_OF_SCHEME.get(dialect)
    if not separator or kind is None:
        # Only the scheme may be shown: the rest may be a password.
        hint = suggest(
            dialect if separator else "",
            _TYPE_OF_SCHEME,
            f"it must begin with one of {', '.join(_TYPE_OF_SCHEME)}, then ://",
        )
        raise ConfigurationError(f"the URL names no known kind of store: {hint}")
    config = EndpointConfig(url=url, type=kind)
    file = _file_of(url) if dialect == "sqlite" else None
    return Target(config, mask_url(url), option, file)


def _file_of(url: str) -> Path | None:
    """Return the file that a SQLite URL names; None if it is none, or is wrong."""
    from tracker_store_async.backends.sql.config_url import url_parts

    try:
        parts = url_parts(url)
    except ValueError:
        return None  # the store says what is wrong with it
    # A URI of SQLite's own may stand for a memory.
    is_file = parts["db"] != ":memory:" and "uri" not in (parts["query"] or {})
    return Path(parts["db"]) if is_file else None


def _endpoints_target(path: Path) -> Target:
    config = read_endpoint_config(path, TRACKER_STORE)
    if config is None:
        raise ConfigurationError(
            f"{path}: has no {TRACKER_STORE} section, so there is no store to look at"
        )
    is_default = str(path) == DEFAULT_ENDPOINTS
    option = "" if is_default else f"--endpoints {shlex.quote(str(path))}"
    return Target(config, f"{path} ({config.type})", option)
