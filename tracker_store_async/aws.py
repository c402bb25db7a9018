"""Passwords that AWS accepts for a role: tokens for RDS and ElastiCache.

A token is signed here, with the credentials that the process has, and lets a connection
in for 15 minutes. A store asks for one whenever it connects::

    SQLTrackerStore(
        dialect="postgresql", host=HOST, username="assistant", ssl_mode="verify-full",
        password=RdsToken(HOST, 5432, "assistant"),
    )

How a token is made is what AWS documents ("Connecting to your DB instance using IAM
authentication", "Authenticating with IAM" for ElastiCache); `botocore` signs it.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from tracker_store_async.errors import StoreAccessError, StoreUnavailableError

if TYPE_CHECKING:
    from collections.abc import Mapping

LIFE_SECONDS = 900
"""How long a token lets a connection in: the longest that AWS allows."""


class _Token:
    """Signs requests to connect; botocore may block, so it is called in a thread.

    Args:
        service: Name of the service that the signature is for.
        region: AWS region; None is that of AWS's own settings.
        profile: Profile in AWS's own settings; None is theirs.
        session: A session of botocore in place of one of our own.
    """

    def __init__(
        self, service: str, region: str | None, profile: str | None, session: Any
    ) -> None:
        self._service = service
        self._region = region
        self._profile = profile
        self._session = session
        self._signer: Any = None
        self._lock = threading.Lock()

    def _presigned(self, place: str, query: Mapping[str, str]) -> str:
        """Return the URL of a request to connect, signed, without its scheme."""
        from botocore.exceptions import ConnectionError as NotReachedError
        from botocore.exceptions import HTTPClientError

        try:
            with self._lock:  # sessions of botocore are not made for several threads
                url = self._signed(f"https://{place}/?{urlencode(query)}")
        except (NotReachedError, HTTPClientError) as error:
            problem = StoreUnavailableError(
                "AWS, which hands out the credentials, cannot be reached "
                f"({type(error).__name__})"
            )
        else:
            return url.removeprefix("https://")
        raise problem  # what botocore says may hold what was sent

    def _signed(self, url: str) -> str:
        if self._signer is None:
            self._signer = self._new_signer()
        signed: str = self._signer.generate_presigned_url(
            {"method": "GET", "url": url, "body": {}, "headers": {}, "context": {}},
            operation_name="connect",
            expires_in=LIFE_SECONDS,
            region_name=self._region,
        )
        return signed

    def _new_signer(self) -> Any:
        import botocore.session
        from botocore.model import ServiceId
        from botocore.signers import RequestSigner

        if self._session is None:
            self._session = botocore.session.Session(profile=self._profile)
        session = self._session
        self._region = self._region or session.get_config_variable("region")
        if not self._region:
            raise StoreAccessError(
                "the AWS region is not known: give `region`, or set AWS_DEFAULT_REGION"
            )
        credentials = session.get_credentials()
        if credentials is None:
            raise StoreAccessError(
                "there are no AWS credentials: give the process a role, or set "
                "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            )
        return RequestSigner(
            ServiceId(self._service),
            self._region,
            self._service,
            "v4",
            credentials,
            session.get_component("event_emitter"),
        )


class RdsToken(_Token):
    """The password of now for a database of RDS or Aurora.

    Args:
        host: Endpoint of the database, as AWS names it.
        port: Its port.
        username: The database user, who has `rds_iam` (PostgreSQL) or is identified by
            `AWSAuthenticationPlugin` (MySQL, MariaDB).
        region: AWS region; None is that of AWS's own settings.
        profile: Profile in AWS's own settings.
        session: A session of botocore in place of one of our own.
    """

    def __init__(
        self,
        host: str,
        port: int,
        username: str,
        region: str | None = None,
        *,
        profile: str | None = None,
        session: Any = None,
    ) -> None:
        super().__init__("rds-db", region, profile, session)
        self._place = f"{host}:{port}"
        self._username = username

    def __call__(self) -> str:
        """Return a token that is good for 15 minutes.

        Raises:
            StoreAccessError: There are no credentials to sign it with, or no region.
            StoreUnavailableError: What hands out the credentials cannot be reached.
        """
        query = {"Action": "connect", "DBUser": self._username}
        return self._presigned(self._place, query)

    def __repr__(self) -> str:
        """Say what it is for, which is no secret."""
        return f"RdsToken({self._username!r} at {self._place!r})"


class ElastiCacheToken(_Token):
    """The password of now for a cache of ElastiCache, with Redis or Valkey.

    Args:
        cache: Name of the replication group or the serverless cache, in small letters.
        username: The user, whose id and name are the same, in small letters.
        region: AWS region; None is that of AWS's own settings.
        serverless: Whether it is a serverless cache.
        profile: Profile in AWS's own settings.
        session: A session of botocore in place of one of our own.
    """

    def __init__(
        self,
        cache: str,
        username: str,
        region: str | None = None,
        *,
        serverless: bool = False,
        profile: str | None = None,
        session: Any = None,
    ) -> None:
        super().__init__("elasticache", region, profile, session)
        self._cache = cache.lower()
        self._username = username
        self._serverless = serverless

    def __call__(self) -> str:
        """Return a token that is good for 15 minutes.

        Raises:
            StoreAccessError: There are no credentials to sign it with, or no region.
            StoreUnavailableError: What hands out the credentials cannot be reached.
        """
        query = {"Action": "connect", "User": self._username}
        if self._serverless:
            query["ResourceType"] = "ServerlessCache"
        return self._presigned(self._cache, query)

    def __repr__(self) -> str:
        """Say what it is for, which is no secret."""
        return f"ElastiCacheToken({self._username!r} at {self._cache!r})"
