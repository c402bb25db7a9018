"""Backends without a server: they are here whenever their library is."""

from __future__ import annotations

import sqlite3
import sys
from contextlib import contextmanager
from importlib.metadata import version
from importlib.util import find_spec
from typing import TYPE_CHECKING

from tests.servers.base import Server, ServerMissingError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.servers.base import Servers


@contextmanager
def memory(servers: Servers) -> Iterator[Server]:
    """Yield the memory of this process."""
    yield Server("in-memory")


@contextmanager
def sqlite(servers: Servers) -> Iterator[Server]:
    """Yield the SQLite that this Python was built with."""
    python = ".".join(str(number) for number in sys.version_info[:3])
    yield Server("SQLite", sqlite3.sqlite_version, origin=f"library of Python {python}")


@contextmanager
def oracle(servers: Servers) -> Iterator[Server]:
    """Yield the Oracle driver: statements are compiled, nothing is connected to."""
    if find_spec("oracledb") is None:
        raise ServerMissingError(
            "Oracle",
            "oracledb is not installed: pip install 'tracker-store-async[oracle]'",
        )
    driver = f"no server: compiled for python-oracledb {version('oracledb')}"
    yield Server("Oracle", origin=driver)
