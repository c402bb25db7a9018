"""Append, read, delete and list: what the primitives do on an open connection."""

from __future__ import annotations

import math
import random
from contextlib import suppress
from hashlib import sha1
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError

from tracker_store_async.backends.redis.index import Index
from tracker_store_async.backends.redis.keys import digest_of, shard_of
from tracker_store_async.backends.redis.reading import Reader
from tracker_store_async.backends.redis.rows import (
    conversation_of_rasa,
    encode_row,
)
from tracker_store_async.backends.redis.scripts import (
    APPEND,
    CUT,
    DELETE,
    REWRITE,
)
from tracker_store_async.errors import TrackerDeserialisationError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tracker_store_async.backends.redis.client import Commands
    from tracker_store_async.backends.redis.keys import Keys
    from tracker_store_async.rows import (
        Append,
        ConversationSummary,
        Listing,
        Read,
        Rewrite,
        StoredConversation,
    )

SWEEP_ODDS = 1 / 8
"""Part of the conversations that begin which look for ids left behind."""

MAX_TTL_MS = 10**15
"""Longest time to live that Redis can add to its clock (some 30,000 years)."""


class Operations:
    """The primitives on an open connection.

    Args:
        commands: The open connection.
        keys: The names of the keys.
        delete_rasa_data: Whether taking Rasa's value over removes it.
        only_looks: Whether a listing leaves the index as it is.
    """

    def __init__(
        self,
        commands: Commands,
        keys: Keys,
        *,
        delete_rasa_data: bool,
        only_looks: bool = False,
    ) -> None:
        self.commands = commands
        self._keys = keys
        self._delete_rasa_data = delete_rasa_data
        self._reader = Reader(commands, keys)
        self.index = Index(commands, keys, conversation_of_rasa, only_looks=only_looks)

    def _keys_of(self, sender_id: str) -> tuple[bytes, ...]:
        """Return the keys for a script: the index's too where it lies on the server."""
        keys = self._keys.of(sender_id)
        if self.commands.is_cluster:
            return keys
        return (*keys, self._keys.shard(shard_of(sender_id)))

    # -- append ------------------------------------------------------------------------

    async def append(self, append: Append) -> bool:
        """Store everything if the version is the expected one; False if it is not."""
        user_id = append.user_id if self.commands.is_cluster else None
        if user_id is None:
            return await self._append_or_begin(append)
        await self.index.users.add({append.sender_id: user_id})
        if stored := await self._append_or_begin(append):
            await self.index.users.moved({append.sender_id: user_id})
        return stored

    async def _append_or_begin(self, append: Append) -> bool:
        if not append.expected_version:
            return await self._begin(append)
        answer = await self._append(append)
        if isinstance(answer, list):
            return await self._take_over(append, *answer)
        length = append.new_version - append.session_start
        self._reader.lengths[append.sender_id] = length
        return bool(answer)

    async def _begin(self, append: Append) -> bool:
        if self.commands.is_cluster:
            await self.index.add([append.sender_id])
        answer = await self._append(append)
        if isinstance(answer, list):
            return await self._take_over(append, *answer)
        if answer and self.commands.is_cluster:
            await self.index.add([append.sender_id])
        if answer and append.expires_at is not None and random.random() < SWEEP_ODDS:  # noqa: S311
            # It is stored by now, whatever becomes of this.
            with suppress(RedisError, OSError, TimeoutError):
                await self.index.sweep()
        return bool(answer)

    async def _take_over(self, append: Append, value: bytes, ttl_ms: int) -> bool:
        """Store what Rasa's value holds and what is appended, if it is still that."""
        found = conversation_of_rasa(append.sender_id, value, ttl_ms, append.now)
        version = 0 if found is None else found.version
        if version != append.expected_version:
            return False
        if found is not None and append.created_at not in (None, found.created_at):
            return False
        if self.commands.is_cluster:
            await self.index.add([append.sender_id])
        stored = bool(await self._append(append, value, found))
        if stored and self.commands.is_cluster:
            await self.index.add([append.sender_id])
        return stored

    async def append_many(self, appends: Sequence[Append]) -> list[bool | None]:
        """Append to several conversations: one round trip, to each node of a cluster.

        Returns:
            For each what `append` does, or None for one that has to be sent alone: Rasa
            wrote the conversation, or the server has refused the command.
        """
        if self.commands.is_cluster:
            return await self._append_many_on_cluster(appends)
        return await self._append_all(appends)

    async def _append_many_on_cluster(
        self, appends: Sequence[Append]
    ) -> list[bool | None]:
        users = self.index.users
        await users.add(_owners(appends))
        begun = [each.sender_id for each in appends if not each.expected_version]
        if begun:
            await self.index.add(begun)
        found = await self._append_all(appends)
        stored = [
            each for each, is_stored in zip(appends, found, strict=True) if is_stored
        ]
        if begun:
            there = {each.sender_id for each in stored}
            await self.index.add(each for each in begun if each in there)
        await users.moved(_owners(stored))
        return found

    async def _append_all(self, appends: Sequence[Append]) -> list[bool | None]:
        answers = await self.commands.run_many(
            APPEND,
            [
                (self._keys_of(append.sender_id), self._arguments(append))
                for append in appends
            ],
        )
        return [
            None if isinstance(answer, Exception | list) else bool(answer)
            for answer in answers
        ]

    async def _append(
        self,
        append: Append,
        value: bytes | None = None,
        found: StoredConversation | None = None,
    ) -> Any:
        keys = self._keys_of(append.sender_id)
        arguments = self._arguments(append, value, found)
        return await self.commands.run(APPEND, keys, *arguments)

    def _arguments(
        self,
        append: Append,
        value: bytes | None = None,
        found: StoredConversation | None = None,
    ) -> list[Any]:
        rows = [encode_row(*row) for row in found.rows] if found else []
        rows += [encode_row(row.event_id, row.data) for row in append.rows]
        expires_at = append.expires_at
        return [
            append.expected_version,
            append.new_version,
            append.session_start,
            append.snapshot or "",
            repr(append.now),
            "" if expires_at is None else repr(expires_at),
            "" if expires_at is None else ttl_ms(expires_at - append.now),
            0 if append.user_id is None else 1,
            append.user_id or "",
            "" if append.created_at is None else repr(append.created_at),
            repr(found.created_at if found else append.begun_at),
            "" if value is None else sha1(value).hexdigest(),  # noqa: S324
            int(value is not None and self._delete_rasa_data),
            append.sender_id,
            repr(append.stamp),
            0 if append.expected_version else append.position,
            *rows,
        ]

    # -- delete ------------------------------------------------------------------------

    async def delete(
        self,
        sender_id: str,
        before: int | None,
        now: float,
        version: int | None = None,
    ) -> bool:
        """Erase a conversation or its beginning; return whether there was anything."""
        if before is not None:
            return await self._cut(sender_id, before, now)
        if not self.commands.is_cluster:
            return await self._delete(sender_id, now, version)
        number = await self.index.announce_removal(sender_id)
        digests = await self.index.users.digests(sender_id)
        had_any = await self._delete(sender_id, now, version)
        if version is not None and not had_any:
            await self.index.add([sender_id])  # it may well be there: call it off
            return False
        for digest in digests:
            await self.index.users.forget(sender_id, digest)
        await self.index.end_removal(sender_id, number)
        return had_any

    async def _delete(self, sender_id: str, now: float, version: int | None) -> bool:
        keys = self._keys_of(sender_id)
        asked = "" if version is None else version
        answer = await self.commands.run(DELETE, keys, repr(now), sender_id, asked, "")
        if not isinstance(answer, list):
            return bool(answer)
        [value] = answer
        try:
            found = conversation_of_rasa(sender_id, value, -1, now)
        except TrackerDeserialisationError:
            return version is None
        if version is None or found is None or found.version != version:
            return version is None and found is not None
        seen = sha1(value).hexdigest()  # noqa: S324
        again = (repr(now), sender_id, version, seen)
        return isinstance(await self.commands.run(DELETE, keys, *again), list)

    async def _cut(self, sender_id: str, before: int, now: float) -> bool:
        keys = self._keys_of(sender_id)
        arguments = (repr(now), before, sender_id)
        answer = await self.commands.run(CUT, keys, *arguments)
        if not isinstance(answer, list):
            return bool(answer)
        # Rasa's value holds what is to be erased: it is taken over first, as it is.
        value, remaining = answer
        found = conversation_of_rasa(sender_id, value, remaining, now)
        if found is None or not 0 < before <= found.session_start:
            return False
        if not await self._take_over_as_it_is(sender_id, value, found, now):
            return False
        return bool(await self.commands.run(CUT, keys, *arguments))

    async def _take_over_as_it_is(
        self, sender_id: str, value: bytes, found: StoredConversation, now: float
    ) -> bool:
        if self.commands.is_cluster:
            await self.index.add([sender_id])
        rows = [encode_row(*row) for row in found.rows]
        expires_at = found.expires_at
        answer = await self.commands.run(
            APPEND,
            self._keys_of(sender_id),
            *(found.version, found.version, found.session_start, ""),
            repr(found.updated_at),
            "" if expires_at is None else repr(expires_at),
            "" if expires_at is None else ttl_ms(expires_at - now),
            *(0, "", "", repr(found.created_at)),
            sha1(value).hexdigest(),  # noqa: S324
            *(0, sender_id, repr(found.updated_at), 0, *rows),
        )
        return bool(answer)

    # -- rewrite -----------------------------------------------------------------------

    async def rewrite(self, rewrite: Rewrite) -> bool:
        """Put other content in the place of what is stored; False if it is not that."""
        users, user_id = self.index.users, rewrite.user_id
        if not rewrite.changed or not self.commands.is_cluster:
            return await self._rewrite(rewrite)
        if user_id is not None:
            await users.add({rewrite.sender_id: user_id})
        before = await users.digests(rewrite.sender_id)
        if not await self._rewrite(rewrite):
            return False
        if user_id is None:
            await users.left(rewrite.sender_id)
        else:
            await users.moved({rewrite.sender_id: user_id})
        for digest in before - {digest_of(user_id or "")}:
            await users.forget(rewrite.sender_id, digest)
        return True

    async def _rewrite(self, rewrite: Rewrite) -> bool:
        keys = self._keys_of(rewrite.sender_id)
        arguments: tuple[Any, ...] = (
            repr(rewrite.now),
            rewrite.expected_version,
            rewrite.first_position,
            repr(rewrite.created_at),
        )
        if rewrite.changed:
            rows = (encode_row(row.event_id, row.data) for row in rewrite.rows)
            user = rewrite.user_id
            arguments += (repr(rewrite.new_created_at), rewrite.snapshot)
            arguments += (0 if user is None else 1, user or "", rewrite.sender_id)
            arguments += tuple(rows)
        answer = await self.commands.run(REWRITE, keys, *arguments)
        if not isinstance(answer, list):
            return bool(answer)
        sender_id, now = rewrite.sender_id, rewrite.now
        value, remaining = answer
        found = conversation_of_rasa(sender_id, value, remaining, now)
        if (
            found is None
            or found.version != rewrite.expected_version
            or found.created_at != rewrite.created_at
        ):
            return False
        if not rewrite.changed:
            return True
        if not await self._take_over_as_it_is(sender_id, value, found, now):
            return False
        return bool(await self.commands.run(REWRITE, keys, *arguments) == 1)

    # -- list --------------------------------------------------------------------------

    async def read(self, read: Read) -> StoredConversation | None:
        """Return header and rows as of one moment, or None."""
        return await self._reader.read(read)

    async def page(self, listing: Listing) -> list[ConversationSummary]:
        """Return the next page."""
        return await self.index.page(listing)


def _owners(appends: Sequence[Append]) -> dict[str, str]:
    """Return the users that appends name, by the id of the conversation."""
    return {e.sender_id: e.user_id for e in appends if e.user_id is not None}


def ttl_ms(seconds: float) -> int:
    """Return the time to live in ms, rounded up, as Redis can take it."""
    return min(MAX_TTL_MS, max(1, math.ceil(min(seconds, 1e12) * 1000)))


def version_of(info: Mapping[str, Any]) -> str:
    """Return what the server says it is."""
    if "valkey_version" in info:
        return f"Valkey {info['valkey_version']}"
    return f"Redis {info.get('redis_version', '')}".strip()
