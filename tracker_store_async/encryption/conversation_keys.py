"""The data keys of conversations: made, wrapped, remembered and erased."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import TYPE_CHECKING, NamedTuple

from tracker_store_async.encryption.log_rows import does_not_open
from tracker_store_async.encryption.sealing import (
    DataKey,
    DoesNotOpenError,
    Envelope,
    new_secret,
    read_envelope,
)
from tracker_store_async.errors import EncryptionKeyError, ErasedKeyError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tracker_store_async.encryption.data_keys import SQLDataKeys
    from tracker_store_async.encryption.keyring import KeyRing
    from tracker_store_async.rows import StoredConversation

MAX_REMEMBERED_KEYS = 10_000
"""Most data keys that stay in memory, of some 500 bytes each."""

DELETION_PAUSES_SECONDS = (0.01, 0.05, 0.2)
"""Pauses before each further look at a conversation whose key was erased."""


async def read_with_key(
    read: Callable[[], Awaitable[StoredConversation | None]],
    key_of: Callable[[StoredConversation], Awaitable[DataKey | None]],
) -> tuple[StoredConversation, DataKey | None] | None:
    """Return what is stored and its key, once nobody is just erasing the two.

    A deletion erases the key first and the conversation then.

    Args:
        read: Reads what is stored.
        key_of: Returns the key of that.

    Raises:
        EncryptionKeyError: The key cannot be had, or was erased some time ago.
    """
    pauses = iter(DELETION_PAUSES_SECONDS)
    while True:
        stored = await read()
        if stored is None:
            return None
        try:
            return stored, await key_of(stored)
        except ErasedKeyError:
            pause_seconds = next(pauses, None)
            if pause_seconds is None:
                raise
        await asyncio.sleep(pause_seconds)


class HeldKey(NamedTuple):
    """A data key, and when the log that it is of began."""

    created_at: float
    key: DataKey


class ConversationKeys:
    """The data keys of the conversations of one store.

    Args:
        ring: The master keys.
        stored: The database that keeps the wrapped keys, or None for the headers.
    """

    def __init__(self, ring: KeyRing, stored: SQLDataKeys | None) -> None:
        self._ring = ring
        self._stored = stored
        self._held: OrderedDict[str, HeldKey] = OrderedDict()

    def held(self, sender_id: str) -> HeldKey | None:
        """Return the key that was last used for a conversation, if it is remembered."""
        return self._held.get(sender_id)

    def forget(self, sender_id: str) -> None:
        """Remember the key of a conversation no longer."""
        self._held.pop(sender_id, None)

    def clear(self) -> None:
        """Remember no key."""
        self._held.clear()

    def hold(self, sender_id: str, held: HeldKey) -> None:
        """Remember the key of a conversation."""
        self._held[sender_id] = held
        self._held.move_to_end(sender_id)
        if len(self._held) > MAX_REMEMBERED_KEYS:
            self._held.popitem(last=False)

    async def of(self, sender_id: str, stored: StoredConversation) -> DataKey | None:
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
            key = await self.unwrap(sender_id, envelope)
        self.hold(sender_id, HeldKey(stored.created_at, key))
        return key

    async def unwrap(self, sender_id: str, envelope: Envelope) -> DataKey:
        """Return the key that an envelope refers to.

        Raises:
            EncryptionKeyError: The key cannot be had, or was erased.
        """
        wrapped = envelope.reference[1]
        if envelope.reference[0] == "data_key_id":
            if self._stored is None:
                raise EncryptionKeyError(
                    f"the data key of conversation {sender_id!r} is kept in a database "
                    "of its own: name it as `encryption.data_keys`"
                )
            wrapped = await self._stored.get(wrapped) or ""
            if not wrapped:
                raise ErasedKeyError(
                    f"the data key of conversation {sender_id!r} was erased: nobody "
                    "can read it any more; delete() removes the rest"
                )
        key_id, _, sealed = wrapped.partition(".")
        master = await self._ring.find(key_id)
        return DataKey(master.unwrap(sealed, sender_id), envelope.reference)

    async def new(self, sender_id: str) -> DataKey:
        """Return a random key for a conversation, wrapped by the active master key."""
        secret = new_secret()
        wrapped = self._ring.active.wrap(secret, sender_id)
        if self._stored is None:
            return DataKey(secret, ("data_key", wrapped))
        return DataKey(secret, ("data_key_id", await self._stored.add(wrapped)))

    def rewrap(self, sender_id: str, key: DataKey) -> DataKey:
        """Return the key as the active master key wraps it."""
        name, wrapped = key.reference
        active = self._ring.active
        if name != "data_key" or wrapped.startswith(f"{active.key_id}."):
            return key
        return DataKey(key.secret, (name, active.wrap(key.secret, sender_id)))

    async def drop(self, key: DataKey) -> None:
        """Erase a key that was made for what is not stored after all."""
        if key.reference[0] == "data_key_id":
            await self.erase(key.reference[1])

    async def erase(self, key_id: str | None) -> None:
        """Erase a wrapped key from the database that keeps it."""
        if key_id is not None and self._stored is not None:
            await self._stored.erase(key_id)
