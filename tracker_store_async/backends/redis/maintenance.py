"""What the keys take, and what makes the server take less."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from redis.exceptions import ResponseError

from tracker_store_async.backends.redis.keys import SHARDS
from tracker_store_async.rows import Upkeep

if TYPE_CHECKING:
    from tracker_store_async.backends.redis.client import Commands
    from tracker_store_async.backends.redis.keys import Keys
    from tracker_store_async.backends.redis.operations import Operations

STEPS = ("sweep ids of expired conversations out of the index", "MEMORY PURGE")
SAMPLE = 200
"""Ids of each part of the index whose keys are measured."""

SWEEPS = 4 * SHARDS


async def redis_upkeep(operations: Operations, keys: Keys, *, apply: bool) -> Upkeep:
    """Report on the keys; with `apply`, sweep the index and purge memory first.

    Args:
        operations: An open connection.
        keys: The names of the keys.
        apply: Whether to do something.
    """
    commands = operations.commands
    if apply:
        for _ in range(SWEEPS):
            await operations.index.sweep()
        await _purge(commands)
    size, count = await _size(commands, keys)
    notes = [
        f"{count} conversations in the index; the size is reckoned from "
        f"{SAMPLE} of each of its {SHARDS} parts at most",
        *await _memory(commands),
        "what was erased stays in an append-only file until BGREWRITEAOF, and in "
        "an RDB file until the next one",
    ]
    return Upkeep(size, STEPS, notes)


async def _purge(commands: Commands) -> None:
    if commands.is_cluster:
        return  # each node by itself, which is its owner's to do
    try:
        await commands.send("MEMORY", "PURGE")
    except ResponseError:
        return  # the user may not, or the server does not know it


async def _size(commands: Commands, keys: Keys) -> tuple[int, int]:
    size = count = 0
    for number in range(SHARDS):
        shard = keys.shard(number)
        held = int(await commands.send("ZCARD", shard))
        members = await commands.send("ZRANDMEMBER", shard, SAMPLE)
        asked: list[tuple[Any, ...]] = [
            ("MEMORY", "USAGE", key)
            for member in members or ()
            for key in keys.of(member.decode())[:2]
        ]
        sizes = [each or 0 for each in await commands.send_all(asked)]
        for key in (shard, keys.users(number)):
            size += int(await commands.send("MEMORY", "USAGE", key) or 0)
        size += round(sum(sizes) * held / max(1, len(members or ())))
        count += held
    return size, count


async def _memory(commands: Commands) -> list[str]:
    if commands.is_cluster:
        return []
    said = await commands.client.info("memory")
    used, ratio = said.get("used_memory", 0), said.get("mem_fragmentation_ratio")
    policy = said.get("maxmemory_policy", "noeviction")
    notes = [f"the server uses {used} bytes in all, fragmentation {ratio}"]
    if policy != "noeviction":
        notes.append(
            f"maxmemory_policy is {policy}: conversations may be evicted; it "
            "should be noeviction"
        )
    return notes
