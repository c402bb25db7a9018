"""`MongoTrackerStore`: options, opening and closing; the work is in the other files."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tracker_store_async.backends.mongo.client import (
    DEFAULT_HOST,
    ClientOptions,
    check_driver,
    check_login,
    driver_of,
    place,
)
from tracker_store_async.backends.mongo.layout import (
    MAX_ROW_BYTES,
    MAX_SNAPSHOT_BYTES,
    ROW_OVERHEAD_BYTES,
    text_bytes,
)
from tracker_store_async.credentials import text_or_source
from tracker_store_async.errors import (
    ConfigurationError,
    InvalidInputError,
    MissingExtraError,
    StoreClosedError,
    StoreUnavailableError,
)
from tracker_store_async.saving_many import settled_alone
from tracker_store_async.serialization import SerializedTrackerAsDict
from tracker_store_async.settling import settled
from tracker_store_async.store import TrackerStore

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tracker_store_async.backends.mongo.client import Driver
    from tracker_store_async.backends.mongo.database import MongoDatabase
    from tracker_store_async.backends.mongo.rotation import RotatingDatabase
    from tracker_store_async.broker import EventBroker
    from tracker_store_async.credentials import PasswordSource
    from tracker_store_async.domain import Domain
    from tracker_store_async.options import OnConflict, OnPublishError
    from tracker_store_async.relay import Outbox
    from tracker_store_async.rows import (
        Append,
        ConversationSummary,
        Health,
        Listing,
        NewRow,
        Read,
        Rewrite,
        StoredConversation,
        Upkeep,
    )

DEFAULT_COLLECTION = "conversations"
"""Rasa's own."""


