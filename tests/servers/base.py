"""What every test server is, and how a running one is recognised."""

from __future__ import annotations

import asyncio
import os
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar
from urllib.parse import quote, unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
    from contextlib import AbstractContextManager

T = TypeVar("T")
S = TypeVar("S", bound="Server")

CONNECT_TIMEOUT_SECONDS = 5
DATABASE_PREFIX = "tracker_store_test_"
COMPOSE_PASSWORD = "tracker-store"
"""The password of every server in `compose.yaml`."""


class StartError(Exception):
    """A private server did not come up; the message ends with its log."""


class ServerMissingError(Exception):
    """There is no server to run against; the message says how to get one.

    Args:
        name: The server, as people call it.
        reason: Why there is none and what to do.
        asked_for: Somebody named this very server, so its absence is a failure.
    """

    def __init__(self, name: str, reason: str, *, asked_for: bool = False) -> None:
        super().__init__(reason)
        self.name = name
        self.asked_for = asked_for


@dataclass(frozen=True, slots=True)
class Server:
    """A server that answers, or a library that needs none.

    Attributes:
        name: What people call it, such as `PostgreSQL`.
        version: What it says of itself.
        host, port, username, password: How to log in with the right to create
            databases; empty for libraries.
        origin: Where it came from, for the summary.
        database: A database that is always there, to connect to first.
    """

    name: str
    version: str = ""
    host: str = ""
    port: int = 0
    username: str = ""
    password: str = field(default="", repr=False)
    origin: str = ""
    database: str = ""

    driver: ClassVar[str] = ""
    extra: ClassVar[str] = ""

    def __str__(self) -> str:
        """Read as the summary line: `PostgreSQL 15.4 (found running on ...)`."""
        title = f"{self.name} {self.version}".strip()
        return f"{title} ({self.origin})" if self.origin else title

    def url(self, scheme: str, database: str) -> str:
        """Return `scheme://user:password@host:port/database`, quoted."""
        user = quote(self.username, safe="")
        password = f":{quote(self.password, safe='')}" if self.password else ""
        return f"{scheme}://{user}{password}@{self.host}:{self.port}/{database}"

    def identified(self: S) -> S:
        """Connect; return the same server with its version filled in."""
        raise NotImplementedError

    def create_database(self, name: str) -> None:
        """Create an empty database."""
        raise NotImplementedError

    def drop_database(self, name: str) -> None:
        """Drop a database, and whoever is still connected to it."""
        raise NotImplementedError


@contextmanager
def fresh_database(server: Server) -> Iterator[str]:
    """Yield the name of a new, empty database that is dropped at the end."""
    name = DATABASE_PREFIX + uuid.uuid4().hex[:16]
    server.create_database(name)
    try:
        yield name
    finally:
        server.drop_database(name)


class Servers:
    """The servers of one test run: each is looked for once, at its first use.

    Args:
        managers: The context manager of each server, by key. It gets this object, for
            a server that needs another one, and raises `ServerMissingError`.
    """

    def __init__(
        self,
        managers: Mapping[str, Callable[[Servers], AbstractContextManager[Server]]],
    ) -> None:
        self._managers = managers
        self._stack = ExitStack()
        self._found: dict[str, Server | ServerMissingError] = {}

    def get(self, key: str) -> Server:
        """Return the server, started if need be, or raise `ServerMissingError`."""
        found = self.find(key)
        if isinstance(found, ServerMissingError):
            raise found
        return found

    def find(self, key: str) -> Server | ServerMissingError:
        """Return the server, started if need be, or why there is none."""
        if key not in self._found:
            try:
                manager = self._managers[key](self)
                self._found[key] = self._stack.enter_context(manager)
            except ServerMissingError as error:
                self._found[key] = error
            except StartError as error:
                reason = " ".join(str(error).split())
                self._found[key] = ServerMissingError(key, reason)
        return self._found[key]

    def close(self) -> None:
        """Stop what was started."""
        self._found.clear()
        self._stack.close()


def ignore_running() -> bool:
    """Whether to act as if no server were running or installed here."""
    return os.environ.get("TRACKER_STORE_TEST_IGNORE_RUNNING", "") not in ("", "0")


def need_driver(kind: type[Server], name: str) -> None:
    """Raise `ServerMissingError` unless the driver for `kind` can be imported."""
    if find_spec(kind.driver) is None:
        raise ServerMissingError(
            name,
            f"{kind.driver} is not installed: "
            f"pip install 'tracker-store-async[{kind.extra}]'",
        )


def from_environment(kind: type[S], name: str, variable: str) -> S | None:
    """Return the server whose URL is in the environment, or None if none is set.

    Raises:
        ServerMissingError: It is set, and the server does not answer.
    """
    text = os.environ.get(variable)
    if not text:
        return None
    url = urlsplit(text)
    server = kind(
        name=name,
        host=url.hostname or "127.0.0.1",
        port=url.port or 0,
        username=unquote(url.username or ""),
        password=unquote(url.password or ""),
        origin=f"from {variable}",
        database=url.path.strip("/"),
    )
    try:
        return server.identified()
    except Exception as error:
        raise ServerMissingError(
            name,
            f"the server in {variable} does not answer: {type(error).__name__}",
            asked_for=True,
        ) from error


def running_locally(
    kind: type[S], name: str, port: int, logins: Iterable[tuple[str, str]]
) -> S | None:
    """Return the server on its usual local port, if one of the logins opens it."""
    if ignore_running():
        return None
    for username, password in logins:
        server = kind(
            name=name,
            host="127.0.0.1",
            port=port,
            username=username,
            password=password,
            origin=f"found running on 127.0.0.1:{port}",
        )
        try:
            return server.identified()
        except Exception:  # any refusal means the same: not one of ours to use
            continue
    return None


def run_now(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end, whether or not this thread runs a loop already."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, coroutine).result()
