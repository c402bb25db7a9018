"""The key `aws_iam` of stores on RDS and ElastiCache, and Rasa's variables for it.

Rasa's documentation ("Tracker Stores", "Environment Variables") knows the variables;
the region is that of AWS's own settings, such as `AWS_DEFAULT_REGION`.
"""

from __future__ import annotations

import importlib.util
import os
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator

from tracker_store_async.errors import MissingExtraError
from tracker_store_async.settings import Name, Port, Section

if TYPE_CHECKING:
    from tracker_store_async.aws import ElastiCacheToken, RdsToken

USUAL_PORTS = {"postgresql": 5432, "mysql": 3306, "mariadb": 3306}
"""Of the dialects that RDS knows IAM for."""


class RdsIam(Section):
    """The keys of `aws_iam` of an SQL store.

    Attributes:
        region: AWS region; None is that of AWS's own settings.
        profile: Profile in AWS's own settings.
        host: Endpoint as AWS names it, where the store connects by another name.
        port: Its port.
    """

    region: Name | None = None
    profile: Name | None = None
    host: Name | None = None
    port: Port | None = None

    def token(self, host: str, port: int, username: str) -> RdsToken:
        """Return what the store asks for its password.

        Args:
            host: Where the store connects.
            port: Its port.
            username: The database user.

        Raises:
            MissingExtraError: botocore is not installed.
        """
        _need_botocore()
        from tracker_store_async.aws import RdsToken

        return RdsToken(
            self.host or host,
            self.port or port,
            username,
            self.region,
            profile=self.profile,
        )


class ElastiCacheIam(Section):
    """The keys of `aws_iam` of a Redis store.

    Attributes:
        cache: Name of the replication group or the serverless cache.
        serverless: Whether it is a serverless cache.
        region: AWS region; None is that of AWS's own settings.
        profile: Profile in AWS's own settings.
    """

    cache: Name
    serverless: bool = False
    region: Name | None = None
    profile: Name | None = None

    def token(self, username: str) -> ElastiCacheToken:
        """Return what the store asks for its password.

        Args:
            username: The user.

        Raises:
            MissingExtraError: botocore is not installed.
        """
        _need_botocore()
        from tracker_store_async.aws import ElastiCacheToken

        return ElastiCacheToken(
            self.cache,
            username,
            self.region,
            serverless=self.serverless,
            profile=self.profile,
        )


def _true_or_keys(value: Any) -> Any:
    """Take `true` for a section without keys, and `false` for none."""
    if value is True:
        return {}
    return None if value is False else value


RdsIamKey = Annotated[RdsIam | None, BeforeValidator(_true_or_keys)]
ElastiCacheIamKey = Annotated[ElastiCacheIam | None, BeforeValidator(_true_or_keys)]


def fill_rds(values: dict[str, Any]) -> None:
    """Take `aws_iam` and TLS from Rasa's variables, where they turn IAM on.

    Args:
        values: The keys of an SQL store, changed in place. What it has stays, and one
            with a password of its own is left alone.

    Raises:
        ValueError: `SQL_TRACKER_STORE_SSL_MODE` asks for less than TLS.
    """
    if not _is_on("RDS_SQL_DB_AWS_IAM_ENABLED", values):
        return
    values["aws_iam"] = {}
    mode = os.environ.get("SQL_TRACKER_STORE_SSL_MODE")
    if mode in ("disable", "allow", "prefer"):
        raise ValueError(
            "SQL_TRACKER_STORE_SSL_MODE must be require, verify-ca or verify-full: "
            "RDS takes IAM tokens over TLS only"
        )
    if mode and values.get("ssl_mode") is None:
        values["ssl_mode"] = mode
    certificate = os.environ.get("SQL_TRACKER_STORE_SSL_ROOT_CERTIFICATE")
    if certificate and values.get("ssl_ca_certs") is None:
        values["ssl_ca_certs"] = certificate


def fill_elasticache(values: dict[str, Any]) -> None:
    """Take `aws_iam` from Rasa's variables, where they turn IAM on.

    Args:
        values: The keys of a Redis store, changed in place.

    Raises:
        ValueError: The name of the cache is missing.
    """
    if not _is_on("ELASTICACHE_REDIS_AWS_IAM_ENABLED", values):
        return
    cache = os.environ.get("AWS_ELASTICACHE_CLUSTER_NAME")
    if not cache:
        raise ValueError(
            "ELASTICACHE_REDIS_AWS_IAM_ENABLED needs the variable "
            "AWS_ELASTICACHE_CLUSTER_NAME, or set the key 'aws_iam'"
        )
    values["aws_iam"] = {"cache": cache}


def _is_on(variable: str, values: dict[str, Any]) -> bool:
    if any(
        values.get(key) is not None for key in ("aws_iam", "password", "password_file")
    ):
        return False
    provider = os.environ.get("IAM_CLOUD_PROVIDER", "").strip().lower()
    is_enabled = os.environ.get(variable, "").strip().lower() == "true"
    return provider == "aws" and is_enabled


def _need_botocore() -> None:
    if importlib.util.find_spec("botocore") is None:
        raise MissingExtraError(
            "tracker_store.aws_iam needs the package 'botocore': "
            "pip install 'tracker-store-async[aws]'"
        )
