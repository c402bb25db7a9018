"""One client for as long as the store is open; retries stay within a budget.

botocore's own retries are off: ours know which request is safe to repeat. A transaction
carries a token that names it, so that repeating one that had landed changes nothing.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from tracker_store_async.backends.dynamo import errors as error_table
from tracker_store_async.backends.dynamo.credentials import provide
from tracker_store_async.errors import (
    ConfigurationError,
    MissingExtraError,
    StoreClosedError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tracker_store_async.credentials import AwsCredentialsSource

FIRST_PAUSE_SECONDS = 0.025
LONGEST_PAUSE_SECONDS = 1.0
CONNECTION_ATTEMPTS = 3
"""Times that a request is sent over a new connection after one was lost."""


@dataclass(frozen=True, slots=True)
class ConnectionOptions:
    """Where and how to connect."""

    region: str
    endpoint_url: str | None
    aws_access_key_id: str | None = field(repr=False)
    aws_secret_access_key: str | None = field(repr=False)
    aws_session_token: str | None = field(repr=False)
    credentials: AwsCredentialsSource | None = field(repr=False)
    profile: str | None
    ssl_ca_certs: str | None
    connect_timeout_seconds: float
    read_timeout_seconds: float
    max_pool_connections: int


class ConditionError(Exception):
    """A condition was not met; `items[i]` is what operation `i` found, or None.

    `failed[i]` says whether the condition of operation `i` was one of those.
    """

    def __init__(
        self, failed: Sequence[bool], items: Sequence[dict[str, Any] | None]
    ) -> None:
        super().__init__("a condition was not met")
        self.failed = failed
        self.items = items


class Client:
    """Requests to DynamoDB.

    Args:
        options: Where and how to connect.
        retry_budget_seconds: Longest time that one request is repeated for.
        session: An `aioboto3.Session` (or aiobotocore's) in place of our own.
        client: An open client in place of all that; it is never closed here.
    """

    def __init__(
        self,
        options: ConnectionOptions,
        retry_budget_seconds: float,
        session: Any = None,
        client: Any = None,
    ) -> None:
        self._options = options
        self._budget_seconds = retry_budget_seconds
        self._session = session
        self._own_client = client
        self._client: Any = None
        self._stack = AsyncExitStack()
        self.on_capacity: Callable[[Any], None] | None = None

    async def open(self) -> None:
        """Make the client; nothing is sent."""
        if self._own_client is not None:
            self._client = self._own_client
            return
        session = self._session
        if session is None:
            # It reads files: the loop must not wait for them.
            session = await asyncio.to_thread(make_session, self._options)
        maker = getattr(session, "client", None) or session.create_client
        context = maker("dynamodb", **self._client_arguments())
        self._client = await self._stack.enter_async_context(context)
        check_host_names(self._client)

    def _client_arguments(self) -> dict[str, Any]:
        from aiobotocore.config import AioConfig

        options = self._options
        arguments: dict[str, Any] = {
            "region_name": options.region,
            "endpoint_url": options.endpoint_url,
            "config": AioConfig(
                connect_timeout=options.connect_timeout_seconds,
                read_timeout=options.read_timeout_seconds,
                max_pool_connections=options.max_pool_connections,
                retries={"total_max_attempts": 1, "mode": "standard"},
                tcp_keepalive=True,
                # What we send is well-formed: a sixth of an append's time.
                parameter_validation=False,
            ),
        }
        if (options.endpoint_url or "").startswith("http://"):
            # Without TLS the certificates, 40 ms to load, are not needed.
            arguments["verify"] = False
        if options.ssl_ca_certs is not None:
            arguments["verify"] = options.ssl_ca_certs
        return arguments

    async def close(self) -> None:
        """Close the connections."""
        stack, self._stack = self._stack, AsyncExitStack()
        self._client = None
        await stack.aclose()

    async def call(self, operation: str, **parameters: Any) -> dict[str, Any]:
        """Send a request until it is answered, within the budget.

        Args:
            operation: Its name in snake case.
            parameters: Its parameters.

        Raises:
            ConditionError: A condition of it was not met.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._budget_seconds
        lost = 0
        for attempt in range(1_000_000):
            try:
                return await self._send(operation, parameters)
            except Exception as error:
                if error_table.is_condition(error):
                    raise _condition_error(error) from None
                kind = error_table.kind_of(error)
                lost += kind in error_table.RECONNECTED
                retried = kind in error_table.RETRIED or 0 < lost < CONNECTION_ATTEMPTS
                pause = _pause_seconds(attempt)
                if not retried or loop.time() + pause > deadline:
                    raise
                if error_table.reasons_of(error) is not None:
                    # It is known not to have landed, so it gets a new name.
                    parameters["ClientRequestToken"] = uuid4().hex
            await asyncio.sleep(pause)
        raise AssertionError  # the budget ends long before

    async def _send(self, operation: str, parameters: dict[str, Any]) -> dict[str, Any]:
        if self._client is None:
            raise StoreClosedError("the store was closed while it was in use")
        if self.on_capacity is not None and operation not in _WITHOUT_CAPACITY:
            parameters["ReturnConsumedCapacity"] = "INDEXES"
        answer: dict[str, Any] = await getattr(self._client, operation)(**parameters)
        if self.on_capacity is not None and "ConsumedCapacity" in answer:
            self.on_capacity(answer["ConsumedCapacity"])
        return answer

    async def transact(self, operations: Sequence[dict[str, Any]]) -> None:
        """Write everything or nothing.

        Raises:
            ConditionError: A condition was not met; nothing was written.
        """
        await self.call(
            "transact_write_items",
            TransactItems=list(operations),
            ClientRequestToken=uuid4().hex,
        )

    async def query(self, **parameters: Any) -> tuple[list[dict[str, Any]], Any]:
        """Return one page of a query, and the key that the next one starts after."""
        answer = await self.call("query", **parameters)
        return answer["Items"], answer.get("LastEvaluatedKey")

    async def batch_get(
        self, table: str, keys: Sequence[dict[str, Any]], **options: Any
    ) -> list[dict[str, Any]]:
        """Return the items of up to 100 keys that exist, in no order."""
        found: list[dict[str, Any]] = []
        wanted: Any = {table: {"Keys": list(keys), **options}}
        for attempt in range(1_000_000):
            answer = await self.call("batch_get_item", RequestItems=wanted)
            found += answer["Responses"].get(table, [])
            wanted = answer.get("UnprocessedKeys")
            if not wanted:
                break
            if not answer["Responses"].get(table):
                await asyncio.sleep(_pause_seconds(attempt))
        return found


_WITHOUT_CAPACITY = {
    "describe_table",
    "create_table",
    "describe_time_to_live",
    "update_time_to_live",
}


def make_session(options: ConnectionOptions) -> Any:
    """Return a session, which has read what a client is made of.

    Raises:
        MissingExtraError: The driver is not installed.
        ConfigurationError: There is no such profile.
    """
    try:
        import aioboto3
        from botocore.exceptions import ProfileNotFound
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"the DynamoDB store needs the package '{error.name}': "
            "pip install 'tracker-store-async[dynamo]'"
        ) from error

    try:
        session = aioboto3.Session(
            aws_access_key_id=options.aws_access_key_id,
            aws_secret_access_key=options.aws_secret_access_key,
            aws_session_token=options.aws_session_token,
            region_name=options.region,
            profile_name=options.profile,
        )
        loader = session._session.get_component("data_loader")
    except ProfileNotFound:
        raise ConfigurationError(
            f"the AWS configuration has no profile {options.profile!r}: check "
            "`profile`, and the file that AWS_CONFIG_FILE names"
        ) from None
    if options.credentials is not None:
        provide(session._session, options.credentials)
    loader.load_service_model("dynamodb", "service-2")
    loader.load_service_model("dynamodb", "endpoint-rule-set-1")
    loader.load_data_with_path("endpoints")
    return session


