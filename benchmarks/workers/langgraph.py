"""LangGraph checkpointers: one channel that holds the list of the events.

That is what a graph does with its messages: each turn reads the latest checkpoint and
puts one more. Called through the checkpointer's own methods, without a graph around it.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from benchmarks.contestant import Contestant, Event, Place

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

CHANNEL = "events"


class Checkpointer(Contestant):
    """A saver of one kind."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.stack = AsyncExitStack()

    async def open(self) -> None:
        from langgraph.checkpoint.base import empty_checkpoint

        self.empty_checkpoint = empty_checkpoint
        self.saver: Any = await self.stack.enter_async_context(self.entered())

    def entered(self) -> AbstractAsyncContextManager[Any]:
        """Return the context of a saver that is set up."""
        raise NotImplementedError

    async def close(self) -> None:
        await self.stack.aclose()

    async def retrieve(self, sender_id: str) -> Any:
        return await self.saver.aget_tuple(config_of(sender_id))

    def prepare(self, loaded: Any, sender_id: str, events: list[Event]) -> Any:
        config, version, stored, step = config_of(sender_id), None, [], -1
        if loaded is not None:
            config = loaded.config
            stored = loaded.checkpoint["channel_values"][CHANNEL]
            version = loaded.checkpoint["channel_versions"][CHANNEL]
            step = loaded.metadata.get("step", -1)
        version = self.saver.get_next_version(version, None)
        checkpoint = self.empty_checkpoint()
        checkpoint["channel_values"] = {CHANNEL: [*stored, *events]}
        checkpoint["channel_versions"] = {CHANNEL: version}
        metadata = {"source": "loop", "step": step + 1, "parents": {}}
        return config, checkpoint, metadata, {CHANNEL: version}

    async def save(self, prepared: Any) -> None:
        await self.saver.aput(*prepared)


def config_of(sender_id: str) -> dict[str, Any]:
    """Return the configuration that names a conversation."""
    return {"configurable": {"thread_id": sender_id, "checkpoint_ns": ""}}


class OnSqlite(Checkpointer):
    """`AsyncSqliteSaver`."""

    def entered(self) -> AbstractAsyncContextManager[Any]:
        from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

        return AsyncSqliteSaver.from_conn_string(f"{self.place.folder}/langgraph.db")


class OnPostgres(Checkpointer):
    """`AsyncPostgresSaver` on a pool of connections."""

    async def open(self) -> None:
        await super().open()
        from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver

        self.saver = AsyncPostgresSaver(self.saver)  # what was entered is the pool
        await self.saver.setup()

    def entered(self) -> AbstractAsyncContextManager[Any]:
        from psycopg.rows import dict_row
        from psycopg_pool import AsyncConnectionPool

        from benchmarks.workers.urls import libpq_url

        arguments = {
            "autocommit": True,
            "prepare_threshold": 0,
            "row_factory": dict_row,
        }
        return AsyncConnectionPool(
            libpq_url(self.place),
            min_size=self.place.connection_count,
            max_size=self.place.connection_count,
            kwargs=arguments,
            open=False,
        )


class OnRedis(Checkpointer):
    """`AsyncRedisSaver` of langgraph-checkpoint-redis, which wants modules of Redis."""

    async def open(self) -> None:
        await super().open()
        await self.saver.asetup()

    def entered(self) -> AbstractAsyncContextManager[Any]:
        from langgraph.checkpoint.redis.aio import AsyncRedisSaver

        prefix = self.place.namespace
        return AsyncRedisSaver.from_conn_string(
            self.place.url,
            checkpoint_prefix=f"{prefix}:checkpoint",
            checkpoint_write_prefix=f"{prefix}:checkpoint_write",
        )


class OnPlainRedis(Checkpointer):
    """`AsyncRedisSaver` of langgraph-checkpoint-plainredis, which wants none."""

    async def open(self) -> None:
        from langgraph.checkpoint.base import empty_checkpoint
        from langgraph_checkpoint_plainredis import AsyncRedisSaver
        from redis.asyncio import Redis

        self.empty_checkpoint = empty_checkpoint
        self.client: Any = Redis.from_url(self.place.url)
        self.saver = AsyncRedisSaver(self.client, prefix=self.place.namespace)
        await self.client.ping()

    async def close(self) -> None:
        await self.client.aclose()


def make(variant: str, place: Place) -> Contestant:
    """Return the contestant of a variant."""
    types: dict[str, type[Checkpointer]] = {
        "sqlite": OnSqlite,
        "postgresql": OnPostgres,
        "redis": OnRedis,
        "plainredis": OnPlainRedis,
    }
    return types[variant](place)
