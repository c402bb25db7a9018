"""Logins that a secrets manager keeps, as Rasa's configuration writes them.

Rasa's documentation ("Secrets Managers") describes the section `secrets_manager` of
`endpoints.yml`, the environment variables that come before it, and how a key of the
tracker store names a secret::

    username:
      source: secrets_manager.vault
      secret_key: sql_store_username
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import field_validator, model_validator

from tracker_store_async.credentials import SecretFile
from tracker_store_async.errors import ConfigurationError
from tracker_store_async.settings import (
    Name,
    RequiredDriver,
    Seconds,
    Secret,
    Section,
    parse_settings,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tracker_store_async.vault import VaultLogin

SECTION = "secrets_manager"
"""Name of the section, and of the key that hands it on to the tracker store's."""

_KEYS = ("username", "password")
"""What a secrets manager may keep."""

_PLACEHOLDER = "from-the-secrets-manager"
"""Stands where the login will be, so that the rest of the section can be checked."""

_VARIABLES = {
    "SECRET_MANAGER": "type",
    "VAULT_HOST": "host",
    "VAULT_URL": "host",
    "VAULT_TOKEN": "token",
    "VAULT_RASA_SECRETS_PATH": "secrets_path",
    "VAULT_TRANSIT_MOUNT_POINT": "transit_mount_point",
    "VAULT_NAMESPACE": "namespace",
}
"""Rasa's variables to keys; its documentation knows Vault's address by two names."""


class VaultConfig(Section):
    """Rasa's keys of `secrets_manager`, and ours.

    Attributes:
        type: Only `vault`.
        host: URL of Vault.
        token: Token to log in with. One that expires is renewed.
        token_file: File with the token, as Vault's agent writes it; it is read anew
            each time.
        secrets_path: Path of the secrets, below the engine's mount point.
        transit_mount_point: Where the transit engine is, if values are sealed by it.
        transit_key: Name of the transit key that opens them.
        namespace: Vault's namespace.
        mount_point: Where the engine with the secrets is.
        kv_version: Version of the key-value engine; other engines, such as `database`,
            are read as version 1 is.
        ssl_ca_certs: File with the certificates that Vault is checked against.
        timeout_seconds: Longest time that a request may take.
    """

    aliases: ClassVar = {"url": "host"}

    type: Literal["vault"] = "vault"
    host: Name
    token: Secret | None = None
    token_file: Name | None = None
    secrets_path: Name = "rasa-secrets"
    transit_mount_point: Name | None = None
    transit_key: Name | None = None
    namespace: Name | None = None
    mount_point: Name = "secret"
    kv_version: Literal[1, 2] = 2
    ssl_ca_certs: Name | None = None
    timeout_seconds: Seconds = 5.0

    @field_validator("host")
    @classmethod
    def _is_url(cls, host: str) -> str:
        if not host.startswith(("http://", "https://")):
            raise ValueError("must be a URL, such as https://vault.example.com:8200")
        if "@" in host or "?" in host:
            raise ValueError("must hold no login and no options")
        return host.rstrip("/")

    @model_validator(mode="after")
    def _has_a_token(self) -> Self:
        if (self.token is None) == (self.token_file is None):
            raise ValueError(
                "needs 'token' (or the variable VAULT_TOKEN), or 'token_file'"
            )
        if self.transit_key and not self.transit_mount_point:
            raise ValueError("'transit_key' needs 'transit_mount_point'")
        return self

    def required_driver(self) -> RequiredDriver:
        """Return the client for Vault, and the extra that installs it."""
        return RequiredDriver("hvac", "vault")


def vault_config(
    section: Mapping[str, Any] | None, environment: Mapping[str, str] | None = None
) -> VaultConfig:
    """Return the configuration of the secrets manager.

    Args:
        section: The section of the file, or None.
        environment: The variables, which come before it; None takes the process's own.

    Raises:
        ConfigurationError: It is not whole, or a key is unknown.
    """
    known = os.environ if environment is None else environment
    keys = dict(section or {})
    found = {key: known[name] for name, key in _VARIABLES.items() if known.get(name)}
    if "host" in found:
        keys.pop("url", None)
    if "token" in found:
        keys.pop("token_file", None)
    keys |= found
    if not keys.get("host") and not keys.get("url"):
        raise ConfigurationError(
            f"{SECTION}: Vault's address is missing: write a section {SECTION} with "
            "`host`, or set VAULT_HOST"
        )
    if isinstance(keys.get("type"), str):
        keys["type"] = keys["type"].strip().lower()
    return parse_settings(VaultConfig, keys, where=SECTION, type_name="vault")