def _pause_seconds(attempt: int) -> float:
    longest = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** min(attempt, 10))
    return random.uniform(longest / 2, longest)  # noqa: S311


def _condition_error(error: BaseException) -> ConditionError:
    reasons = error_table.reasons_of(error)
    if reasons is None:
        return ConditionError([True], [error_table.response_of(error).get("Item")])
    failed = [reason.get("Code") == "ConditionalCheckFailed" for reason in reasons]
    return ConditionError(failed, [reason.get("Item") for reason in reasons])


def check_host_names(client: Any) -> None:
    """Have a client of aiobotocore that checks certificates check host names, too.

    botocore leaves that to urllib3, and so makes a TLS context that does not do it.
    aiobotocore takes that context, and aiohttp does nothing beside it: without this any
    certificate of a trusted authority would do, whoever it was made for.

    Args:
        client: A client that has sent nothing yet.

    Raises:
        ConfigurationError: This version of aiobotocore works in another way.
    """
    http = client._endpoint.http_session
    if "Httpx" in type(http).__name__:
        return  # httpx checks them
    make = getattr(http, "_get_ssl_context", None)
    if make is None:
        raise ConfigurationError(
            "this version of aiobotocore cannot be told to check host names: install "
            "one that tracker-store-async[dynamo] allows"
        )

    def make_checking() -> Any:
        context = make()
        context.check_hostname = True
        return context

    http._get_ssl_context = make_checking
