"""`DynamoTrackerStore`: options, opening and closing; the work is in other files."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

from tracker_store_async.backends.dynamo import errors as error_table
from tracker_store_async.backends.dynamo.appending import Appender
from tracker_store_async.backends.dynamo.client import Client, ConnectionOptions
from tracker_store_async.backends.dynamo.credentials import credentials_source
from tracker_store_async.backends.dynamo.erasing import Eraser
from tracker_store_async.backends.dynamo.layout import SCHEMA_VERSION, Names
from tracker_store_async.backends.dynamo.listing import Lister
from tracker_store_async.backends.dynamo.maintenance import dynamo_upkeep
from tracker_store_async.backends.dynamo.opening import (
    TableOptions,
    describe,
    ensure_table,
    has_rasas_table,
)
from tracker_store_async.backends.dynamo.rasa import RasaTable
from tracker_store_async.backends.dynamo.rasa_alone import RasaAlone
from tracker_store_async.backends.dynamo.reading import Reader
from tracker_store_async.backends.dynamo.rewriting import Rewriter
from tracker_store_async.backends.dynamo.table import Table
from tracker_store_async.errors import (
    ConfigurationError,
    InvalidInputError,
    StoreClosedError,
)
from tracker_store_async.rows import Health
from tracker_store_async.serialization import SerializedTrackerAsDict
from tracker_store_async.settling import settled
from tracker_store_async.store import TrackerStore
from tracker_store_async.translation import Translated

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence

    from tracker_store_async.broker import EventBroker
    from tracker_store_async.credentials import AwsCredentialsSource
    from tracker_store_async.domain import Domain
    from tracker_store_async.options import OnConflict, OnPublishError
    from tracker_store_async.rows import (
        Append,
        ConversationSummary,
        Listing,
        NewRow,
        Read,
        Rewrite,
        StoredConversation,
        Upkeep,
    )

T = TypeVar("T")

BillingMode = Literal["PAY_PER_REQUEST", "PROVISIONED"]

MAX_EVENT_BYTES = 16 * 1024 * 1024
MAX_SNAPSHOT_BYTES = 64 * 1024 * 1024
OPENING_SECONDS = 300.0
"""Longest time that a new table may take."""


@dataclass(frozen=True, slots=True)
class _Operations:
    """What an open store works with."""

    client: Client
    appender: Appender | RasaAlone
    reader: Reader | RasaAlone
    eraser: Eraser | RasaAlone
    rewriter: Rewriter | RasaAlone
    lister: Lister | RasaAlone


class DynamoTrackerStore(TrackerStore, SerializedTrackerAsDict):
    """Keeps conversations in DynamoDB: one item a save, and one for the head.

    The table is our own, `<table_name>_events`. What Rasa keeps in `table_name` is read
    where there is no log of ours, and taken over by the first save.

    Args:
        domain: Gives new trackers their slots.
        table_name: Rasa's table, and the first part of the name of ours.
        region: AWS region of the tables.
        event_broker: Gets every event before it is stored, or None.
        events_table_name: Our table; None is `<table_name>_events`.
        endpoint_url: URL of a DynamoDB other than Amazon's.
        aws_access_key_id: Access key; None is what AWS's own settings say.
        aws_secret_access_key: Secret of the access key.
        aws_session_token: Token of temporary credentials.
        profile: Profile in AWS's own settings.
        ssl_ca_certs: File with the certificates that the server is checked against.
        billing_mode: `PAY_PER_REQUEST`, or `PROVISIONED` with capacity units.
        read_capacity_units: Capacity of the table and of each index, if provisioned.
        write_capacity_units: Capacity of the table and of each index, if provisioned.
        create_table: Whether a missing table is created on opening.
        read_rasa_data: Whether Rasa's table is looked at. It costs reads for each
            conversation that is new, so switch it off when there is nothing left there.
        delete_rasa_data: Whether Rasa's item is deleted when it is taken over.
        connect_timeout_seconds: Longest time to connect; None is 10.
        command_timeout_seconds: Longest time that one operation may take; None is 60.
        retry_budget_seconds: Longest time that one request is repeated for when
            DynamoDB throttles it or fails; None is 10.
        max_pool_connections: Connections that are kept open; None is 50.
        session: An `aioboto3.Session` of your own, in place of credentials and profile.
        client: An open client of your own, which is never closed here.
        credentials: Function, sync or async, that returns the keys of now, in place of
            the aws_ keys: a mapping with `AccessKeyId`, `SecretAccessKey` and, if they
            are temporary, `SessionToken` and `Expiration`, as AWS's STS answers. It is
            called again before they expire, or else every 30 s.
        credentials_file: JSON file with the same names, in place of that; it is read
            again as often.
        max_event_history: Most events that `retrieve` reads and holds, or None.
        on_conflict: What a save does about another writer's events.
        on_publish_error: What a save does when the broker fails.
        record_exp: Seconds after its latest save when a conversation expires, or None.

    Raises:
        ConfigurationError: An option is wrong, or contradicts another one.
    """

    backend_name = "dynamo"

    def __init__(
        self,
        domain: Domain | None = None,
        table_name: str = "states",
        region: str = "us-east-1",
        event_broker: EventBroker | None = None,
        *,
        events_table_name: str | None = None,
        endpoint_url: str | None = None,
        aws_access_key_id: str | None = None,
        aws_secret_access_key: str | None = None,
        aws_session_token: str | None = None,
        profile: str | None = None,
        ssl_ca_certs: str | None = None,
        billing_mode: BillingMode = "PAY_PER_REQUEST",
        read_capacity_units: int | None = None,
        write_capacity_units: int | None = None,
        create_table: bool = True,
        read_rasa_data: bool = True,
        delete_rasa_data: bool = False,
        connect_timeout_seconds: float | None = None,
        command_timeout_seconds: float | None = None,
        retry_budget_seconds: float | None = None,
        max_pool_connections: int | None = None,
        session: Any = None,
        client: Any = None,
        credentials: AwsCredentialsSource | None = None,
        credentials_file: str | None = None,
        max_event_history: int | None = None,
        on_conflict: OnConflict = "rebase",
        on_publish_error: OnPublishError = "raise",
        record_exp: float | None = None,
    ) -> None:
        super().__init__(
            domain,
            event_broker,
            max_event_history=max_event_history,
            on_conflict=on_conflict,
            on_publish_error=on_publish_error,
            record_exp=record_exp,
        )
        source = credentials_source(credentials, credentials_file)
        self._renews_credentials = source is not None
        _check_login(
            aws_access_key_id,
            aws_secret_access_key,
            aws_session_token or profile,
            source,
            brings_its_own=client is not None or session is not None,
        )
        _check_billing_mode(billing_mode)
        self._command_timeout_seconds = command_timeout_seconds or 60.0
        self._names = _names(table_name, events_table_name)
        self._options = ConnectionOptions(
            region=region,
            endpoint_url=endpoint_url,
            aws_access_key_id=aws_access_key_id,
            aws_secret_access_key=aws_secret_access_key,
            aws_session_token=aws_session_token,
            credentials=source,
            profile=profile,
            ssl_ca_certs=ssl_ca_certs,
            connect_timeout_seconds=connect_timeout_seconds or 10.0,
            read_timeout_seconds=self._command_timeout_seconds,
            max_pool_connections=max_pool_connections or 50,
        )
        units = (read_capacity_units or 5, write_capacity_units or 5)
        self._table_options = TableOptions(create_table, billing_mode, *units)
        self._retry_budget_seconds = (
            10.0 if retry_budget_seconds is None else retry_budget_seconds
        )
        self._own_session, self._own_client = session, client
        self._read_rasa_data = read_rasa_data
        self._delete_rasa_data = delete_rasa_data
        place = endpoint_url or region
        self._where = f"dynamo table {self._names.table} at {place}"
        self._translated = Translated(self._where, error_table)
        self._operations: _Operations | None = None

    def __repr__(self) -> str:
        """Say where it connects, without credentials."""
        return f"<{type(self).__name__}: {self._where}>"

    # -- opening and closing -----------------------------------------------------------

    async def _open(self) -> None:
        try:
            await settled(self._open_whole())
        except asyncio.CancelledError:
            await self._close()  # it may have come up after all
            raise

    async def _open_whole(self) -> None:
        client = Client(
            self._options,
            self._retry_budget_seconds,
            session=self._own_session,
            client=self._own_client,
        )
        try:
            with self._translated:
                await client.open()
                async with asyncio.timeout(OPENING_SECONDS):
                    options = replace(
                        self._table_options,
                        create_table=self._table_options.create_table
                        and self._creates_layout,
                        upgrades_layout=self._upgrades_layout,
                    )
                    if not await self._has_rasas_alone(client):
                        await ensure_table(client, self._names, options)
                    self._operations = await self._operations_with(client)
        except BaseException:
            self._operations = None
            await client.close()
            raise

    async def _operations_with(self, client: Client) -> _Operations:
        if await self._has_rasas_alone(client):
            alone = RasaAlone(client, self._names.rasa_table)
            return _Operations(client, alone, alone, alone, alone, alone)
        rasa = None
        if self._read_rasa_data and await has_rasas_table(client, self._names):
            rasa = RasaTable(client, self._names)
        table = Table(client, self._names.table)
        reader = Reader(table, rasa)
        eraser = Eraser(table, rasa, reader)
        appender = Appender(
            table, rasa, eraser, delete_rasa_data=self._delete_rasa_data
        )
        return _Operations(
            client,
            appender,
            reader,
            eraser,
            Rewriter(table, rasa),
            Lister(table, rasa),
        )

    async def _has_rasas_alone(self, client: Client) -> bool:
        """Whether there is Rasa's table to be looked at, and none of ours."""
        if self._creates_layout or not self._read_rasa_data:
            return False
        if await describe(client, self._names.table) is not None:
            return False
        return await has_rasas_table(client, self._names)

    async def _close(self) -> None:
        operations, self._operations = self._operations, None
        if operations is not None:
            await operations.client.close()

    # -- primitives --------------------------------------------------------------------

    def _check_size(
        self, sender_id: str, rows: Sequence[NewRow], snapshot: str
    ) -> None:
        for row in rows:
            _check_bytes(
                row.data, MAX_EVENT_BYTES, f"an event of type {row.type_name!r}"
            )
        _check_bytes(snapshot, MAX_SNAPSHOT_BYTES, "the state of the conversation")

    async def _append(self, append: Append) -> bool:
        return await self._bounded(self._opened.appender.append(append))

    async def _read(self, read: Read) -> StoredConversation | None:
        return await self._bounded(self._opened.reader.read(read))

    async def _delete(
        self,
        sender_id: str,
        before: int | None,
        now: float,
        version: int | None = None,
    ) -> bool:
        # Once begun it goes on to its end: what is invisible is to be gone as well.
        work = self._opened.eraser.delete(sender_id, before, now, version)
        return await settled(self._bounded(work))

    async def _rewrite(self, rewrite: Rewrite) -> bool:
        return await settled(self._bounded(self._opened.rewriter.rewrite(rewrite)))

    async def _list(self, listing: Listing) -> list[ConversationSummary]:
        # A page of a few among a million takes as long as it takes; what is bounded is
        # each of its requests.
        with self._translated:
            return await self._opened.lister.next_page(listing)

    async def _upkeep(self, *, apply: bool) -> Upkeep:
        work = dynamo_upkeep(self._opened.client, self._names.table)
        return await self._bounded(work)

    async def _health(self) -> Health:
        started = time.perf_counter()
        table = self._names.table
        description = await self._bounded(describe(self._opened.client, table))
        latency_seconds = time.perf_counter() - started
        state = "missing" if description is None else description["TableStatus"]
        usable = state in ("ACTIVE", "UPDATING")
        return Health(
            backend=self.backend_name,
            reachable=usable,
            latency_seconds=latency_seconds,
            server_version="DynamoDB API 2012-08-10",
            schema_version=SCHEMA_VERSION,
            error=None if usable else f"{self._where} is {state}",
            details={
                "table": table,
                "rasa_table": self._names.rasa_table,
                "status": state,
                "billing_mode": self._table_options.billing_mode,
            },
        )

    @property
    def _opened(self) -> _Operations:
        if self._operations is None:
            raise StoreClosedError("the store was closed while it was in use")
        return self._operations

    async def _bounded(self, work: Awaitable[T]) -> T:
        """Await one operation for a bounded time, with the driver's errors as ours."""
        with self._translated:
            async with asyncio.timeout(self._command_timeout_seconds):
                return await work


