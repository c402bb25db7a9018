"""OpenAI Agents SDK: a session object for each conversation, an item for each event."""

from __future__ import annotations

from typing import Any

from benchmarks.contestant import Contestant, Event, Place


class Sessions(Contestant):
    """Sessions of one kind."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.sessions: dict[str, Any] = {}

    def session(self, sender_id: str) -> Any:
        """Return the session object of a conversation, which is kept."""
        if sender_id not in self.sessions:
            self.sessions[sender_id] = self.new(sender_id)
        return self.sessions[sender_id]

    def new(self, sender_id: str) -> Any:
        """Return a new session object."""
        raise NotImplementedError

    async def retrieve(self, sender_id: str) -> Any:
        return await self.session(sender_id).get_items()

    def prepare(self, loaded: Any, sender_id: str, events: list[Event]) -> Any:
        return sender_id, events

    async def save(self, prepared: Any) -> None:
        sender_id, events = prepared
        await self.session(sender_id).add_items(events)


class OnSqlite(Sessions):
    """`SQLiteSession`."""

    async def open(self) -> None:
        from agents import SQLiteSession

        self.type = SQLiteSession

    def new(self, sender_id: str) -> Any:
        return self.type(sender_id, f"{self.place.folder}/openai.db")

    async def close(self) -> None:
        for session in self.sessions.values():
            session.close()


class OnSqlalchemy(Sessions):
    """`SQLAlchemySession`, one engine for all conversations."""

    async def open(self) -> None:
        from agents.extensions.memory import SQLAlchemySession
        from sqlalchemy.ext.asyncio import create_async_engine

        from benchmarks.workers.urls import sqlalchemy_engine_arguments

        url, arguments = sqlalchemy_engine_arguments(self.place, "openai_alchemy.db")
        self.engine = create_async_engine(url, **arguments)
        self.type = SQLAlchemySession
        await self.new("tables")._ensure_tables()

    def new(self, sender_id: str) -> Any:
        first = not self.sessions
        return self.type(sender_id, engine=self.engine, create_tables=first)

    async def close(self) -> None:
        await self.engine.dispose()


class OnRedis(Sessions):
    """`RedisSession`, one client for all conversations."""

    async def open(self) -> None:
        from agents.extensions.memory import RedisSession
        from redis.asyncio import Redis

        self.client: Any = Redis.from_url(self.place.url)
        self.type = RedisSession
        await self.client.ping()

    def new(self, sender_id: str) -> Any:
        return self.type(
            sender_id, redis_client=self.client, key_prefix=self.place.namespace
        )

    async def close(self) -> None:
        await self.client.aclose()


def make(variant: str, place: Place) -> Contestant:
    """Return the contestant of a variant."""
    if variant == "sqlite":
        return OnSqlite(place)
    return {"sqlalchemy": OnSqlalchemy, "redis": OnRedis}[variant](place)
