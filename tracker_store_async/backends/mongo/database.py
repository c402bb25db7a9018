"""An open database: the collections, what works on them, and their bounds in time."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, TypeVar

from bson.codec_options import CodecOptions
from pymongo import ReadPreference, WriteConcern

from tracker_store_async.backends.mongo import errors as error_table
from tracker_store_async.backends.mongo.appending import Appender
from tracker_store_async.backends.mongo.batching import BatchAppender
from tracker_store_async.backends.mongo.client import (
    DEFAULT_COMMAND_TIMEOUT_SECONDS,
    ClientOptions,
    close_client,
    make_client,
)
from tracker_store_async.backends.mongo.cutting import Cutter
from tracker_store_async.backends.mongo.erasing import Eraser
from tracker_store_async.backends.mongo.layout import (
    LAYOUT_ID,
    LAYOUT_VERSION,
    Collections,
    bucket_indexes,
    header_indexes,
)
from tracker_store_async.backends.mongo.listing import Lister
from tracker_store_async.backends.mongo.maintenance import mongo_upkeep
from tracker_store_async.backends.mongo.outbox import BoundedOutbox, MongoOutbox
from tracker_store_async.backends.mongo.rasa import RasaDocuments
from tracker_store_async.backends.mongo.reading import Reader
from tracker_store_async.backends.mongo.rewriting import Rewriter
from tracker_store_async.rows import Health
from tracker_store_async.settling import settled
from tracker_store_async.stored_layout import check_version, climb
from tracker_store_async.translation import Translated

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from tracker_store_async.relay import Outbox
    from tracker_store_async.rows import (
        Append,
        ConversationSummary,
        Listing,
        Read,
        Rewrite,
        StoredConversation,
        Upkeep,
    )

T = TypeVar("T")

LAYOUT_STEPS: dict[int, Callable[[Collections], Awaitable[None]]] = {}
"""What leads from a version of the layout to the next one."""


class MongoDatabase:
    """A client, its collections and the operations on them.

    Args:
        where: What to call it in errors.
        driver: `motor` or `pymongo`.
        options: Where and how to connect, unless there is a client.
        db: Name of the database.
        collection: Name of Rasa's collection.
        client: A client that is not ours to close, or None.
        write_concern: Members that have a write before it counts.
        journal: Whether they have it in their journal by then.
        delete_rasa_data: Whether what was taken over is removed.
        creates_layout: Whether missing indexes are created.
        upgrades_layout: Whether an older layout is upgraded.
    """

    def __init__(
        self,
        where: str,
        driver: str,
        options: ClientOptions,
        db: str,
        collection: str,
        *,
        client: Any,
        write_concern: int | str,
        journal: bool,
        delete_rasa_data: bool,
        creates_layout: bool,
        upgrades_layout: bool,
    ) -> None:
        self._where = where
        self._upgrades_layout = upgrades_layout
        self._creates_layout = creates_layout
        self._translated = Translated(where, error_table)
        seconds = options.command_timeout_seconds
        self._command_timeout_seconds = seconds or DEFAULT_COMMAND_TIMEOUT_SECONDS
        self._driver = driver
        self._is_ours = client is None
        with self._translated:
            self._client = make_client(driver, options) if client is None else client
            database = self._client.get_database(
                db,
                codec_options=CodecOptions(),
                # Only a primary knows what was acknowledged a moment ago.
                read_preference=ReadPreference.PRIMARY,
                write_concern=WriteConcern(w=write_concern, j=journal),
            )
            self._collections = collections = Collections(
                log=database[f"{collection}_log"],
                events=database[f"{collection}_events"],
                rasa=database[collection],
            )
        self._database = database
        rasa = RasaDocuments(collections)
        self._eraser = Eraser(collections, rasa)
        self._appender = Appender(
            collections, rasa, self._eraser, delete_rasa_data=delete_rasa_data
        )
        self._batches = BatchAppender(collections)
        self._cutter = Cutter(collections, rasa, self._eraser, self._appender)
        self._rewriter = Rewriter(collections, rasa, self._eraser, self._cutter)
        self._reader = Reader(collections, rasa)
        self._lister = Lister(collections)
        self._outbox = MongoOutbox(collections, self._reader)

    async def open(self) -> None:
        """Connect, and make sure that the layout is there."""
        try:
            await self.bounded(self._ensure_layout())
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Close the client if it is ours."""
        if self._is_ours:
            with self._translated:
                await close_client(self._driver, self._client)

    async def _ensure_layout(self) -> None:
        """Create the indexes where they are missing, and check the layout's version.

        Many processes may do so at once: to create an index that is there does nothing.
        The version is written last: whoever finds it need not look further.
        """
        log = self._collections.log
        found = await log.find_one({"_id": LAYOUT_ID})
        if found is None and not self._creates_layout:
            return
        if found is None:
            await log.create_indexes(header_indexes())
            await self._collections.events.create_indexes(bucket_indexes())
            version = {"$setOnInsert": {"version": LAYOUT_VERSION}}
            await log.update_one({"_id": LAYOUT_ID}, version, upsert=True)
            return
        version, may_upgrade = found["version"], self._upgrades_layout
        check_version(version, LAYOUT_VERSION, self._where, may_upgrade=may_upgrade)
        await climb(
            version,
            LAYOUT_VERSION,
            LAYOUT_STEPS,
            self._collections,
            lambda number: log.update_one(
                {"_id": LAYOUT_ID}, {"$set": {"version": number}}
            ),
        )

    async def open_outbox(self) -> Outbox:
        """Return the outbox, after its index was created where it is missing."""
        if self._creates_layout:
            await self.bounded(self._outbox.create())
        return self.outbox

    @property
    def outbox(self) -> Outbox:
        """The outbox, whose index is there."""
        return BoundedOutbox(self, self._outbox)

    # -- operations --------------------------------------------------------------------

    async def append(self, append: Append) -> bool:
        """Store everything if the version is the expected one; False if it is not."""
        # A thread of Motor's goes on after a cancellation: its outcome is awaited.
        return await self.bounded(settled(self._appender.append(append)))

    async def append_many(self, appends: Sequence[Append]) -> list[bool | None]:
        """Append to many conversations; None for those that have to be sent alone."""
        return await self.bounded(settled(self._batches.append(appends)))

    async def read(self, read: Read) -> StoredConversation | None:
        """Return header and rows as of one moment, or None."""
        return await self.bounded(self._reader.read(read))

    async def delete(
        self,
        sender_id: str,
        before: int | None,
        now: float,
        version: int | None = None,
    ) -> bool:
        """Erase a conversation or its beginning; return whether there was anything."""
        if before is None and version is not None:
            work = self._eraser.delete_version(sender_id, version, now)
        elif before is None:
            work = self._eraser.delete(sender_id, now)
        else:
            work = self._cutter.cut(sender_id, before, now)
        return await self.bounded(settled(work))

    async def rewrite(self, rewrite: Rewrite) -> bool:
        """Put other content in the place of what is stored; False if it is not that."""
        return await self.bounded(settled(self._rewriter.rewrite(rewrite)))

    async def list(self, listing: Listing) -> list[ConversationSummary]:
        """Return the next page, in the order of the sender ids' code points."""
        return await self.bounded(self._lister.page(listing))

    async def upkeep(self, *, apply: bool) -> Upkeep:
        """Report on the collections; with `apply`, mend and compact them first."""
        with self._translated:
            return await mongo_upkeep(self._database, self._collections, apply=apply)

    async def health(self) -> Health:
        """Ask the server how it is."""
        started = time.perf_counter()
        said = await self.bounded(self._database.command("buildInfo"))
        latency_seconds = time.perf_counter() - started
        log = self._collections.log
        layout = await self.bounded(log.find_one({"_id": LAYOUT_ID}))
        return Health(
            backend="mongodb",
            reachable=True,
            latency_seconds=latency_seconds,
            server_version=said.get("version"),
            schema_version=None if layout is None else layout["version"],
            details={"driver": self._driver, "collection": self._collections.rasa.name},
        )

    async def bounded(self, work: Awaitable[T]) -> T:
        """Await one operation for a bounded time, with the driver's errors as ours."""
        with self._translated:
            async with asyncio.timeout(self._command_timeout_seconds):
                return await work
