"""The error table of DynamoDB: one error of ours for each of theirs, without values."""

from __future__ import annotations

import ssl
import subprocess
import sys
from typing import Any

import pytest

pytest.importorskip("aioboto3", reason="the extra dynamo is not installed")

from botocore import exceptions as boto

from tracker_store_async import DynamoTrackerStore, errors
from tracker_store_async.backends.dynamo import errors as error_table
from tracker_store_async.backends.dynamo.errors import Kind, kind_of, translate
from tracker_store_async.translation import Translated

SECRET = "my doctor says"


def client_error(code: str, status: int = 400, **more: Any) -> boto.ClientError:
    answer = {
        "Error": {"Code": code, "Message": SECRET},
        "ResponseMetadata": {"HTTPStatusCode": status},
        **more,
    }
    return boto.ClientError(answer, "TransactWriteItems")  # type: ignore[arg-type]


def cancelled(*codes: str) -> boto.ClientError:
    reasons = [{"Code": code, "Message": SECRET} for code in codes]
    return client_error("TransactionCanceledException", CancellationReasons=reasons)


@pytest.mark.parametrize(
    ("error", "expected", "kind"),
    [
        (
            client_error("ProvisionedThroughputExceededException"),
            errors.StoreUnavailableError,
            Kind.THROTTLED,
        ),
        (
            client_error("ThrottlingException"),
            errors.StoreUnavailableError,
            Kind.THROTTLED,
        ),
        (
            client_error("RequestLimitExceeded"),
            errors.StoreUnavailableError,
            Kind.THROTTLED,
        ),
        (
            client_error("TransactionInProgressException"),
            errors.StoreUnavailableError,
            Kind.CONTENDED,
        ),
        (
            cancelled("None", "TransactionConflict"),
            errors.StoreUnavailableError,
            Kind.CONTENDED,
        ),
        (cancelled("ThrottlingError"), errors.StoreUnavailableError, Kind.THROTTLED),
        (cancelled("None", "ValidationError"), errors.StoreDataError, Kind.DATA),
        (
            client_error("InternalServerError", 500),
            errors.StoreUnavailableError,
            Kind.BUSY,
        ),
        (client_error("Whatever", 503), errors.StoreUnavailableError, Kind.BUSY),
        (client_error("AccessDeniedException"), errors.StoreAccessError, Kind.ACCESS),
        (client_error("ExpiredTokenException"), errors.StoreAccessError, Kind.ACCESS),
        (client_error("ValidationException"), errors.StoreDataError, Kind.DATA),
        (client_error("ResourceNotFoundException"), errors.SchemaError, Kind.NO_TABLE),
        (boto.NoCredentialsError(), errors.StoreAccessError, Kind.NO_CREDENTIALS),
        (
            boto.EndpointConnectionError(endpoint_url="http://x"),
            errors.StoreUnavailableError,
            Kind.UNAVAILABLE,
        ),
        (
            boto.ConnectionClosedError(endpoint_url="http://x"),
            errors.StoreUnavailableError,
            Kind.LOST,
        ),
        (
            boto.ReadTimeoutError(endpoint_url="http://x"),
            errors.StoreTimeoutError,
            Kind.TIMEOUT,
        ),
        (
            boto.SSLError(endpoint_url="http://x", error="bad"),
            errors.StoreUnavailableError,
            Kind.TLS,
        ),
        (ssl.SSLError("bad"), errors.StoreUnavailableError, Kind.TLS),
        (TimeoutError(), errors.StoreTimeoutError, Kind.TIMEOUT),
        (ConnectionResetError(), errors.StoreUnavailableError, Kind.LOST),
    ],
)
def test_each_error_has_one_of_ours(
    error: Exception, expected: type[Exception], kind: Kind
) -> None:
    assert kind_of(error) is kind
    ours = translate(error, "dynamo table t at here")
    assert type(ours) is expected
    assert str(ours).startswith("dynamo table t at here ")
    assert "\n" not in str(ours)


def test_it_says_what_to_check() -> None:
    away = boto.EndpointConnectionError(endpoint_url="http://x")
    said = str(translate(away, "here"))
    assert said.startswith("here cannot be reached: check region, endpoint_url and ")
    refused = str(translate(client_error("AccessDeniedException"), "here"))
    assert ": check the credentials, region and policy (" in refused


def test_an_error_that_is_not_about_the_storage_passes() -> None:
    assert translate(ValueError("x"), "dynamo") is None
    assert kind_of(KeyError("x")) is None


@pytest.mark.parametrize(
    "error",
    [
        client_error("ValidationException"),
        cancelled("ValidationError"),
        client_error("Whatever", 500),
    ],
)
def test_no_value_gets_into_an_error(error: Exception) -> None:
    with (
        pytest.raises(errors.TrackerStoreError) as raised,
        Translated("dynamo", error_table),
    ):
        raise error
    chain: BaseException | None = raised.value
    while chain is not None:
        assert SECRET not in str(chain)
        chain = chain.__cause__


def test_a_condition_is_an_answer() -> None:
    assert error_table.is_condition(client_error("ConditionalCheckFailedException"))
    assert error_table.is_condition(cancelled("None", "ConditionalCheckFailed"))
    assert not error_table.is_condition(cancelled("TransactionConflict", "None"))
    assert not error_table.is_condition(client_error("ValidationException"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"aws_access_key_id": "a"}, "go together"),
        ({"billing_mode": "FREE"}, "billing_mode must be"),
        ({"events_table_name": "states"}, "must differ"),
        ({"client": object(), "profile": "p"}, "bring their own credentials"),
    ],
)
def test_a_wrong_option(options: dict[str, Any], words: str) -> None:
    with pytest.raises(errors.ConfigurationError, match=words):
        DynamoTrackerStore(**options)


def test_the_missing_extra_is_named() -> None:
    code = (
        "import asyncio, sys\n"
        "sys.modules['aioboto3'] = None\n"
        "from tracker_store_async import DynamoTrackerStore, errors\n"
        "try: asyncio.run(DynamoTrackerStore().open())\n"
        "except errors.MissingExtraError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert "pip install 'tracker-store-async[dynamo]'" in done.stdout
