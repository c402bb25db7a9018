"""Which conversations a user has: a sorted set for each user, like the index.

It may name what is gone, or somebody else's by now, and never misses one: each page is
checked against the headers, and what does not belong is removed.

On one server the scripts keep it in step. On a cluster it lies in other slots, so an id
is added before the append that names the user and once more after, and is removed in
the way of the index: announced, looked at, and called off by whoever adds it again.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from tracker_store_async.backends.redis.keys import (
    SHARDS,
    digest_of,
    removals_from,
    shard_of,
)
from tracker_store_async.backends.redis.scripts import (
    FORGET_USER,
    INDEX_ADD,
    INDEX_REMOVE,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tracker_store_async.backends.redis.client import Commands
    from tracker_store_async.backends.redis.keys import Keys

IDS_AT_ONCE = 500
"""Conversations that are looked at together while the sets are made."""


class Users:
    """Knows which conversations each user has.

    Args:
        commands: The open connection.
        keys: The names of the keys.
        only_looks: Whether nothing may be written.
    """

    def __init__(
        self, commands: Commands, keys: Keys, *, only_looks: bool = False
    ) -> None:
        self._commands = commands
        self._keys = keys
        self._only_looks = only_looks

    async def page(self, user_id: str, after: str | None, limit: int) -> list[str]:
        """Return the next ids of a user, in the order of their bytes."""
        first = "-" if after is None else f"({after}"
        key = self._keys.of_user(digest_of(user_id))
        found = await self._commands.send(
            *("ZRANGEBYLEX", key, first, "+", "LIMIT", 0, limit)
        )
        return [member.decode() for member in found]

    async def forget(self, sender_id: str, digest: str) -> None:
        """Remove an id from those of a user, unless it is that user's after all."""
        if self._only_looks:
            return
        head, key = self._keys.of(sender_id).head, self._keys.of_user(digest)
        if not self._commands.is_cluster:
            await self._commands.run(FORGET_USER, (head, key), sender_id, digest)
            return
        number = random.getrandbits(48)
        removals = removals_from(key)
        await self._commands.send("ZADD", removals, number, sender_id)
        user = await self._commands.send("HGET", head, "user_id")
        if user is not None and digest_of(user.decode()) == digest:
            await self._commands.send("ZREM", removals, sender_id)
            return
        await self._commands.run(INDEX_REMOVE, (key, removals), sender_id, number)

    # -- on a cluster, where no script can do it ---------------------------------------

    async def add(self, owners: Mapping[str, str]) -> None:
        """Add ids to those of a user, to whom they belong in a moment.

        Args:
            owners: The id of the user, by that of the conversation.
        """
        found = {each: self._keys.of_user(digest_of(owners[each])) for each in owners}
        calls = [((key, removals_from(key)), (each,)) for each, key in found.items()]
        for answer in await self._commands.run_many(INDEX_ADD, calls):
            if isinstance(answer, Exception):
                raise answer

    async def moved(self, owners: Mapping[str, str]) -> None:
        """Note whose conversations are now; they were somebody else's, maybe.

        Args:
            owners: The id of the user, by that of the conversation.
        """
        places = [(self._keys.users(shard_of(each)), each) for each in owners]
        digests = [digest_of(user_id) for user_id in owners.values()]
        noted = await self._commands.send_all([("HGET", *each) for each in places])
        await self._commands.send_all(
            [("HSET", *each, new) for each, new in zip(places, digests, strict=True)]
        )
        await self.add(owners)
        for sender_id, old, new in zip(owners, noted, digests, strict=True):
            if old is not None and old.decode() != new:
                await self.forget(sender_id, old.decode())

    async def left(self, sender_id: str) -> None:
        """Note that a conversation is nobody's now."""
        key = self._keys.users(shard_of(sender_id))
        old = await self._commands.send("HGET", key, sender_id)
        await self._commands.send("HDEL", key, sender_id)
        if old is not None:
            await self.forget(sender_id, old.decode())

    async def digests(self, sender_id: str) -> set[str]:
        """Return the users whose conversation it may be counted as."""
        noted = await self._commands.send(
            "HGET", self._keys.users(shard_of(sender_id)), sender_id
        )
        head = self._keys.of(sender_id).head
        user = await self._commands.send("HGET", head, "user_id")
        found = set() if noted is None else {noted.decode()}
        return found if user is None else found | {digest_of(user.decode())}

    # -- what an earlier version stored ------------------------------------------------

    async def find_all(self) -> None:
        """Make the sets from the headers. It may be cut off, and be run again."""
        for shard in range(SHARDS):
            after: str | None = None
            while ids := await self._page_of_shard(shard, after):
                after = ids[-1]
                heads = [self._keys.of(each).head for each in ids]
                users = await self._commands.send_all(
                    [("HGET", head, "user_id") for head in heads]
                )
                found = zip(ids, users, strict=True)
                await self.moved({k: user.decode() for k, user in found if user})

    async def _page_of_shard(self, shard: int, after: str | None) -> Sequence[str]:
        first = "-" if after is None else f"({after}"
        found = await self._commands.send(
            *("ZRANGEBYLEX", self._keys.shard(shard), first, "+"),
            *("LIMIT", 0, IDS_AT_ONCE),
        )
        return [member.decode() for member in found]
