"""AWS credentials that change: botocore asks for them again before they expire."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from tracker_store_async.credentials import SecretFile, ask
from tracker_store_async.errors import ConfigurationError, StoreAccessError

if TYPE_CHECKING:
    from tracker_store_async.credentials import AwsCredentialsSource

METHOD = "tracker-store-async"
"""What botocore calls the place where the credentials come from."""

RECHECK_SECONDS = 30.0
"""How long credentials are used without asking that do not say when they expire."""

LONGEST_ADVISORY_SECONDS = 15 * 60
LONGEST_MANDATORY_SECONDS = 10 * 60
"""What botocore does: from the first on it tries to renew, from the second on it must.
What lives for less is renewed in its last third, and must be in its last sixth."""


class CredentialsFile:
    """A JSON file with credentials, as a `credential_process` of AWS prints them.

    Args:
        path: Path of the file; it is read anew each time.
    """

    def __init__(self, path: str) -> None:
        self._file = SecretFile(path, "AWS credentials as JSON")
        self._path = path

    def __call__(self) -> Mapping[str, Any]:
        """Return what the file holds now.

        Raises:
            StoreAccessError: It cannot be read, or holds something else.
        """
        try:
            held = json.loads(self._file())
        except ValueError:
            held = None
        if not isinstance(held, dict):
            raise StoreAccessError(
                f"the file {self._path!r} does not hold a JSON object: it must have "
                "AccessKeyId, SecretAccessKey and, if they are temporary, SessionToken "
                "and Expiration"
            )
        return held

    def __repr__(self) -> str:
        """Name the file, which is no secret."""
        return f"CredentialsFile({self._path!r})"


def credentials_source(
    credentials: AwsCredentialsSource | None, file: str | None
) -> AwsCredentialsSource | None:
    """Return what the credentials are to be asked of, or None.

    Raises:
        ConfigurationError: Both are given, or the first is no function.
    """
    if credentials is not None and file is not None:
        raise ConfigurationError(
            "'credentials' and 'credentials_file' say the same; keep one"
        )
    if credentials is not None and not callable(credentials):
        raise ConfigurationError("'credentials' must be a function that returns them")
    return CredentialsFile(file) if file is not None else credentials


def provide(session: Any, source: AwsCredentialsSource) -> None:
    """Have a session of aiobotocore take its credentials from a source alone."""
    from botocore.credentials import CredentialProvider

    class Provider(CredentialProvider):  # type: ignore[misc]
        METHOD = METHOD
        CANONICAL_NAME = METHOD

        async def load(self) -> Any:
            return await _refreshable(source)

    session.get_component("credential_provider").providers[:] = [Provider()]


async def _refreshable(source: AwsCredentialsSource) -> Any:
    from aiobotocore.credentials import AioRefreshableCredentials

    async def refresh() -> dict[str, Any]:
        return _metadata(await ask(source, "AWS credentials"))

    metadata = await refresh()
    expires_at = datetime.fromisoformat(metadata["expiry_time"])
    life_seconds = (expires_at - _now()).total_seconds()
    return AioRefreshableCredentials.create_from_metadata(
        metadata,
        refresh_using=refresh,
        method=METHOD,
        advisory_timeout=min(LONGEST_ADVISORY_SECONDS, life_seconds / 3),
        mandatory_timeout=min(LONGEST_MANDATORY_SECONDS, life_seconds / 6),
    )


def _metadata(found: Any) -> dict[str, Any]:
    """Return credentials by botocore's names.

    Raises:
        StoreAccessError: They are not all there, or have expired.
    """
    if not isinstance(found, Mapping):
        kind = type(found).__name__
        raise StoreAccessError(f"the source of AWS credentials returned {kind}")
    texts = {name: found.get(name) for name in ("AccessKeyId", "SecretAccessKey")}
    missing = [name for name, text in texts.items() if not isinstance(text, str)]
    if missing:
        raise StoreAccessError(f"the AWS credentials lack {' and '.join(missing)}")
    expires_at = _expiration(found.get("Expiration"))
    if expires_at <= _now():
        raise StoreAccessError("the AWS credentials that were returned have expired")
    return {
        "access_key": texts["AccessKeyId"],
        "secret_key": texts["SecretAccessKey"],
        "token": found.get("SessionToken"),
        "expiry_time": expires_at.isoformat(),
    }


def _expiration(value: Any) -> datetime:
    if value is None:
        return _now() + timedelta(seconds=RECHECK_SECONDS)
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            value = None
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise StoreAccessError(
            "the Expiration of the AWS credentials must be a time with its zone, such "
            "as 2030-01-31T12:00:00Z"
        )
    return value


def _now() -> datetime:
    return datetime.now(UTC)