def _names(table_name: str, events_table_name: str | None) -> Names:
    names = Names(table_name, events_table_name or f"{table_name}_events")
    if names.table == table_name:
        raise ConfigurationError(
            "events_table_name must differ from table_name, which is Rasa's"
        )
    return names


def _check_login(
    key: str | None,
    secret: str | None,
    other: str | None,
    source: AwsCredentialsSource | None,
    *,
    brings_its_own: bool,
) -> None:
    if brings_its_own and (key or other or source):
        raise ConfigurationError("`session` and `client` bring their own credentials")
    if (key is None) != (secret is None):
        raise ConfigurationError(
            "aws_access_key_id and aws_secret_access_key go together"
        )
    if source is not None and (key or other):
        raise ConfigurationError(
            "`credentials` stand in place of the aws_ keys and the profile: keep one"
        )


def _check_billing_mode(billing_mode: str) -> None:
    if billing_mode not in get_args(BillingMode):
        raise ConfigurationError(
            "billing_mode must be 'PAY_PER_REQUEST' or 'PROVISIONED', "
            f"not {billing_mode!r}"
        )


def _check_bytes(content: str, most_bytes: int, what: str) -> None:
    if len(content) * 4 > most_bytes and len(content.encode()) > most_bytes:
        raise InvalidInputError(
            f"{what} has {len(content.encode())} bytes, and DynamoDB's store takes up "
            f"to {most_bytes}"
        )
