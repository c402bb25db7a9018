"""Who is compared on which backend, and what each of them does not do."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """One contestant.

    Attributes:
        name: What it is called on the command line.
        label: What it is called in tables and charts.
        module: Module of `benchmarks.workers`.
        variants: The variant for each backend that it has.
        environment: Key of `ENVIRONMENTS`; empty for the running one.
        packages: Packages whose versions are reported.
        lacks: What it does not do that ours does, or what its number means.
        missing: Why it has no number on a backend that is not in `variants`; empty if
            another entry of the same peer has one there.
    """

    name: str
    label: str
    module: str
    variants: dict[str, str]
    lacks: str
    environment: str = ""
    packages: tuple[str, ...] = ()
    missing: str = ""

    @property
    def is_peer(self) -> bool:
        """Whether this is somebody else's library."""
        return bool(self.environment)


BACKENDS = ("postgresql", "sqlite", "redis")


def everywhere(variant: str) -> dict[str, str]:
    """Return the same variant for each backend."""
    return dict.fromkeys(BACKENDS, variant)


OURS_PACKAGES = ("tracker-store-async", "pydantic", "sqlalchemy")

ENTRIES = (
    Entry(
        "ours",
        "tracker_store_async",
        "ours",
        everywhere("plain"),
        "state, ids, version check, classes; events and state are read when touched",
        packages=OURS_PACKAGES,
    ),
    Entry(
        "ours_touched",
        "tracker_store_async, everything touched",
        "ours",
        everywhere("touched"),
        "the same, and the load looks at each event and the state",
        packages=OURS_PACKAGES,
    ),
    Entry(
        "ours_cached",
        "tracker_store_async, cached",
        "ours",
        everywhere("cached"),
        "CachedTrackerStore: reads what is new; not cold, so in no cold table",
        packages=OURS_PACKAGES,
    ),
    Entry(
        "floor",
        "raw driver, decoding to dicts",
        "floor",
        everywhere("decode"),
        "no version check, no ids seen twice, no state, no classes, no sessions",
    ),
    Entry(
        "floor_bytes",
        "raw driver, nothing decoded",
        "floor",
        everywhere("bytes"),
        "as above, and hands out bytes",
    ),
    Entry(
        "openai_sqlite",
        "OpenAI Agents SQLiteSession",
        "openai_agents",
        {"sqlite": "sqlite"},
        "no version check, no ids, no state, dicts",
        environment="openai-agents",
        packages=("openai-agents",),
    ),
    Entry(
        "openai_sqlalchemy",
        "OpenAI Agents SQLAlchemySession",
        "openai_agents",
        {"postgresql": "sqlalchemy", "sqlite": "sqlalchemy"},
        "no version check, no ids, no state, dicts",
        environment="openai-agents",
        packages=("openai-agents", "sqlalchemy"),
    ),
    Entry(
        "openai_redis",
        "OpenAI Agents RedisSession",
        "openai_agents",
        {"redis": "redis"},
        "no version check, no ids, no state, dicts",
        environment="openai-agents",
        packages=("openai-agents", "redis"),
    ),
    Entry(
        "langgraph",
        "LangGraph checkpointer",
        "langgraph",
        {"postgresql": "postgresql", "sqlite": "sqlite", "redis": "redis"},
        "no version check (a late writer's branch wins), no event ids, dicts; "
        "the list is written whole, and older checkpoints stay",
        environment="langgraph",
        packages=(
            "langgraph-checkpoint",
            "langgraph-checkpoint-postgres",
            "langgraph-checkpoint-sqlite",
            "langgraph-checkpoint-redis",
        ),
    ),
    Entry(
        "langgraph_plain",
        "LangGraph checkpointer for plain Redis",
        "langgraph",
        {"redis": "plainredis"},
        "as LangGraph checkpointer; langgraph-checkpoint-plainredis, a third party's",
        environment="langgraph",
        packages=("langgraph-checkpoint", "langgraph-checkpoint-plainredis"),
    ),
    Entry(
        "adk",
        "Google ADK session service",
        "adk",
        {"postgresql": "sql", "sqlite": "sql", "redis": "redis"},
        "an event at a time, so a crash leaves half a turn; versions are timestamps "
        "(SQL), or none (Redis, google-adk-community)",
        environment="google-adk",
        packages=("google-adk", "google-adk-community", "sqlalchemy"),
    ),
    Entry(
        "eventsourcing",
        "eventsourcing recorder",
        "eventsourcing",
        {"postgresql": "postgresql", "sqlite": "sqlite"},
        "synchronous (called in threads), no event ids, no state, dicts; it does "
        "check versions",
        environment="eventsourcing",
        packages=("eventsourcing",),
        missing="it has no recorder for Redis",
    ),
    Entry(
        "rasa",
        "Rasa 3.6.21",
        "rasa",
        everywhere("plain"),
        "blocks the loop, no version check (loses events of other writers), no ids",
        environment="rasa",
        packages=("rasa", "sqlalchemy", "redis"),
    ),
    Entry(
        "rasa_broker",
        "Rasa 3.6.21 with a broker that does nothing",
        "rasa",
        everywhere("broker"),
        "as Rasa; loads once more to find what is new",
        environment="rasa",
        packages=("rasa", "sqlalchemy", "redis"),
    ),
)

BY_NAME = {entry.name: entry for entry in ENTRIES}
