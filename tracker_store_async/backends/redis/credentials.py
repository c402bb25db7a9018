"""Credentials for redis-py, which asks for them whenever it makes a connection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from redis.credentials import CredentialProvider
from redis.exceptions import AuthenticationError

from tracker_store_async.credentials import ask, current_login
from tracker_store_async.errors import StoreAccessError, TrackerStoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from tracker_store_async.credentials import PasswordSource

    Login = tuple[str] | tuple[str, str]


class CredentialsMissingError(AuthenticationError):
    """There are no credentials to log in with.

    It must be an error of redis-py: after any other one redis-py keeps the connection,
    which never logged in, for the next command.

    Args:
        ours: What to raise to the caller.
    """

    def __init__(self, ours: TrackerStoreError) -> None:
        super().__init__(str(ours))
        self.ours = ours


class Credentials(CredentialProvider):
    """Asks for user and password, each time that a connection is made.

    Args:
        login: Returns what AUTH is sent: the password, or user and password.
    """

    def __init__(self, login: Callable[[], Coroutine[Any, Any, Login]]) -> None:
        self._login = login

    async def get_credentials_async(self) -> Login:
        """Return what AUTH is sent."""
        try:
            return await self._login()
        except TrackerStoreError as error:
            ours = error
        raise CredentialsMissingError(ours)


def login_options(
    username: str | None, password: str | PasswordSource | None, provider: Any = None
) -> dict[str, Any]:
    """Return the arguments of a client of redis-py that log in.

    Args:
        username: Name of the ACL user, or None.
        password: Password, or what it is asked of.
        provider: A `CredentialProvider` in place of both.
    """
    if provider is not None:
        return {"credential_provider": Credentials(lambda: _provided(provider))}
    if not callable(password):
        return {"username": username, "password": password}

    async def login() -> Login:
        current = await current_login(password)
        user = current.username or username
        return (user, current.password) if user else (current.password,)

    return {"credential_provider": Credentials(login)}


async def _provided(provider: Any) -> Login:
    own = type(provider).get_credentials_async
    # redis-py's base class would call the sync one on the loop.
    is_sync = own is CredentialProvider.get_credentials_async
    source = provider.get_credentials if is_sync else provider.get_credentials_async
    login = await ask(source, "login")
    if not isinstance(login, tuple) or not 1 <= len(login) <= 2:
        raise StoreAccessError(
            "the credential provider must return (password,) or (username, password)"
        )
    return login