class MongoTrackerStore(TrackerStore, SerializedTrackerAsDict):
    """Keeps conversations in MongoDB: a standalone server, a replica set or a cluster.

    What Rasa wrote to `collection` is read, and taken over by the first save of each
    conversation; our own documents lie in `<collection>_log` and `<collection>_events`.

    Args:
        domain: Gives new trackers their slots.
        host: MongoDB URL (`mongodb://` or `mongodb+srv://`), or a host name.
        db: Name of the database.
        username: Name to log in with.
        password: Password to log in with, or a function, sync or async, that returns
            it: it is asked again when the server refuses the one that it returned.
        auth_source: Database that knows the user; an `authSource` in the URL wins.
        collection: Name of Rasa's collection, and the beginning of the names of ours.
        event_broker: Gets every event before it is stored, or None.
        driver: `motor`, or `pymongo` for PyMongo's own `AsyncMongoClient`.
        client: A client of either driver in place of all that says where and how to
            connect. It is never closed here, and must belong to the store's loop.
        tls: Whether to use TLS; None is what the URL says.
        tls_ca_file: File with the certificates that the server is checked against;
            None takes the system's.
        tls_certificate_key_file: File with the client's certificate and private key.
        tls_certificate_key_file_password: Password of that key.
        tls_allow_invalid_hostnames: Whether the certificate may be for another host.
        pool_size: Most connections to a server; None is the driver's 100.
        pool_timeout_seconds: Longest wait for a free connection.
        connect_timeout_seconds: Longest time to find and reach a server; None is 10.
        command_timeout_seconds: Longest time that one operation may take; None is 60.
        write_concern: Members that have a write before it counts: `majority`, a
            number, or a name that the replica set knows.
        journal: Whether they have it in their journal by then.
        delete_rasa_data: Whether Rasa's document of a conversation is removed once it
            was taken over. It is left as it is otherwise.
        password_file: File that holds the password, in place of `password`; it is read
            again when the server refuses what it held.
        max_event_history: Most events that `retrieve` reads and holds, or None.
        on_conflict: What a save does about another writer's events.
        on_publish_error: What a save does when the broker fails.
        record_exp: Seconds after its latest save when a conversation expires, or None.
        outbox: Whether each save marks its events as not published, in the same update,
            and they are published in order afterwards, in place of before. Every
            process that saves to the collection must say the same.

    Raises:
        ConfigurationError: An option is wrong or contradicts another one.
    """

    backend_name = "mongodb"
    _stores_message_bodies = False  # the stored events are the messages

    def __init__(
        self,
        domain: Domain | None = None,
        host: str | None = DEFAULT_HOST,
        db: str | None = "rasa",
        username: str | None = None,
        password: str | PasswordSource | None = None,
        auth_source: str | None = "admin",
        collection: str = DEFAULT_COLLECTION,
        event_broker: EventBroker | None = None,
        *,
        driver: Driver = "motor",
        client: Any = None,
        tls: bool | None = None,
        tls_ca_file: str | None = None,
        tls_certificate_key_file: str | None = None,
        tls_certificate_key_file_password: str | None = None,
        tls_allow_invalid_hostnames: bool | None = None,
        pool_size: int | None = None,
        pool_timeout_seconds: float | None = None,
        connect_timeout_seconds: float | None = None,
        command_timeout_seconds: float | None = None,
        write_concern: int | str = "majority",
        journal: bool = True,
        delete_rasa_data: bool = False,
        password_file: str | None = None,
        max_event_history: int | None = None,
        on_conflict: OnConflict = "rebase",
        on_publish_error: OnPublishError = "raise",
        record_exp: float | None = None,
        outbox: bool = False,
    ) -> None:
        super().__init__(
            domain,
            event_broker,
            max_event_history=max_event_history,
            on_conflict=on_conflict,
            on_publish_error=on_publish_error,
            record_exp=record_exp,
        )
        check_driver(driver)
        if write_concern == 0:
            raise ConfigurationError("write_concern 0 would not tell whether it landed")
        secret, source = text_or_source(password, password_file)
        has_password = secret is not None or source is not None
        check_login(host, username, has_password, brings_own=client is not None)
        self._password_source = source
        self._renews_credentials = source is not None
        self._options = ClientOptions(
            host=host or DEFAULT_HOST,
            username=username,
            password=secret,
            auth_source=auth_source,
            tls=tls,
            tls_ca_file=tls_ca_file,
            tls_certificate_key_file=tls_certificate_key_file,
            tls_certificate_key_file_password=tls_certificate_key_file_password,
            tls_allow_invalid_hostnames=tls_allow_invalid_hostnames,
            pool_size=pool_size,
            pool_timeout_seconds=pool_timeout_seconds,
            connect_timeout_seconds=connect_timeout_seconds,
            command_timeout_seconds=command_timeout_seconds,
        )
        self._own_client = client
        self.driver = driver if client is None else driver_of(client)
        self.db_name = db or "rasa"
        self.collection = collection
        self._where = place(self._options.host, self.db_name, is_own=client is not None)
        self._write_concern, self._journal = write_concern, journal
        self._delete_rasa_data = delete_rasa_data
        self._database: MongoDatabase | RotatingDatabase | None = None
        self.outbox = outbox
        self._outbox: Outbox | None = None

    def __repr__(self) -> str:
        """Say where it connects, without credentials."""
        is_usual = self.collection == DEFAULT_COLLECTION
        collection = "" if is_usual else f", collection {self.collection}"
        return f"<{type(self).__name__}: {self._where}{collection}>"

    # -- opening and closing -----------------------------------------------------------

    async def _open(self) -> None:
        database = self._new_database()
        try:
            await settled(database.open())
            if self.outbox:
                self._outbox = await settled(database.open_outbox())
        except BaseException:
            await database.close()  # it may have come up after all
            raise
        self._database = database

    def _open_outbox(self) -> Outbox | None:
        return self._outbox

    def _new_database(self) -> MongoDatabase | RotatingDatabase:
        if self._password_source is None:
            return self._database_with(self._options)
        from tracker_store_async.backends.mongo.rotation import RotatingDatabase

        return RotatingDatabase(
            self._password_source,
            lambda login: self._database_with(
                replace(
                    self._options,
                    username=login.username or self._options.username,
                    password=login.password,
                )
            ),
        )

    def _database_with(self, options: ClientOptions) -> MongoDatabase:
        try:
            from tracker_store_async.backends.mongo.database import MongoDatabase

            return MongoDatabase(
                self._where,
                self.driver,
                options,
                self.db_name,
                self.collection,
                client=self._own_client,
                write_concern=self._write_concern,
                journal=self._journal,
                delete_rasa_data=self._delete_rasa_data,
                creates_layout=self._creates_layout,
                upgrades_layout=self._upgrades_layout,
            )
        except ModuleNotFoundError as error:
            raise MissingExtraError(
                f"MongoTrackerStore needs the package '{error.name}': "
                "pip install 'tracker-store-async[mongo]'"
            ) from error

    async def _close(self) -> None:
        database, self._database = self._database, None
        if database is not None:
            await database.close()

    # -- primitives --------------------------------------------------------------------

    def _check_size(
        self, sender_id: str, rows: Sequence[NewRow], snapshot: str
    ) -> None:
        """Refuse what no document of MongoDB can hold."""
        for row in rows:
            size = text_bytes(row.data) + ROW_OVERHEAD_BYTES
            size += text_bytes(row.event_id or "")  # a copy of Rasa's has none
            if size > MAX_ROW_BYTES:
                raise InvalidInputError(
                    f"an event of type {row.type_name!r} for conversation "
                    f"{sender_id!r} has {size} bytes: MongoDB stores "
                    f"{MAX_ROW_BYTES} at most"
                )
        size = text_bytes(snapshot)
        if size > MAX_SNAPSHOT_BYTES:
            raise InvalidInputError(
                f"the state of conversation {sender_id!r} has {size} bytes: MongoDB "
                f"stores {MAX_SNAPSHOT_BYTES} at most"
            )

    async def _append(self, append: Append) -> bool:
        return await self._opened.append(append)

    async def _append_many(
        self, appends: Sequence[Append]
    ) -> list[bool | BaseException]:
        try:
            answers = await self._opened.append_many(appends)
        except StoreUnavailableError as error:
            return [error] * len(appends)  # any of them may have landed
        except Exception:  # noqa: BLE001  one of them is to blame, which is told below
            answers = [None] * len(appends)
        return await settled_alone(answers, self._append, appends)

    async def _read(self, read: Read) -> StoredConversation | None:
        return await self._opened.read(read)

    async def _delete(
        self,
        sender_id: str,
        before: int | None,
        now: float,
        version: int | None = None,
    ) -> bool:
        return await self._opened.delete(sender_id, before, now, version)

    async def _rewrite(self, rewrite: Rewrite) -> bool:
        return await self._opened.rewrite(rewrite)

    async def _list(self, listing: Listing) -> list[ConversationSummary]:
        return await self._opened.list(listing)

    async def _upkeep(self, *, apply: bool) -> Upkeep:
        return await self._opened.upkeep(apply=apply)

    async def _health(self) -> Health:
        return await self._opened.health()

    @property
    def _opened(self) -> MongoDatabase | RotatingDatabase:
        if self._database is None:
            raise StoreClosedError("the store was closed while it was in use")
        return self._database
