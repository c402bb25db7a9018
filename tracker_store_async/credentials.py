"""Credentials that change: asked for anew whenever a connection is made."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from tracker_store_async.errors import (
    ConfigurationError,
    StoreAccessError,
    StoreUnavailableError,
    TrackerStoreError,
)
from tracker_store_async.threads import in_thread


@dataclass(frozen=True, slots=True)
class Login:
    """A user and a password that change together.

    Attributes:
        password: The password.
        username: The user; None for the one that is configured.
    """

    password: str = field(repr=False)
    username: str | None = None


PasswordSource: TypeAlias = Callable[[], str | Login | Awaitable[str | Login]]
"""Returns the password of now, or a `Login` where the user changes as well; sync (then
it is called in a thread) or async. If it has a method `forget`, that is called once the
server has refused what it returned: what it may have kept is of no use any more."""

AwsCredentialsSource: TypeAlias = Callable[
    [], Mapping[str, Any] | Awaitable[Mapping[str, Any]]
]
"""Returns `AccessKeyId`, `SecretAccessKey` and, if they are temporary, `SessionToken`
and `Expiration`: what AWS's STS answers as `Credentials`. Sync or async."""


class SecretFile:
    """A file that holds a secret, read anew each time it is asked for.

    That is how Vault's agent and Kubernetes hand out secrets that are rotated.

    Args:
        path: Path of the file. Line ends behind the secret do not count.
        what: What it holds, for errors.
    """

    def __init__(self, path: str, what: str = "password") -> None:
        self._path = Path(path)
        self._what = what

    def __call__(self) -> str:
        """Return what the file holds now.

        Raises:
            StoreAccessError: It is missing, empty, or cannot be read.
        """
        try:
            secret = self._path.read_text(encoding="utf-8").rstrip("\r\n")
        except FileNotFoundError:
            problem = "does not exist"
        except OSError as error:
            problem = f"cannot be read ({error.strerror})"
        except UnicodeError:
            problem = "does not hold UTF-8 text"
        else:
            if secret:
                return secret
            problem = "is empty"
        raise StoreAccessError(f"the file {str(self._path)!r} {problem}: {self._hint}")

    @property
    def _hint(self) -> str:
        return f"it must hold the {self._what}, for this process to read"

    def __repr__(self) -> str:
        """Name the file, which is no secret."""
        return f"SecretFile({str(self._path)!r})"


def one_password(
    password: str | PasswordSource | None,
    password_file: str | None,
    name: str = "password",
) -> str | PasswordSource | None:
    """Return the password, or what it is to be asked of.

    Args:
        password: The password itself, or a function that returns it.
        password_file: Path of a file that holds it.
        name: Name of the first of these options.

    Raises:
        ConfigurationError: Both are given, or the first is something else.
    """
    if password is not None and password_file is not None:
        raise ConfigurationError(f"'{name}' and '{name}_file' say the same; keep one")
    if password_file is not None:
        return SecretFile(password_file)
    if not (password is None or isinstance(password, str) or callable(password)):
        raise ConfigurationError(
            f"'{name}' must be text, or a function that returns it"
        )
    return password


def text_or_source(
    password: str | PasswordSource | None, password_file: str | None
) -> tuple[str | None, PasswordSource | None]:
    """Return the password that never changes, or else what the one of now is asked of.

    Args:
        password: The password itself, or a function that returns it.
        password_file: Path of a file that holds it.

    Raises:
        ConfigurationError: As `one_password`.
    """
    given = one_password(password, password_file)
    return (None, given) if callable(given) else (given, None)


async def current_login(source: PasswordSource) -> Login:
    """Return the password of now, and the user if it says one.

    Raises:
        StoreUnavailableError: The source cannot be reached at the moment.
        StoreAccessError: The source failed otherwise, or returned no text; the error
            says no more than the kind of what it raised.
    """
    found = await ask(source, "password")
    if isinstance(found, Login):
        return found
    if not isinstance(found, str):
        raise StoreAccessError(
            f"the source of the password returned {type(found).__name__}, not text"
        )
    return Login(found)


async def log_in_with(arguments: dict[str, Any], source: PasswordSource | None) -> None:
    """Put the login of now into the arguments `user` and `password` of a driver.

    Args:
        arguments: They are changed in place.
        source: What is asked, or None to leave them as they are.

    Raises:
        StoreUnavailableError: As `current_login`.
        StoreAccessError: As `current_login`.
    """
    if source is None:
        return
    login = await current_login(source)
    arguments["password"] = login.password
    if login.username is not None:
        arguments["user"] = login.username


def forget(source: object) -> None:
    """Tell a source of credentials that the server refused what it returned.

    Args:
        source: The source; one that keeps nothing has no method `forget`.
    """
    method = getattr(source, "forget", None)
    if callable(method):
        method()


async def ask(source: Callable[[], Any], what: str) -> Any:
    """Return what a function returns that is somebody else's, sync or async.

    Args:
        source: The function; a sync one is called in a thread.
        what: What it returns, for errors.

    Raises:
        StoreUnavailableError: It raised a `ConnectionError` or a `TimeoutError`.
        StoreAccessError: It raised something else.
    """
    try:
        if inspect.iscoroutinefunction(source):
            return await source()
        answer = await in_thread(source)
        return await answer if inspect.isawaitable(answer) else answer
    except Exception as error:  # noqa: BLE001 - any failure of somebody else's code
        ours = _failure(source, error, what)
    # What it raised may hold a secret: it is neither chained nor the context.
    raise ours


def _failure(source: Any, error: Exception, what: str) -> TrackerStoreError:
    # Only of our own errors is it known that they hold no secret.
    is_ours = type(source).__module__.startswith("tracker_store_async.")
    if is_ours and isinstance(error, StoreAccessError | StoreUnavailableError):
        return error
    passes = isinstance(error, ConnectionError | TimeoutError)
    kind = StoreUnavailableError if passes else StoreAccessError
    return kind(f"the {what} cannot be had: its source raised {type(error).__name__}")
