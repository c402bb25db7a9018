"""Making a client of either driver, and closing it."""

from __future__ import annotations

import asyncio
import re
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from tracker_store_async.errors import ConfigurationError
from tracker_store_async.settings import mask_url
from tracker_store_async.threads import in_thread

if TYPE_CHECKING:
    from collections.abc import Mapping

Driver = Literal["motor", "pymongo"]
DRIVERS: tuple[str, ...] = ("motor", "pymongo")

DEFAULT_HOST = "mongodb://localhost:27017"
DEFAULT_CONNECT_TIMEOUT_SECONDS = 10.0
DEFAULT_COMMAND_TIMEOUT_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class ClientOptions:
    """Where and how to connect; see :class:`MongoTrackerStore` for each of them."""

    host: str = field(repr=False)
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    auth_source: str | None = None
    tls: bool | None = None
    tls_ca_file: str | None = None
    tls_certificate_key_file: str | None = None
    tls_certificate_key_file_password: str | None = field(default=None, repr=False)
    tls_allow_invalid_hostnames: bool | None = None
    pool_size: int | None = None
    pool_timeout_seconds: float | None = None
    connect_timeout_seconds: float | None = None
    command_timeout_seconds: float | None = None

    def driver_options(self) -> dict[str, Any]:
        """Return the keyword arguments of the driver's client."""
        connect = self.connect_timeout_seconds or DEFAULT_CONNECT_TIMEOUT_SECONDS
        command = self.command_timeout_seconds or DEFAULT_COMMAND_TIMEOUT_SECONDS
        pool_timeout = self.pool_timeout_seconds or command
        options = {
            "appname": "tracker_store_async",
            "serverSelectionTimeoutMS": milliseconds(connect),
            "connectTimeoutMS": milliseconds(connect),
            # Bounds of the driver's own: what we stop waiting for must end as well.
            # (Its `timeoutMS` would take the place of the time to find a server.)
            "socketTimeoutMS": milliseconds(command),
            "username": self.username,
            "password": self.password,
            "authSource": self._auth_source(),
            "tls": self.tls,
            "tlsCAFile": self.tls_ca_file,
            "tlsCertificateKeyFile": self.tls_certificate_key_file,
            "tlsCertificateKeyFilePassword": self.tls_certificate_key_file_password,
            "tlsAllowInvalidHostnames": self.tls_allow_invalid_hostnames,
            "maxPoolSize": self.pool_size,
            "waitQueueTimeoutMS": milliseconds(pool_timeout),
        }
        return {name: value for name, value in options.items() if value is not None}

    def _auth_source(self) -> str | None:
        """Return the database that knows the user; what the URL says comes first."""
        named = re.search(r"[?&]authsource=", self.host, re.IGNORECASE)
        return None if named else self.auth_source


def milliseconds(seconds: float) -> int:
    """Return a time as the driver wants it: whole milliseconds, at least one."""
    return max(1, round(seconds * 1000))


def check_driver(driver: str) -> None:
    """Check that there is such a driver.

    Raises:
        ConfigurationError: There is not.
    """
    if driver not in DRIVERS:
        raise ConfigurationError(
            f"driver must be one of {', '.join(map(repr, DRIVERS))}, not {driver!r}"
        )


def make_client(driver: str, options: ClientOptions) -> Any:
    """Return a client that has not connected yet; it belongs to the running loop.

    Raises:
        ConfigurationError: The URL is none, or an option in it is wrong.
    """
    with warnings.catch_warnings():
        # The driver would leave out what it does not know in a URL.
        warnings.simplefilter("error", UserWarning)
        try:
            return _new_client(driver, options)
        except (UserWarning, ValueError, TypeError):
            # Its text may quote a part of the URL, and so of the password.
            raise ConfigurationError(
                "`host` must be a MongoDB URL whose options are right, with special "
                "characters in user and password percent-encoded"
            ) from None


def _new_client(driver: str, options: ClientOptions) -> Any:
    settings: Mapping[str, Any] = options.driver_options()
    if driver == "pymongo":
        from pymongo import AsyncMongoClient

        return AsyncMongoClient(options.host, **settings)
    from motor.motor_asyncio import AsyncIOMotorClient

    loop = asyncio.get_running_loop()
    return AsyncIOMotorClient(options.host, io_loop=loop, **settings)


def driver_of(client: Any) -> str:
    """Return which driver a client is of.

    Raises:
        ConfigurationError: It is of none that works here.
    """
    kinds = {f"{kind.__module__}.{kind.__name__}" for kind in type(client).__mro__}
    if any(kind.startswith("motor.") for kind in kinds):
        return "motor"
    if any(kind.endswith(".AsyncMongoClient") for kind in kinds):
        return "pymongo"
    raise ConfigurationError(
        "`client` must be an AsyncIOMotorClient or an AsyncMongoClient, not "
        f"{type(client).__name__}"
    )


async def close_client(driver: str, client: Any) -> None:
    """Close a client; Motor's waits for the server, so it does that in a thread."""
    if driver == "pymongo":
        await client.close()
    else:
        await in_thread(client.close)


def check_login(
    host: str | None, username: str | None, has_password: bool, *, brings_own: bool
) -> None:
    """Refuse a login that is given by half, or beside a client that has its own."""
    if has_password and not username and "@" not in (host or ""):
        raise ConfigurationError("a password is given without `username`")
    has_address = host not in (None, DEFAULT_HOST)
    if brings_own and (has_address or username or has_password):
        raise ConfigurationError("`client` brings its own address and login")


def place(host: str, db: str, *, is_own: bool = False) -> str:
    """Return what to call a server in an error: no credentials, no options."""
    if is_own:
        return f"mongodb at the address of `client`/{db}"
    shown = mask_url(host).replace("***@", "")
    address = shown.partition("://")[2] or shown
    return f"mongodb at {address.partition('/')[0].partition('?')[0]}/{db}"
