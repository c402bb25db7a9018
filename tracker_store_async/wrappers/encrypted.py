"""`EncryptedTrackerStore`: events and state reach the storage sealed."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from tracker_store_async.encryption.data_keys import SQLDataKeys
from tracker_store_async.encryption.keyring import KeyRing
from tracker_store_async.encryption.log_rows import (
    COLUMNS,
    does_not_open,
    open_rows,
    open_state,
    seal_rows,
    without_columns,
)
from tracker_store_async.encryption.sealing import (
    DataKey,
    DoesNotOpenError,
    Envelope,
    new_secret,
    read_envelope,
    sealed_length,
)
from tracker_store_async.errors import ConfigurationError, EncryptionKeyError
from tracker_store_async.options import check_choice
from tracker_store_async.rows import Append, Read
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
    from tracker_store_async.store import TrackerStore

ROWS_PER_TURN = 128
"""Most rows sealed or opened before others get their turn: under 1 ms of work."""

MAX_REMEMBERED_KEYS = 10_000
"""Most data keys that stay in memory, of some 500 bytes each."""

ALWAYS = 0.0
"""A time at which nothing had expired."""


class _Held(NamedTuple):
    created_at: float
    key: DataKey


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
        plaintext: What a read does about events that are not sealed: `accept` them, as
            a conversation from before has, or `refuse` with `CorruptEventError`.
        keep_columns: Columns beside the event that stay readable: `type_name`,
            `timestamp`, `intent_name`, `action_name`. Backends without columns have
            none.
        data_keys: URL of an SQL database that keeps the wrapped data keys, apart from
            the conversations and their backups; None keeps them in the header.

    Raises:
        ConfigurationError: A key or an option is wrong, or the store cannot hold sealed
            events (`AwaitableTrackerStore`).
    """

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
        self._held: OrderedDict[str, _Held] = OrderedDict()

    # -- lifecycle ---------------------------------------------------------------------

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
        self._held.clear()
        try:
            await super()._close()
        finally:
            if self._data_keys is not None:
                await settled(self._data_keys.close())

    async def _health(self) -> Health:
        health = await super()._health()
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
        found = await self._key_for(append)
        if found is None:
            return False
        key, created_at, is_new = found
        rows = await self._sealed(key, append.sender_id, append.position, append.rows)
        snapshot = key.seal_snapshot(
            append.snapshot, append.sender_id, append.new_version, append.session_start
        )
        # A log begun anew under the same name has another key: it is named, always.
        sealed = replace(append, rows=rows, snapshot=snapshot, created_at=created_at)
        landed = await super()._append(sealed)
        if landed:
            began = append.begun_at if created_at is None else created_at
            self._hold(append.sender_id, _Held(began, key))
        elif is_new:
            await self._forget(key)
        return landed

    async def _key_for(
        self, append: Append
    ) -> tuple[DataKey, float | None, bool] | None:
        """Return the key to seal with, when its log began, and whether it is new.

        None says that the append would be refused: there is nothing at that version.
        """
        sender_id = append.sender_id
        if append.expected_version == 0:
            return await self._new_key(sender_id), append.created_at, True
        held = self._held.get(sender_id)
        if held is None or append.created_at not in (None, held.created_at):
            header = await super()._read(Read(sender_id, append.now, last=0))
            if header is None:
                return None
            key = await self._key_of(sender_id, header)
            if key is None:  # it was plain so far
                return await self._new_key(sender_id), header.created_at, True
            held = _Held(header.created_at, key)
            if append.created_at not in (None, held.created_at):
                return None
        return self._rewrapped(sender_id, held.key), held.created_at, False

    async def _rewrite(self, rewrite: Rewrite) -> bool:
        sender_id = rewrite.sender_id
        header = await super()._read(Read(sender_id, rewrite.now, last=0))
        if header is None or header.created_at != rewrite.created_at:
            return False
        key, changed = await self._key_of(sender_id, header), rewrite.changed
        if not changed and key is None:
            return await super()._rewrite(rewrite)
        was_plain = key is None
        if key is None:  # then all of it is sealed
            first = rewrite.first_position
            changed = frozenset(range(first, first + len(rewrite.rows)))
            key = await self._new_key(sender_id)
        key = self._rewrapped(sender_id, key)
        rows = await self._sealed(key, sender_id, rewrite.first_position, rewrite.rows)
        snapshot = key.seal_snapshot(
            rewrite.snapshot, sender_id, rewrite.expected_version, header.session_start
        )
        sealed = replace(rewrite, rows=rows, changed=changed, snapshot=snapshot)
        landed = await super()._rewrite(sealed)
        if was_plain and not landed:
            await self._forget(key)
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
        stored = await super()._read(replace(read, columns=False, ids=True))
        if stored is None:
            return None
        sender_id = read.sender_id
        try:
            key = await self._key_of(sender_id, stored)
        except EncryptionKeyError:
            if read.last == 0:  # there is one, and it can be deleted
                stored.snapshot = None
                return stored
            raise
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

    # -- keys --------------------------------------------------------------------------

    def _hold(self, sender_id: str, held: _Held) -> None:
        self._held[sender_id] = held
        self._held.move_to_end(sender_id)
        if len(self._held) > MAX_REMEMBERED_KEYS:
            self._held.popitem(last=False)

    async def _key_of(
        self, sender_id: str, stored: StoredConversation
    ) -> DataKey | None:
        """Return the key of a conversation as it is stored; None if it is plain.

        Raises:
            EncryptionKeyError: The key cannot be had, or was erased.
        """
        try:
            envelope = read_envelope(stored.snapshot)
        except DoesNotOpenError:
            raise does_not_open(sender_id, stored.version) from None
        if envelope is None:
            return None
        held = self._held.get(sender_id)
        if held is not None and held.key.reference == envelope.reference:
            key = held.key
        else:
            key = await self._unwrapped(sender_id, envelope)
        self._hold(sender_id, _Held(stored.created_at, key))
        return key

    async def _unwrapped(self, sender_id: str, envelope: Envelope) -> DataKey:
        wrapped = envelope.reference[1]
        if envelope.reference[0] == "data_key_id":
            if self._data_keys is None:
                raise EncryptionKeyError(
                    f"the data key of conversation {sender_id!r} is kept in a database "
                    "of its own: name it as `encryption.data_keys`"
                )
            wrapped = await self._data_keys.get(wrapped) or ""
            if not wrapped:
                raise EncryptionKeyError(
                    f"the data key of conversation {sender_id!r} was erased: nobody "
                    "can read it any more; delete() removes the rest"
                )
        key_id, _, sealed = wrapped.partition(".")
        master = await self._key_ring.find(key_id)
        return DataKey(master.unwrap(sealed, sender_id), envelope.reference)

    async def _new_key(self, sender_id: str) -> DataKey:
        secret = new_secret()
        wrapped = self._key_ring.active.wrap(secret, sender_id)
        if self._data_keys is None:
            return DataKey(secret, ("data_key", wrapped))
        return DataKey(secret, ("data_key_id", await self._data_keys.add(wrapped)))

    def _rewrapped(self, sender_id: str, key: DataKey) -> DataKey:
        """Return the key as the active master key wraps it."""
        name, wrapped = key.reference
        active = self._key_ring.active
        if name != "data_key" or wrapped.startswith(f"{active.key_id}."):
            return key
        return DataKey(key.secret, (name, active.wrap(key.secret, sender_id)))

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
        self._held.pop(sender_id, None)
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
            await self._erase(key_id)
            return await super()._delete(sender_id, None, now)
        erased = await super()._delete(sender_id, None, now, version)
        # What is refused stays, and what is still there needs its key.
        if erased or await self._key_id_of(sender_id) != key_id:
            await self._erase(key_id)
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

    async def _forget(self, key: DataKey) -> None:
        """Erase a key that was made for what is not stored after all."""
        if key.reference[0] == "data_key_id":
            await self._erase(key.reference[1])

    async def _erase(self, key_id: str | None) -> None:
        if key_id is not None and self._data_keys is not None:
            await self._data_keys.erase(key_id)

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
        """
        await self._ensure_open()
        active = self._key_ring.active
        while True:
            stored = await super()._read(Read(sender_id, self._now(), last=0))
            envelope = None if stored is None else read_envelope(stored.snapshot)
            if stored is None or envelope is None:
                return False
            key = await self._unwrapped(sender_id, envelope)
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
        fresh = self._rewrapped(sender_id, key)
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
