"""The error table: what botocore and DynamoDB raise, and what we raise for it.

DynamoDB's texts are passed on only where they speak of connecting and of rights:
elsewhere they may quote a key or a value.
"""

from __future__ import annotations

import ssl
from enum import Enum
from typing import Any

from tracker_store_async import errors


class Kind(Enum):
    """What went wrong."""

    UNAVAILABLE = "cannot be reached: check region, endpoint_url and the network"
    LOST = "closed or lost the connection; what it was asked to do may be done"
    BUSY = "failed on its side and did not recover within the retry budget"
    THROTTLED = (
        "refuses requests because its capacity is used up: raise the capacity, use "
        "billing_mode PAY_PER_REQUEST, or raise retry_budget_seconds"
    )
    CONTENDED = "kept refusing the transaction in favour of others"
    TIMEOUT = "did not answer in time; what it was asked to do may be done"
    TLS = "and this client do not agree on TLS: check endpoint_url and ssl_ca_certs"
    ACCESS = (
        "refused the credentials or the rights they carry: check the credentials, "
        "region and policy"
    )
    NO_CREDENTIALS = (
        "wants credentials and none were found: give aws_access_key_id and "
        "aws_secret_access_key, a profile, or the environment or role of AWS"
    )
    NO_TABLE = (
        "lacks a table of the layout: let the store create it (`create_table: true`), "
        "or check table_name, region and endpoint_url"
    )
    DATA = "refused what was sent"


_RAISED: dict[Kind, type[errors.TrackerStoreError]] = {
    Kind.UNAVAILABLE: errors.StoreUnavailableError,
    Kind.LOST: errors.StoreUnavailableError,
    Kind.BUSY: errors.StoreUnavailableError,
    Kind.THROTTLED: errors.StoreUnavailableError,
    Kind.CONTENDED: errors.StoreUnavailableError,
    Kind.TIMEOUT: errors.StoreTimeoutError,
    Kind.TLS: errors.StoreUnavailableError,
    Kind.ACCESS: errors.StoreAccessError,
    Kind.NO_CREDENTIALS: errors.StoreAccessError,
    Kind.NO_TABLE: errors.SchemaError,
    Kind.DATA: errors.StoreDataError,
}

_QUOTED = {Kind.UNAVAILABLE, Kind.ACCESS}
"""Kinds whose text speaks of addresses and rights only."""

_CODES: dict[str, Kind] = {
    **dict.fromkeys(
        (
            "ProvisionedThroughputExceededException",
            "ProvisionedThroughputExceeded",
            "ThrottlingException",
            "ThrottlingError",
            "Throttling",
            "ThrottledException",
            "RequestThrottled",
            "RequestThrottledException",
            "RequestLimitExceeded",
            "TooManyRequestsException",
            "LimitExceededException",
        ),
        Kind.THROTTLED,
    ),
    **dict.fromkeys(
        (
            "TransactionConflictException",
            "TransactionConflict",
            "TransactionInProgressException",
            "ReplicatedWriteConflictException",
        ),
        Kind.CONTENDED,
    ),
    **dict.fromkeys(
        (
            "AccessDeniedException",
            "AccessDenied",
            "UnrecognizedClientException",
            "InvalidClientTokenId",
            "InvalidSignatureException",
            "SignatureDoesNotMatch",
            "IncompleteSignature",
            "IncompleteSignatureException",
            "MissingAuthenticationToken",
            "MissingAuthenticationTokenException",
            "ExpiredToken",
            "ExpiredTokenException",
            "NotAuthorized",
            "OptInRequired",
        ),
        Kind.ACCESS,
    ),
    "ResourceNotFoundException": Kind.NO_TABLE,
    "TableNotFoundException": Kind.NO_TABLE,
    **dict.fromkeys(
        ("InternalServerError", "InternalFailure", "ServiceUnavailable"), Kind.BUSY
    ),
}
"""DynamoDB's error code to kind; an HTTP status of 500 and above is `BUSY`."""

