"""Rotation of master keys: every conversation's data key gets the active one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tracker_store_async.errors import (
    ConfigurationError,
    CorruptEventError,
    EncryptionKeyError,
)
from tracker_store_async.wrappers.base import WrapperTrackerStore
from tracker_store_async.wrappers.encrypted import EncryptedTrackerStore

if TYPE_CHECKING:
    from tracker_store_async.store import TrackerStore


@dataclass(slots=True)
class Resealed:
    """What `reseal_all` did.

    Attributes:
        conversations: Number of conversations that it looked at.
        resealed: Number of those whose data key it wrapped anew.
        unreadable: Sender ids of those whose key cannot be had, or was erased, or whose
            state is damaged.
    """

    conversations: int
    resealed: int
    unreadable: list[str]


def encrypted_store(store: TrackerStore) -> EncryptedTrackerStore:
    """Return the encryption among a store's wrappers.

    Raises:
        ConfigurationError: There is none.
    """
    inner: TrackerStore = store
    while isinstance(inner, WrapperTrackerStore):
        if isinstance(inner, EncryptedTrackerStore):
            return inner
        inner = inner._wrapped
    raise ConfigurationError(
        "this store has no encryption: give its section the key `encryption`"
    )


async def reseal_all(store: TrackerStore) -> Resealed:
    """Wrap the data key of every conversation with the active master key.

    It can be stopped and run again, and others may read and save meanwhile. They must
    have the new key by then. Afterwards the old key is needed for backups alone.

    Args:
        store: A store with encryption, under any wrappers.

    Raises:
        ConfigurationError: It has none.
        StoreUnavailableError: The storage cannot be reached.
    """
    encrypted = encrypted_store(store)
    done = Resealed(0, 0, [])
    async for summary in encrypted.conversations():
        done.conversations += 1
        try:
            done.resealed += await encrypted.reseal(summary.sender_id)
        except (EncryptionKeyError, CorruptEventError):
            done.unreadable.append(summary.sender_id)
    return done
