"""Logins from HashiCorp Vault, or OpenBao, which speaks the same HTTP API.

The package `hvac` asks Vault, and blocks: everything here runs in a thread.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from tracker_store_async.credentials import Login, SecretFile
from tracker_store_async.errors import StoreAccessError, StoreUnavailableError
from tracker_store_async.redaction import fields, get_logger
from tracker_store_async.settings import mask_url

if TYPE_CHECKING:
    from tracker_store_async.secrets_manager import VaultConfig

logger = get_logger(__name__)

PART_OF_LIFE = 2 / 3
"""After this part of its life a token is renewed and a lease replaced."""

MIN_LEASE_AGE_SECONDS = 10.0
"""A login of a lease that is younger is kept though it was refused: where only rights
are missing, each new lease would be another user in the database."""

RETRY_SECONDS = 5.0
"""Longest pause before Vault, which could not be reached, is asked again."""

_SEALED_BY_TRANSIT = "vault:v"


@dataclass(frozen=True, slots=True)
class _Secrets:
    """What was read.

    Attributes:
        values: Key to value.
        began_at: When it was asked for.
        good_until: Until when it need not be asked for again.
        ends_at: When its lease ends.
    """

    values: Mapping[str, Any] = field(repr=False)
    began_at: float
    good_until: float
    ends_at: float


class Vault:
    """Reads the secrets at one path, and keeps the token alive.

    What has no lease is read again each time; those who ask at the same time share one
    answer. What has a lease, such as a login that Vault's database engine has made for
    us, is kept for two thirds of it, and to its end while Vault cannot be reached.

    Args:
        config: Where Vault is, and what to read.
        clock: Returns seconds.
    """

    def __init__(
        self, config: VaultConfig, clock: Callable[[], float] = time.monotonic
    ) -> None:
        import hvac

        self._config = config
        self._clock = clock
        self._where = f"Vault at {mask_url(config.host)}"
        self._lock = threading.Lock()
        self._kept: _Secrets | None = None
        self._forgotten_at = float("-inf")
        self._keeper: threading.Thread | None = None
        self._is_looked_up = False
        self._expires_at: float | None = None
        self._has_failed = False
        self._stop = threading.Event()
        session = _new_session()
        session.verify = config.ssl_ca_certs or True
        self._client = hvac.Client(
            url=config.host,
            token=config.token.get_secret_value() if config.token else "",
            namespace=config.namespace,
            timeout=config.timeout_seconds,
            session=session,
        )
        weakref.finalize(self, _release, self._stop, session)

    def __repr__(self) -> str:
        """Say where it is, and show no token."""
        return f"<Vault: {self._where}, {self._path}>"

    @property
    def _path(self) -> str:
        return f"{self._config.mount_point}/{self._config.secrets_path}"

    # -- reading -----------------------------------------------------------------------

    def read(self) -> Mapping[str, Any]:
        """Return everything at the path: key to value.

        Raises:
            StoreAccessError: It may not be read, or there is nothing.
            StoreUnavailableError: Vault cannot be reached, or is sealed.
        """
        asked_at = self._clock()
        with self._lock:
            kept = self._kept
            if kept is not None and (kept.began_at > asked_at or self._is_good(kept)):
                return kept.values
            try:
                self._kept = kept = self._read()
            except StoreUnavailableError:
                if kept is None or not self._is_leased(kept):
                    raise
                # For a while: else each connection would wait for Vault once more.
                until = min(self._clock() + RETRY_SECONDS, kept.ends_at)
                self._kept = kept = replace(kept, good_until=until)
            self._keep_token()
            return kept.values

    def forget(self) -> None:
        """Do not use the login of a lease again, which the database has refused."""
        self._forgotten_at = self._clock()

    def _is_good(self, kept: _Secrets) -> bool:
        return self._is_leased(kept) and self._clock() < kept.good_until

    def _is_leased(self, kept: _Secrets) -> bool:
        """Whether the database takes it, as far as is known."""
        is_refused = self._forgotten_at - kept.began_at >= MIN_LEASE_AGE_SECONDS
        return not is_refused and self._clock() < kept.ends_at

    def _read(self) -> _Secrets:
        began_at = self._clock()
        engine = self._client.secrets.kv
        place = {
            "path": self._config.secrets_path,
            "mount_point": self._config.mount_point,
        }
        if self._config.kv_version == 1:
            answer = self._ask(lambda: engine.v1.read_secret(**place))
            values = answer.get("data")
        else:
            answer = self._ask(
                lambda: engine.v2.read_secret_version(
                    **place, raise_on_deleted_version=True
                )
            )
            values = (answer.get("data") or {}).get("data")
        if not isinstance(values, Mapping):
            raise StoreAccessError(
                f"{self._where} holds no key-value pairs at {self._path!r}: check "
                "`secrets_path`, `mount_point` and `kv_version`"
            )
        # Version 1 tells of a duration without a lease: it is a hint, and binds nobody.
        lease = answer.get("lease_duration") if answer.get("lease_id") else 0
        seconds = float(lease or 0)
        good_until = began_at + PART_OF_LIFE * seconds
        return _Secrets(values, began_at, good_until, began_at + seconds)

    def text(self, values: Mapping[str, Any], key: str) -> str:
        """Return one of the secrets that were read, opened by transit where sealed.

        Args:
            values: What was read.
            key: Its key.

        Raises:
            StoreAccessError: It is not there, or is no text.
            StoreUnavailableError: It is sealed, and Vault cannot be reached.
        """
        value = values.get(key)
        if value is None:
            raise StoreAccessError(
                f"{self._where} has no key {key!r} at {self._path!r}: check "
                "`secret_key`"
            )
        if not isinstance(value, str) or not value:
            raise StoreAccessError(
                f"{self._where} holds no text under the key {key!r} at {self._path!r}"
            )
        if self._config.transit_mount_point and value.startswith(_SEALED_BY_TRANSIT):
            return self._unsealed(value, key)
        return value

    def _unsealed(self, sealed: str, key: str) -> str:
        import base64

        name = self._config.transit_key
        if name is None:
            raise StoreAccessError(
                f"{self._where} holds the key {key!r} sealed by its transit engine: "
                "name the key that opens it as `transit_key` in `secrets_manager`"
            )
        with self._lock:
            answer = self._ask(
                lambda: self._client.secrets.transit.decrypt_data(
                    name=name,
                    ciphertext=sealed,
                    mount_point=self._config.transit_mount_point,
                )
            )
        try:
            return base64.b64decode(answer["data"]["plaintext"]).decode()
        except (KeyError, TypeError, ValueError):
            raise StoreAccessError(
                f"{self._where} opened the key {key!r}, and it is no text"
            ) from None

    def _ask(self, request: Callable[[], Any]) -> Mapping[str, Any]:
        """Return what Vault answers."""
        from hvac.exceptions import VaultError
        from requests.exceptions import RequestException

        if self._config.token_file is not None:
            source = SecretFile(self._config.token_file, "token of Vault")
            self._client.token = source()
        problem: StoreAccessError | StoreUnavailableError
        try:
            answer = request()
        except (VaultError, RequestException, OSError) as error:
            # Their texts may hold what was sent.
            problem = self._explain(error)
        else:
            if isinstance(answer, Mapping):
                return answer
            # The client hands on whatever a proxy answers with the code 200.
            problem = self._no_vault()
        raise problem

    def _part(self, answer: Mapping[str, Any], key: str) -> Mapping[str, Any]:
        """Return the part of an answer that there has to be."""
        part = answer.get(key)
        if isinstance(part, Mapping):
            return part
        raise self._no_vault()

    def _no_vault(self) -> StoreUnavailableError:
        return StoreUnavailableError(
            f"{self._where} does not answer as Vault does: check `host`, and what is "
            "between"
        )

    def _explain(self, error: Exception) -> StoreAccessError | StoreUnavailableError:
        from hvac import exceptions
        from requests.exceptions import SSLError

        if isinstance(error, exceptions.Forbidden | exceptions.Unauthorized):
            return StoreAccessError(
                f"{self._where} refused the token: it may have expired, and it must be "
                f"allowed to read {self._path!r}"
            )
        if isinstance(error, exceptions.InvalidPath):
            return StoreAccessError(
                f"{self._where} has nothing at {self._path!r}: check `secrets_path`, "
                "`mount_point` and `kv_version`"
            )
        if isinstance(error, exceptions.InvalidRequest):
            return StoreAccessError(
                f"{self._where} does not understand the request: check `mount_point`, "
                "`transit_mount_point` and `transit_key`"
            )
        if isinstance(error, exceptions.VaultDown):
            return StoreUnavailableError(f"{self._where} is sealed or in maintenance")
        if isinstance(error, SSLError):
            return StoreUnavailableError(
                f"{self._where} and this client do not agree on TLS: check `host` and "
                "`ssl_ca_certs` in `secrets_manager`"
            )
        return StoreUnavailableError(
            f"{self._where} cannot be reached ({type(error).__name__})"
        )

    # -- the token ---------------------------------------------------------------------

    def _keep_token(self) -> None:
        """Have a token that expires renewed, as long as this object lives."""
        if self._config.token_file is not None:
            return  # whoever writes the file renews it
        if self._keeper is not None and self._keeper.is_alive():
            return
        if not self._is_looked_up:
            self._is_looked_up = True
            pause = self._look_up()
        else:  # the process was forked, and its threads stayed behind
            pause = None if self._expires_at is None else 0.0
        if pause is not None:
            arguments = (weakref.ref(self), self._stop, pause)
            self._keeper = threading.Thread(
                target=_keep_alive, args=arguments, daemon=True, name="vault-token"
            )
            self._keeper.start()

    def _look_up(self) -> float | None:
        """Return seconds until the token is to be renewed; None if never."""
        try:
            found = self._part(self._ask(self._client.auth.token.lookup_self), "data")
        except (StoreAccessError, StoreUnavailableError):
            return None  # a token that may not look at itself may not renew itself
        ttl, is_renewable = float(found.get("ttl") or 0), found.get("renewable")
        if ttl <= 0:
            return None
        if not is_renewable:
            self._tell_end(ttl)
            return None
        return self._lives_for(ttl)

    def _lives_for(self, seconds: float) -> float:
        self._expires_at = self._clock() + seconds
        return PART_OF_LIFE * seconds

    def renew(self) -> float | None:
        """Renew the token.

        Returns:
            Seconds until it is to be renewed again; None where that has no use.
        """
        try:
            with self._lock:
                auth = self._part(self._ask(self._client.auth.token.renew_self), "auth")
        except (StoreAccessError, StoreUnavailableError) as error:
            return self._not_renewed(error)
        if self._has_failed:
            self._has_failed = False
            logger.warning(
                "The token for %s is renewed again.",
                self._where,
                extra=fields("vault_token_back"),
            )
        ttl = float(auth.get("lease_duration") or 0)
        if ttl <= 0:  # it has come to the longest life that it may have
            self._tell_expired()
            return None
        if not auth.get("renewable"):
            self._tell_end(ttl)
            return None
        return self._lives_for(ttl)

    def _tell_end(self, seconds: float) -> None:
        self._expires_at = None
        logger.warning(
            "The token for %s expires in %.0f s and cannot be renewed.",
            self._where,
            seconds,
            extra=fields("vault_token_expires", seconds=seconds),
        )

    def _tell_expired(self) -> None:
        self._expires_at = None
        logger.error(
            "The token for %s has expired: new connections get no login until the "
            "process is started with a new one.",
            self._where,
            extra=fields("vault_token_expired"),
        )

    def _not_renewed(self, error: Exception) -> float | None:
        left = (self._expires_at or 0.0) - self._clock()
        if left <= 0:
            self._tell_expired()
            return None
        if not self._has_failed:
            self._has_failed = True
            logger.warning(
                "The token for %s was not renewed, and expires in %.0f s: %s",
                self._where,
                left,
                error,
                extra=fields("vault_token_failed", seconds=left),
            )
        return min(RETRY_SECONDS, max(left / 3, 0.1))


def _new_session() -> Any:
    """Return a session that sends the token nowhere without TLS once it had TLS."""
    import requests

    class Session(requests.Session):
        def rebuild_auth(self, prepared_request: Any, response: Any) -> None:
            """Called before a redirect is followed; `requests` would keep the token.

            Raises:
                SSLError: It leads away from TLS. Vault's own client refuses this, too.
            """
            had_tls = response.url.lower().startswith("https:")
            if had_tls and not prepared_request.url.lower().startswith("https:"):
                raise requests.exceptions.SSLError
            super().rebuild_auth(prepared_request, response)

    return Session()


def _release(stop: threading.Event, session: Any) -> None:
    stop.set()
    session.close()


def _keep_alive(
    reference: weakref.ref[Vault], stop: threading.Event, pause: float | None
) -> None:
    """Renew a token until nobody holds on to it."""
    while pause is not None and not stop.wait(pause):
        vault = reference()
        if vault is None:
            return
        pause = vault.renew()
        del vault


class VaultLogin:
    """What a store asks for its login, whenever it makes a connection.

    Args:
        vault: Where the secrets are.
        username_key: Key of the user there; None if the user is configured.
        password_key: Key of the password; None if that is configured.
        password: The password, or what returns it, where it has no key.
    """

    def __init__(
        self,
        vault: Vault,
        username_key: str | None,
        password_key: str | None,
        password: str | Callable[[], str] | None = None,
    ) -> None:
        self._vault = vault
        self._username_key = username_key
        self._password_key = password_key
        self._password = password

    def __call__(self) -> Login:
        """Return the login of now; user and password are of one moment.

        Raises:
            StoreAccessError: It may not be read, or is not there.
            StoreUnavailableError: Vault cannot be reached.
        """
        values = self._vault.read()
        user = None
        if self._username_key is not None:
            user = self._vault.text(values, self._username_key)
        if self._password_key is not None:
            return Login(self._vault.text(values, self._password_key), user)
        given = self._password
        return Login(given() if callable(given) else given or "", user)

    def forget(self) -> None:
        """Ask anew, now that the database has refused the login."""
        self._vault.forget()

    def __repr__(self) -> str:
        """Say where it is asked for, which is no secret."""
        return f"VaultLogin({self._vault!r})"