_BY_CLASS: tuple[tuple[tuple[str, ...], Kind], ...] = (
    (("SSLError",), Kind.TLS),
    (("ReadTimeoutError",), Kind.TIMEOUT),
    (("ConnectTimeoutError", "EndpointConnectionError"), Kind.UNAVAILABLE),
    (("ProxyConnectionError",), Kind.UNAVAILABLE),
    (("ConnectionClosedError", "ResponseStreamingError"), Kind.LOST),
    (
        (
            "NoCredentialsError",
            "PartialCredentialsError",
            "CredentialRetrievalError",
            "TokenRetrievalError",
            "SSOTokenLoadError",
            "UnauthorizedSSOTokenError",
            "NoAuthTokenError",
        ),
        Kind.NO_CREDENTIALS,
    ),
    (("HTTPClientError",), Kind.LOST),
)
"""Classes of botocore's errors, by name so that a base class counts too."""

RETRIED = {Kind.THROTTLED, Kind.CONTENDED, Kind.BUSY}
"""Kinds that time mends, within the budget."""

RECONNECTED = {Kind.LOST, Kind.UNAVAILABLE}
"""Kinds that a new connection may mend, at once or not at all."""

_LEFT_TO_THE_CALLER = {"ConditionalCheckFailed", "ConditionalCheckFailedException"}


def driver_error(error: BaseException) -> BaseException:
    """Return the driver's error: botocore's are not wrapped."""
    return error


def response_of(error: BaseException) -> dict[str, Any]:
    """Return what DynamoDB answered, or nothing."""
    response = getattr(error, "response", None)
    return response if isinstance(response, dict) else {}


def code_of(error: BaseException) -> str | None:
    """Return the code that DynamoDB gave, or None."""
    code = response_of(error).get("Error", {}).get("Code")
    return code if isinstance(code, str) else None


def reasons_of(error: BaseException) -> list[dict[str, Any]] | None:
    """Return why each item of a transaction was refused, or None if none was."""
    if code_of(error) != "TransactionCanceledException":
        return None
    return list(response_of(error).get("CancellationReasons") or [])


def is_condition(error: BaseException) -> bool:
    """Whether a condition was not met: an answer, not a failure."""
    reasons = reasons_of(error)
    codes = [code_of(error)] if reasons is None else [r.get("Code") for r in reasons]
    return any(code in _LEFT_TO_THE_CALLER for code in codes)


def kind_of(error: BaseException) -> Kind | None:
    """Return what went wrong, or None if the error is not about DynamoDB."""
    names = {cls.__name__ for cls in type(error).__mro__}
    for classes, kind in _BY_CLASS:
        if names.intersection(classes):
            return kind
    if code_of(error) is not None:
        return _coded_kind(error)
    if isinstance(error, ssl.SSLError):
        return Kind.TLS
    if isinstance(error, TimeoutError):
        return Kind.TIMEOUT
    if isinstance(error, OSError | EOFError):
        return Kind.LOST
    module = type(error).__module__.partition(".")[0]
    if module == "aiohttp":
        return Kind.LOST
    return Kind.DATA if module in ("botocore", "aiobotocore") else None


def _coded_kind(error: BaseException) -> Kind:
    reasons = reasons_of(error)
    if reasons is not None:
        kinds = [_CODES.get(reason.get("Code", "")) for reason in reasons]
        return next((kind for kind in kinds if kind is not None), Kind.DATA)
    known = _CODES.get(code_of(error) or "")
    if known is not None:
        return known
    metadata = response_of(error).get("ResponseMetadata", {})
    return Kind.BUSY if metadata.get("HTTPStatusCode", 0) >= 500 else Kind.DATA


def translate(error: BaseException, where: str) -> errors.TrackerStoreError | None:
    """Return our error for what was raised, or None if it is not about DynamoDB.

    Args:
        error: What was raised.
        where: What the sentence begins with, such as `dynamo table states_events`.
    """
    kind = kind_of(error)
    if kind is None:
        return None
    detail = []
    if kind in _QUOTED:
        detail.append((str(error).strip().splitlines() or [""])[0])
    elif (code := code_of(error)) is not None:
        detail.append(f"code {code}")
    text = f"{where} {kind.value}"
    return _RAISED[kind](f"{text} ({', '.join(detail)})" if any(detail) else text)
