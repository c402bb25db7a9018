"""The index: the ids of all conversations, in sorted sets, and the pages read from it.

Sorted sets give an order that stays, and so a cursor; SCAN gives neither. The index may
name what is gone (expired by the server), never miss what is there: each page is
checked against the headers, and what is gone is removed.

On one server the scripts keep it in step. On a cluster it lies in other slots than the
conversations, so: an id is added before its conversation begins and once more after; a
removal is announced, then the conversation is looked at (or erased), then the id is
removed unless an addition has called the removal off.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from typing import TYPE_CHECKING, Any

from tracker_store_async.backends.redis.keys import SHARDS, digest_of, shard_of
from tracker_store_async.backends.redis.scripts import FORGET, INDEX_ADD, INDEX_REMOVE
from tracker_store_async.backends.redis.users import Users
from tracker_store_async.errors import TrackerDeserialisationError
from tracker_store_async.rows import MAX_SENDER_ID_LENGTH, ConversationSummary

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tracker_store_async.backends.redis.client import Commands
    from tracker_store_async.backends.redis.keys import Keys
    from tracker_store_async.rows import Listing, StoredConversation

SCAN_COUNT = 1000
"""Keys that the server looks at for one SCAN: about 0.2 ms."""

FILTERED_CHUNK = 500
"""Least ids to look at together where a filter may leave most of them out."""

SWEPT_IDS = 64
"""Ids that one sweep looks at."""

_SUMMARY_FIELDS = ("version", "created_at", "updated_at", "user_id", "expires_at")


class Index:
    """Knows which conversations there are.

    Args:
        commands: The open connection.
        keys: The names of the keys.
        read_rasa: Turns a sender id, Rasa's value, its time to live in ms and the time
            into a conversation.
        only_looks: Whether nothing may be written: what Rasa wrote is then kept in the
            memory of this process, and an id that stands for nothing stays.
    """

    def __init__(
        self,
        commands: Commands,
        keys: Keys,
        read_rasa: Any,
        *,
        only_looks: bool = False,
    ) -> None:
        self._rasas_ids: dict[int, list[bytes]] | None = None
        self._only_looks = only_looks
        self._commands = commands
        self._keys = keys
        self._read_rasa = read_rasa
        self.users = Users(commands, keys, only_looks=only_looks)

    # -- keeping it --------------------------------------------------------------------

    async def add(self, sender_ids: Iterable[str]) -> None:
        """Add ids, of conversations that begin or that Rasa wrote."""
        by_shard: dict[int, list[str]] = {}
        for sender_id in sender_ids:
            by_shard.setdefault(shard_of(sender_id), []).append(sender_id)
        calls = [
            ((self._keys.shard(number), self._keys.removals(number)), ids)
            for number, ids in by_shard.items()
        ]
        if len(calls) == 1:
            [(keys, ids)] = calls
            await self._commands.run(INDEX_ADD, keys, *ids)
            return
        for answer in await self._commands.run_many(INDEX_ADD, calls):
            if isinstance(answer, Exception):
                raise answer

    async def announce_removal(self, sender_id: str) -> int:
        """Announce that an id will be removed; return the number to end it with."""
        number = random.getrandbits(48)
        removals = self._keys.removals(shard_of(sender_id))
        await self._commands.send("ZADD", removals, number, sender_id)
        return number

    async def end_removal(self, sender_id: str, number: int) -> None:
        """Remove the id unless it was added again since the announcement."""
        shard = shard_of(sender_id)
        keys = (
            self._keys.shard(shard),
            self._keys.removals(shard),
            self._keys.users(shard),
        )
        await self._commands.run(INDEX_REMOVE, keys, sender_id, number)

    async def forget(self, sender_id: str) -> None:
        """Remove an id under which nothing is stored."""
        keys = self._keys.of(sender_id)
        if self._only_looks:
            return
        if not self._commands.is_cluster:
            shard = self._keys.shard(shard_of(sender_id))
            await self._commands.run(FORGET, (*keys, shard), sender_id)
            return
        number = await self.announce_removal(sender_id)
        digests = await self.users.digests(sender_id)
        if not await self._commands.send("EXISTS", keys.head, keys.rasa):
            for digest in digests:
                await self.users.forget(sender_id, digest)
            await self.end_removal(sender_id, number)
        else:
            await self.add([sender_id])

    async def sweep(self) -> None:
        """Forget some ids under which nothing is stored any more.

        What the server has expired leaves its id behind. A few of a random part are
        looked at whenever conversations that expire have begun, so that what is left
        behind stays a small part of the index even if nobody lists it.
        """
        shard = self._keys.shard(random.randrange(SHARDS))  # noqa: S311
        members = await self._commands.send("ZRANDMEMBER", shard, SWEPT_IDS)
        ids = [member.decode() for member in members or ()]
        there = await self._commands.send_all(
            [("EXISTS", self._keys.of(each).head) for each in ids]
        )
        for sender_id, is_there in zip(ids, there, strict=True):
            if not is_there:
                await self.forget(sender_id)

    async def find_rasas(self) -> None:
        """Add what Rasa wrote, found by SCAN on every node."""
        kept: dict[int, set[bytes]] = {}
        prefix = self._keys.rasa_prefix
        for options in self._nodes():
            cursor: Any = 0
            while True:
                cursor, found = await self._commands.send(
                    *("SCAN", cursor, "MATCH", prefix + b"*", "COUNT", SCAN_COUNT),
                    *("TYPE", "string"),
                    **options,
                )
                if isinstance(cursor, dict):  # a cluster answers by node
                    [cursor] = cursor.values()
                if self._only_looks:
                    for sender_id in _sender_ids(found, prefix):
                        shard = kept.setdefault(shard_of(sender_id), set())
                        shard.add(sender_id.encode())
                else:
                    await self.add(_sender_ids(found, prefix))
                if int(cursor) == 0:
                    break
        self._rasas_ids = {shard: sorted(ids) for shard, ids in kept.items()}

    def _nodes(self) -> list[dict[str, Any]]:
        client: Any = self._commands.client
        if not self._commands.is_cluster:
            return [{}]
        return [{"target_nodes": node} for node in client.get_primaries()]

    # -- reading it --------------------------------------------------------------------

    async def page(self, listing: Listing) -> list[ConversationSummary]:
        """Return the next page, ordered by part of the index and then by id.

        The conversations of a user are ordered by id alone.
        """
        if listing.user_id is not None:
            return await self._page_of_user(listing, listing.user_id)
        page: list[ConversationSummary] = []
        shard, after = 0, listing.after
        if after is None or (self._only_looks and self._rasas_ids is None):
            await self.find_rasas()
        if after is not None:
            shard = shard_of(after)
        is_filtered = (listing.user_id, listing.updated_from, listing.updated_before)
        least = FILTERED_CHUNK if any(x is not None for x in is_filtered) else 1
        while shard < SHARDS and len(page) < listing.limit:
            wanted = max(least, listing.limit - len(page))
            ids = await self._ids(shard, after, wanted)
            page += [s for s in await self._summaries(ids, listing) if s is not None]
            if len(ids) < wanted:
                shard, after = shard + 1, None
            else:
                after = ids[-1]
        return page[: listing.limit]

    async def _page_of_user(
        self, listing: Listing, user_id: str
    ) -> list[ConversationSummary]:
        page: list[ConversationSummary] = []
        after, is_last = listing.after, False
        while len(page) < listing.limit and not is_last:
            wanted = max(FILTERED_CHUNK, listing.limit - len(page))
            ids = await self.users.page(user_id, after, wanted)
            heads = await self._heads(ids)
            for sender_id, head in zip(ids, heads, strict=True):
                if head[0] is None or head[3] != user_id.encode():
                    await self.users.forget(sender_id, digest_of(user_id))
                    continue
                summary = _checked(_summary(sender_id, head), listing)
                page += [] if summary is None else [summary]
            is_last = len(ids) < wanted
            after = after if is_last else ids[-1]
        return page[: listing.limit]

    async def _heads(self, ids: Sequence[str]) -> list[Any]:
        return await self._commands.send_all(
            [("HMGET", self._keys.of(each).head, *_SUMMARY_FIELDS) for each in ids]
        )

    async def _ids(self, shard: int, after: str | None, limit: int) -> list[str]:
        first = "-" if after is None else f"({after}"
        found = await self._commands.send(
            *("ZRANGEBYLEX", self._keys.shard(shard), first, "+", "LIMIT", 0, limit)
        )
        kept = (self._rasas_ids or {}).get(shard, [])
        if kept:
            begin = 0 if after is None else bisect_right(kept, after.encode())
            found = sorted({*found, *kept[begin : begin + limit]})[:limit]
        return [member.decode() for member in found]

    async def _summaries(
        self, ids: Sequence[str], listing: Listing
    ) -> list[ConversationSummary | None]:
        heads = await self._heads(ids)
        headless = [each for each, h in zip(ids, heads, strict=True) if h[0] is None]
        rasas = await self._rasas(headless, listing.now)
        return [
            _checked(
                _summary(each, head) if head[0] is not None else rasas[each], listing
            )
            for each, head in zip(ids, heads, strict=True)
        ]

    async def _rasas(
        self, ids: Sequence[str], now: float
    ) -> dict[str, tuple[ConversationSummary, float | None] | None]:
        """Return what Rasa stored under ids; those with nothing are forgotten."""
        found: dict[str, tuple[ConversationSummary, float | None] | None] = {}
        for sender_id in ids:
            key = self._keys.of(sender_id).rasa
            value, ttl = await self._commands.send_all([("GET", key), ("PTTL", key)])
            found[sender_id] = None
            if value is None:
                await self.forget(sender_id)
                continue
            try:
                conversation = self._read_rasa(sender_id, value, ttl, now)
            except TrackerDeserialisationError:
                continue  # reading it says so; a listing goes on
            if conversation is not None:
                found[sender_id] = _summary_of_rasas(sender_id, conversation)
        return found


def _sender_ids(keys: Iterable[bytes], prefix: bytes) -> list[str]:
    ids = []
    for key in keys:
        try:
            sender_id = key[len(prefix) :].decode()
        except UnicodeDecodeError:
            continue  # nobody could ask for it
        if 0 < len(sender_id) <= MAX_SENDER_ID_LENGTH:
            ids.append(sender_id)
    return ids


def _summary(
    sender_id: str, head: Sequence[bytes]
) -> tuple[ConversationSummary, float | None]:
    version, created_at, updated_at, user_id, expires_at = head
    summary = ConversationSummary(
        sender_id,
        int(version),
        float(created_at),
        float(updated_at),
        None if user_id is None else user_id.decode(),
        sender_id,
    )
    return summary, float(expires_at) if expires_at else None


def _summary_of_rasas(
    sender_id: str, conversation: StoredConversation
) -> tuple[ConversationSummary, float | None]:
    summary = ConversationSummary(
        sender_id,
        conversation.version,
        conversation.created_at,
        conversation.updated_at,
        conversation.user_id,
        sender_id,
    )
    return summary, conversation.expires_at


def _checked(
    found: tuple[ConversationSummary, float | None] | None, listing: Listing
) -> ConversationSummary | None:
    """Return the summary if it belongs into the listing."""
    if found is None:
        return None
    summary, expires_at = found
    if expires_at is not None and expires_at <= listing.now:
        return None
    if listing.user_id is not None and summary.user_id != listing.user_id:
        return None
    at, first, before = (
        summary.updated_at,
        listing.updated_from,
        listing.updated_before,
    )
    if first is not None and at < first:
        return None
    return None if before is not None and at >= before else summary
