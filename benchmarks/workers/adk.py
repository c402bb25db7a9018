"""Google ADK: a session service, one `append_event` for each event of a turn."""

from __future__ import annotations

from typing import Any

from benchmarks.contestant import Contestant, Event, Place

USER_ID = "user"


class Service(Contestant):
    """A session service of one kind."""

    service: Any

    def __init__(self, place: Place) -> None:
        self.place = place

    async def retrieve(self, sender_id: str) -> Any:
        return await self.service.get_session(
            app_name=self.place.namespace, user_id=USER_ID, session_id=sender_id
        )

    def prepare(self, loaded: Any, sender_id: str, events: list[Event]) -> Any:
        from google.adk.events import Event as AdkEvent

        author = {"user": "user"}
        made = [
            AdkEvent(
                author=author.get(event["event"], "assistant"),
                invocation_id=sender_id,
                timestamp=event["timestamp"],
                custom_metadata=event,
            )
            for event in events
        ]
        return loaded, sender_id, made

    async def save(self, prepared: Any) -> None:
        session, sender_id, events = prepared
        if session is None:
            session = await self.service.create_session(
                app_name=self.place.namespace, user_id=USER_ID, session_id=sender_id
            )
        for event in events:
            await self.service.append_event(session, event)


class OnSql(Service):
    """`DatabaseSessionService`."""

    async def open(self) -> None:
        from google.adk.sessions import DatabaseSessionService

        from benchmarks.workers.urls import sqlalchemy_engine_arguments

        url, arguments = sqlalchemy_engine_arguments(self.place, "adk.db")
        self.service = DatabaseSessionService(url, **arguments)
        await self.service.prepare_tables()

    async def close(self) -> None:
        await self.service.close()


class OnRedis(Service):
    """`RedisSessionService` of google-adk-community."""

    async def open(self) -> None:
        from google.adk_community.sessions import RedisSessionService

        self.service = RedisSessionService(uri=self.place.url)
        await self.service.cache.ping()

    async def close(self) -> None:
        await self.service.cache.aclose()

    async def fill(self, sender_id: str, events: list[Event]) -> None:
        """Store all but the last event at once: each append writes the session whole.

        Appending one by one would take minutes, and store the same.
        """
        _, _, made = self.prepare(None, sender_id, events)
        session = await self.service.create_session(
            app_name=self.place.namespace, user_id=USER_ID, session_id=sender_id
        )
        session.events.extend(made[:-1])
        await self.service.append_event(session, made[-1])


def make(variant: str, place: Place) -> Contestant:
    """Return the contestant of a variant."""
    return {"sql": OnSql, "redis": OnRedis}[variant](place)