def hand_on(section: dict[str, Any], sections: Mapping[str, Any]) -> dict[str, Any]:
    """Return a tracker store's section with the file's secrets manager in it.

    Args:
        section: The `tracker_store` section.
        sections: All sections of the file.
    """
    found = sections.get(SECTION)
    if found is None or SECTION in section or not names_secrets(section):
        return section
    return {**section, SECTION: found}


def names_secrets(value: object) -> bool:
    """Whether a section, or one within it, names a secret."""
    return isinstance(value, dict) and any(
        _is_reference(name, each) or names_secrets(each) for name, each in value.items()
    )


def _is_reference(name: str, value: object) -> bool:
    """Whether a key names a secret: others may have a `source` of their own."""
    if not isinstance(value, dict) or "source" not in value:
        return False
    return name in _KEYS or str(value["source"]).startswith(f"{SECTION}.")


@dataclass(frozen=True, slots=True)
class SecretLogin:
    """The login of a store, of which the secrets manager keeps a part.

    Attributes:
        config: Where the secrets manager is.
        keys: `username` and `password` to their keys there.
        password: The password, where it is configured.
        password_file: The file that holds it, where it is configured.
    """

    config: VaultConfig
    keys: Mapping[str, str]
    password: str | None = field(default=None, repr=False)
    password_file: str | None = None

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of the store that take the place of its own."""
        return {"password": self.source(), "password_file": None}

    def source(self) -> VaultLogin:
        """Return what the store asks for its login."""
        from tracker_store_async.vault import Vault, VaultLogin

        given: Any = self.password
        if self.password_file is not None:
            given = SecretFile(self.password_file)
        return VaultLogin(
            Vault(self.config),
            self.keys.get("username"),
            self.keys.get("password"),
            given,
        )


def take_login(settings: dict[str, Any], where: str) -> SecretLogin | None:
    """Take the login out of a store's section, if a secrets manager keeps it.

    Args:
        settings: The section. What named a secret is replaced by what only stands for
            it, and the key `secrets_manager` is removed.
        where: What errors begin with, such as `tracker_store`.

    Raises:
        ConfigurationError: A key names a secret that must not, or does so wrongly, or
            the secrets manager is not configured.
    """
    section = settings.pop(SECTION, None) if names_secrets(settings) else None
    if section is not None and not isinstance(section, dict):
        raise ConfigurationError(f"{SECTION}: must hold keys and values")
    keys = {
        name: _secret_key(value, f"{where}.{name}")
        for name, value in settings.items()
        if _is_reference(name, value)
    }
    if not keys:
        return None
    wrong = next((name for name in keys if name not in _KEYS), None)
    if wrong is not None:
        raise ConfigurationError(
            f"{where}.{wrong}: a secrets manager keeps {' and '.join(_KEYS)} of the "
            "tracker store only; use ${VARIABLE} for other secrets"
        )
    given = settings.get("password") if "password" not in keys else None
    file = settings.pop("password_file", None)
    if "password" in keys and file is not None:
        raise ConfigurationError(
            f"{where}: 'password' and 'password_file' say the same; keep one"
        )
    if "password" not in keys and given is None and file is None:
        raise ConfigurationError(
            f"{where}: 'username' is in the secrets manager, and there is no 'password'"
        )
    settings |= dict.fromkeys({*keys, "password"}, _PLACEHOLDER)
    return SecretLogin(
        vault_config(section), keys, None if given is None else str(given), file
    )


def _secret_key(value: Mapping[str, Any], where: str) -> str:
    source, key = value.get("source"), value.get("secret_key")
    if source != f"{SECTION}.vault":
        raise ConfigurationError(f"{where}.source: must be '{SECTION}.vault'")
    if set(value) != {"source", "secret_key"} or not isinstance(key, str) or not key:
        raise ConfigurationError(
            f"{where}: must hold 'source' and 'secret_key', the name of the secret"
        )
    return key
