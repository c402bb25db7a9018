"""`EncryptedTrackerStore`: events and state reach the storage sealed."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from tracker_store_async.encryption.conversation_keys import (
    ConversationKeys,
    HeldKey,
    read_with_key,
)
from tracker_store_async.encryption.data_keys import SQLDataKeys
from tracker_store_async.encryption.keyring import KeyRing
from tracker_store_async.encryption.log_rows import (
    COLUMNS,
    open_rows,
    open_state,
    seal_rows,
    without_columns,
)
from tracker_store_async.encryption.sealing import (
    DataKey,
    DoesNotOpenError,
    Envelope,
    read_envelope,
    sealed_length,
)
from tracker_store_async.errors import (
    ConfigurationError,
    CorruptEventError,
    EncryptionKeyError,
)
from tracker_store_async.options import check_choice
from tracker_store_async.rows import Append, Read
from tracker_store_async.saving_many import one_by_one
from tracker_store_async.settling import settled
from tracker_store_async.wrappers.base import WrapperTrackerStore

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from tracker_store_async.encryption.keyring import Keys, KeySource
    from tracker_store_async.rows import (
        Health,
        NewRow,
        Rewrite,
        StoredConversation,
        StoredRow,
    )
    from tracker_store_async.side_database import SideTable
    from tracker_store_async.store import TrackerStore

ROWS_PER_TURN = 128
"""Most rows sealed or opened before others get their turn: under 1 ms of work."""

ALWAYS = 0.0
"""A time at which nothing had expired."""


class _Sealed(NamedTuple):
    append: Append
    held: HeldKey
    is_new: bool  # the key, made for this append


class EncryptedTrackerStore(WrapperTrackerStore):
    """Seals the events and the state of each conversation with a key of its own.

    That data key is random, made with the conversation, and wrapped by the active
    master key. It lives in the conversation's header, or in `data_keys`; deleting the
    conversation erases it. AES-256-GCM, bound to sender id, position and event id.

    Sender ids, user ids, event ids, times of creation and update stay readable, and so
    do the columns in `keep_columns`. It belongs right around a backend, below what
    retries, survives outages or caches.

    Args:
        wrapped: The store; it is owned, opened and closed.
        keys: Key id to key, or a callable, sync or async, that returns that. A key is
            32 bytes in base64, or `fernet:` and a Fernet key. The first one is active.
        active_key: Id of the key that seals what is new, in place of the first.
        plaintext: What is done about events and state that are not sealed: `accept`
            them, as a conversation from before has, or `refuse` them with
            `CorruptEventError`.
        keep_columns: Columns beside the event that stay readable: `type_name`,
            `timestamp`, `intent_name`, `action_name`. Backends without columns have
            none.
        data_keys: URL of an SQL database that keeps the wrapped data keys, apart from
            the conversations and their backups; None keeps them in the header.

    Raises:
        ConfigurationError: A key or an option is wrong, or the store cannot hold sealed
            events (`AwaitableTrackerStore`).
    """

    _seals = True

    def __init__(
        self,
        wrapped: TrackerStore,
        keys: Keys | KeySource,
        *,
        active_key: str | None = None,
        plaintext: str = "accept",
        keep_columns: Collection[str] = (),
        data_keys: str | None = None,
    ) -> None:
        super().__init__(wrapped)
        if not self._tells_logs_apart:
            raise ConfigurationError(
                f"{type(wrapped).__name__} hands whole trackers to a store that cannot "
                "hold sealed events: encryption needs a store of this library"
            )
        check_choice("plaintext", plaintext, ("accept", "refuse"))
        for column in keep_columns:
            check_choice("keep_columns", column, COLUMNS)
        self._key_ring = KeyRing(keys, active=active_key)
        self._plaintext = plaintext
        self._hidden = [name for name in COLUMNS if name not in keep_columns]
        self._data_keys = None if data_keys is None else SQLDataKeys(data_keys)
        self._keys = ConversationKeys(self._key_ring, self._data_keys)

    # -- lifecycle ---------------------------------------------------------------------

    def _side_table(self) -> SideTable | None:
        return None if self._data_keys is None else self._data_keys.side_table()

    async def _open(self) -> None:
        await self._key_ring.open()
        if self._data_keys is not None:
            await self._data_keys.open()
        try:
            await super()._open()
        except BaseException:
            if self._data_keys is not None:
                await settled(self._data_keys.close())
            raise

    async def _close(self) -> None:
        self._keys.clear()
        try:
            await super()._close()
        finally:
            if self._data_keys is not None:
                await settled(self._data_keys.close())

    async def _health(self) -> Health:
        health = await super()._health()
        if self._data_keys is not None:
            await self._data_keys.get("")  # without them nothing is read or begun
        encryption = {
            "active_key": self._key_ring.active.key_id,
            "keys": self._key_ring.key_ids,
            "data_keys": "header" if self._data_keys is None else "database",
        }
        return replace(health, details={**health.details, "encryption": encryption})

    # -- writing -----------------------------------------------------------------------

    def _check_size(
        self, sender_id: str, rows: Sequence[NewRow], snapshot: str
    ) -> None:
        texts = ["x" * (sealed_length(_size_of(row.data)) + 12) for row in rows]
        sealed = [
            without_columns(row, self._hidden)._replace(data=text)
            for row, text in zip(rows, texts, strict=True)
        ]
        text = "x" * (sealed_length(_size_of(snapshot)) + 512)
        super()._check_size(sender_id, sealed, text)

    async def _append(self, append: Append) -> bool:
        sealed = await self._seal(append)
        if sealed is None:
            return False
        return await self._noted((sealed, await super()._append(sealed.append)))

    async def _append_many(
        self, appends: Sequence[Append]
    ) -> list[bool | BaseException]:
        if self._appends_otherwise_than(EncryptedTrackerStore):
            return await one_by_one(self._append, appends)
        sealed = await one_by_one(self._seal, appends)
        ready = [each for each in sealed if isinstance(each, _Sealed)]
        found = await self._forward_many([each.append for each in ready])
        noted = await one_by_one(self._noted, list(zip(ready, found, strict=True)))
        rest = iter(noted)
        return [
            next(rest) if isinstance(each, _Sealed) else each or False
            for each in sealed
        ]

    async def _seal(self, append: Append) -> _Sealed | None:
        """Return an append as it is stored, or None if it would be refused."""
        found = await self._key_for(append)
        if found is None:
            return None
        key, created_at, is_new = found
        rows = await self._sealed(key, append.sender_id, append.position, append.rows)
        snapshot = key.seal_snapshot(
            append.snapshot, append.sender_id, append.new_version, append.session_start
        )
        # A log begun anew under the same name has another key: it is named, always.
        sealed = replace(append, rows=rows, snapshot=snapshot, created_at=created_at)
        began = append.begun_at if created_at is None else created_at
        return _Sealed(sealed, HeldKey(began, key), is_new)

    async def _noted(self, outcome: tuple[_Sealed, bool | BaseException]) -> bool:
        """Remember the key of what has landed; erase a new one of what has not."""
        sealed, landed = outcome
        if isinstance(landed, BaseException):
            raise landed  # it may have landed
        if landed:
            self._keys.hold(sealed.append.sender_id, sealed.held)
        elif sealed.is_new:
            await self._keys.drop(sealed.held.key)
        return landed

    async def _key_for(
        self, append: Append
    ) -> tuple[DataKey, float | None, bool] | None:
        """Return the key to seal with, when its log began, and whether it is new.

        None says that the append would be refused: there is nothing at that version.
        """
        sender_id = append.sender_id
        if append.expected_version == 0:
            return await self._keys.new(sender_id), append.created_at, True
        held = self._keys.held(sender_id)
        if held is None or append.created_at not in (None, held.created_at):
            found = await self._read_sealed(Read(sender_id, append.now, last=0))
            if found is None:
                return None
            header, key = found
            if key is None:  # it was plain so far
                return await self._keys.new(sender_id), header.created_at, True
            held = HeldKey(header.created_at, key)
            if append.created_at not in (None, held.created_at):
                return None
        return self._keys.rewrap(sender_id, held.key), held.created_at, False

    async def _key_of(
        self, sender_id: str, stored: StoredConversation
    ) -> DataKey | None:
        """Return the key of what is stored, or None if it is plain and may be."""
        key = await self._keys.of(sender_id, stored)
        if key is None and self._plaintext == "refuse":
            raise CorruptEventError(
                sender_id, stored.version, "its state is not encrypted, and must be"
            )
        return key

    async def _rewrite(self, rewrite: Rewrite) -> bool:
        sender_id = rewrite.sender_id
        found = await self._read_sealed(Read(sender_id, rewrite.now, last=0))
        if found is None or found[0].created_at != rewrite.created_at:
            return False
        (header, key), changed = found, rewrite.changed
        if not changed and key is None:
            return await super()._rewrite(rewrite)
        was_plain = key is None
        if key is None:  # then all of it is sealed
            first = rewrite.first_position
            changed = frozenset(range(first, first + len(rewrite.rows)))
            key = await self._keys.new(sender_id)
        key = self._keys.rewrap(sender_id, key)
        rows = await self._sealed(key, sender_id, rewrite.first_position, rewrite.rows)
        snapshot = key.seal_snapshot(
            rewrite.snapshot, sender_id, rewrite.expected_version, header.session_start
        )
        sealed = replace(rewrite, rows=rows, changed=changed, snapshot=snapshot)
        landed = await super()._rewrite(sealed)
        if was_plain and not landed:
            await self._keys.drop(key)
        return landed

    async def _sealed(
        self, key: DataKey, sender_id: str, first: int, rows: Sequence[NewRow]
    ) -> list[NewRow]:
        sealed: list[NewRow] = []
        for offset in range(0, len(rows), ROWS_PER_TURN):
            async with self._loop_turns:
                piece = rows[offset : offset + ROWS_PER_TURN]
                sealed += seal_rows(key, sender_id, first + offset, piece, self._hidden)
        return sealed

    # -- reading -----------------------------------------------------------------------

    async def _read(self, read: Read) -> StoredConversation | None:
        # The columns that are kept say little or nothing: who copies derives them.
        read = replace(read, columns=False, ids=True)
        if read.last == 0:
            return await self._read_header(read)
        found = await self._read_sealed(read)
        return None if found is None else await self._opened(read.sender_id, *found)

    async def _read_header(self, read: Read) -> StoredConversation | None:
        """Return a header; one that does not open is there, and can be deleted."""
        stored = await super()._read(read)
        if stored is None:
            return None
        try:
            key = await self._key_of(read.sender_id, stored)
        except (EncryptionKeyError, CorruptEventError):
            stored.snapshot = None
            return stored
        return await self._opened(read.sender_id, stored, key)

    async def _read_sealed(
        self, read: Read
    ) -> tuple[StoredConversation, DataKey | None] | None:
        """Return what is stored and its key, or None if there is nothing."""
        key_of = partial(self._key_of, read.sender_id)
        return await read_with_key(partial(super()._read, read), key_of)

    async def _opened(
        self, sender_id: str, stored: StoredConversation, key: DataKey | None
    ) -> StoredConversation:
        envelope = read_envelope(stored.snapshot)
        if key is not None and envelope is not None:
            stored.snapshot = open_state(key, envelope, sender_id, stored)
        opened: list[StoredRow] = []
        for offset in range(0, len(stored.rows), ROWS_PER_TURN):
            async with self._loop_turns:
                position = stored.first_position + offset
                piece = stored.rows[offset : offset + ROWS_PER_TURN]
                opened += open_rows(
                    key,
                    sender_id,
                    position,
                    piece,
                    accepts_plain=self._plaintext == "accept",
                )
        stored.rows = opened
        return stored

    # -- erasing and rotating ----------------------------------------------------------

    async def _delete(
        self,
        sender_id: str,
        before: int | None,
        now: float,
        version: int | None = None,
    ) -> bool:
        if before is not None:
            return await super()._delete(sender_id, before, now, version)
        self._keys.forget(sender_id)
        if self._data_keys is None:
            return await super()._delete(sender_id, None, now, version)
        # Whoever is cancelled between the two would leave what nobody can read.
        return await settled(self._delete_with_key(sender_id, now, version))

    async def _delete_with_key(
        self, sender_id: str, now: float, version: int | None
    ) -> bool:
        key_id = await self._key_id_of(sender_id)
        if version is None:
            # First the key: whatever happens then, the conversation is forgotten.
            await self._keys.erase(key_id)
            return await super()._delete(sender_id, None, now)
        erased = await super()._delete(sender_id, None, now, version)
        # What is refused stays, and what is still there needs its key.
        if erased or await self._key_id_of(sender_id) != key_id:
            await self._keys.erase(key_id)
        return erased

    async def _key_id_of(self, sender_id: str) -> str | None:
        """Return what leads to the data key in the database, expired or not."""
        header = await super()._read(Read(sender_id, ALWAYS, last=0))
        try:
            envelope = None if header is None else read_envelope(header.snapshot)
        except DoesNotOpenError:
            return None  # of a later version, or damaged: it can be deleted
        if envelope is None or envelope.reference[0] != "data_key_id":
            return None
        return envelope.reference[1]

    async def reseal(self, sender_id: str) -> bool:
        """Wrap the conversation's data key with the active master key.

        The events stay as they are: only the master key that guards their data key
        changes. Another writer's append meanwhile is not disturbed.

        Args:
            sender_id: The conversation.

        Returns:
            Whether anything had to be done.

        Raises:
            EncryptionKeyError: The key that it was sealed with cannot be had.
            CorruptEventError: Its state is damaged, or of a later version.
        """
        await self._ensure_open()
        active = self._key_ring.active
        while True:
            read = partial(super()._read, Read(sender_id, self._now(), last=0))
            found = await read_with_key(read, partial(self._keys.of, sender_id))
            if found is None:
                return False
            stored, key = found
            envelope = read_envelope(stored.snapshot)
            if key is None or envelope is None:
                return False
            if envelope.reference[0] == "data_key_id":
                assert self._data_keys is not None  # noqa: S101 - `_unwrapped` has used it
                wrapped = active.wrap(key.secret, sender_id)
                return await self._data_keys.rewrap(
                    envelope.reference[1], wrapped, f"{active.key_id}."
                )
            if envelope.reference[1].startswith(f"{active.key_id}."):
                return False
            if await self._rewrite_header(sender_id, stored, key, envelope):
                return True

    async def _rewrite_header(
        self,
        sender_id: str,
        stored: StoredConversation,
        key: DataKey,
        envelope: Envelope,
    ) -> bool:
        """Append nothing, with another snapshot, at the version that was read."""
        version, start = stored.version, stored.session_start
        plain = open_state(key, envelope, sender_id, stored)
        fresh = self._keys.rewrap(sender_id, key)
        return await super()._append(
            Append(
                sender_id,
                version,
                (),
                start,
                fresh.seal_snapshot(
                    None if plain is None else plain.decode(), sender_id, version, start
                ),
                now=stored.updated_at,
                expires_at=stored.expires_at,
                created_at=stored.created_at,
            )
        )


def _size_of(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())
