"""The names of the keys.

Rasa keeps a conversation under `tracker:<sender id>`. Ours lie in the slot of that key,
so that one script can take Rasa's value over on a cluster too::

    {tracker:alice}:head    hash: version, times, user, state
    {tracker:alice}:rows    list: the events
    {trackers:0} ... {trackers:15}    sorted sets: the sender ids, the index
    {trackers:0}:users ...            hashes: by sender id, the digest of its user's id
    {trackers:user:<digest>}          sorted sets: the sender ids of a user

With a `key_prefix` it is `{<prefix>:tracker:alice}:head` and so on.
"""

from __future__ import annotations

from binascii import crc_hqx
from functools import lru_cache
from hashlib import sha1
from itertools import count
from typing import NamedTuple

SLOTS = 16384
SHARDS = 16
"""Sorted sets that the index is divided into, so that a cluster shares its load."""

RASA_PREFIX = "tracker:"


class ConversationKeys(NamedTuple):
    """The keys of one conversation, all in one slot."""

    head: bytes
    rows: bytes
    rasa: bytes


class Keys:
    """Names every key of one store.

    Args:
        prefix: Rasa's `key_prefix`, or None.
    """

    def __init__(self, prefix: str | None) -> None:
        base = f"{prefix}:" if prefix else ""
        self.rasa_prefix = (base + RASA_PREFIX).encode()
        self.layout = f"{base}trackers:layout".encode()
        self._index = f"{base}trackers:"

    def of(self, sender_id: str) -> ConversationKeys:
        """Return the keys of a conversation."""
        rasa = self.rasa_prefix + sender_id.encode()
        tag = hash_tag(rasa)
        rest = b"" if tag == rasa else b":" + rasa
        return ConversationKeys(
            b"{%b}:head%b" % (tag, rest), b"{%b}:rows%b" % (tag, rest), rasa
        )

    def shard(self, number: int) -> bytes:
        """Return the key of a part of the index."""
        return f"{{{self._index}{number}}}".encode()

    def removals(self, number: int) -> bytes:
        """Return the key of the removals under way from a part of the index."""
        return removals_from(self.shard(number))

    def users(self, number: int) -> bytes:
        """Return the key that says whose the conversations of a part are."""
        return self.shard(number) + b":users"

    def of_user(self, digest: str) -> bytes:
        """Return the key of the conversations of a user."""
        return f"{{{self._index}user:{digest}}}".encode()


def removals_from(index: bytes) -> bytes:
    """Return the key of the removals under way from a sorted set of ids."""
    return index + b":removals"


def digest_of(user_id: str) -> str:
    """Return what stands for a user in the names of keys: any text may be an id."""
    return sha1(user_id.encode()).hexdigest()  # noqa: S324


def shard_of(sender_id: str) -> int:
    """Return the part of the index that a sender id belongs to."""
    return crc_hqx(sender_id.encode(), 0) % SHARDS


def hash_tag(key: bytes) -> bytes:
    """Return text without `}` that Redis puts into the same slot as the key.

    In most cases it is the key itself. A key with a hash tag of its own (a sender id
    with braces) has that. Where all of a key counts and it holds a `}`, a number that
    lies in the same slot stands for it.
    """
    start = key.find(b"{")
    end = key.find(b"}", start + 1) if start >= 0 else -1
    if end > start + 1:
        return key[start + 1 : end]
    if b"}" not in key:
        return key
    return _number_in(crc_hqx(key, 0) % SLOTS)


@lru_cache(maxsize=4096)
def _number_in(slot: int) -> bytes:
    numbers = (b"%d" % number for number in count())
    return next(text for text in numbers if crc_hqx(text, 0) % SLOTS == slot)
