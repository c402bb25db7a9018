"""Imports run one way, siblings do not know each other, and importing is cheap."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import permutations

import pytest

import tracker_store_async
from tests.imports import ImportGraph

LAYERS = [
    ["errors", "rows", "broker"],
    ["events"],
    ["domain", "tracker"],
    ["serialization", "config"],
    ["store"],
    ["backends", "brokers", "wrappers", "sync"],
    ["registry", "factory"],
    ["moving", "keeping", "ops"],
    ["cli"],
]
"""From bottom to top. A module that is not named here helps one that is: what counts is
that no named module reaches one above itself, by whatever way."""

ALLOWED_UPWARDS = {
    # `TrackerStore.create(obj)` has Rasa's name and place, and is the factory
    ("store", "factory"),
}

ALLOWED_SIDEWAYS = {
    # an SQL database is reached in one way, whoever it is for
    ("brokers.sql", "backends.sql"),
    ("brokers.sql", "backends.sql.connector"),
    ("brokers.sql", "backends.sql.engine"),
    ("brokers.sql", "backends.sql.errors"),
    ("brokers.sql", "backends.sql.packets"),
    ("side_database", "backends.sql"),
    ("side_database", "backends.sql.errors"),
    ("side_database", "backends.sql.schema"),
}

OPTIONAL_DRIVERS = {
    *("asyncpg", "asyncmy", "oracledb", "redis", "motor", "pymongo"),
    *("aioboto3", "aiobotocore", "aio_pika", "aiokafka", "confluent_kafka", "nats"),
}
OPERATING = {
    *("cryptography", "opentelemetry", "starlette", "uvicorn", "sentry_sdk"),
    *("hvac", "requests", "botocore"),
}
HEAVY = OPTIONAL_DRIVERS | {
    "sqlalchemy",
    "aiosqlite",
    "typer",
    "rich",
    "ruamel",
    *OPERATING,
}
MAX_IMPORT_SECONDS = 0.150

GRAPH = ImportGraph.read()


def members(name: str) -> list[str]:
    """Return the module and everything below it."""
    return [m for m in GRAPH.edges if m == name or m.startswith(f"{name}.")]


def test_the_graph_sees_imports() -> None:
    """Guard against a reader that finds nothing and lets everything pass."""
    assert "rows" in GRAPH.edges["store"]
    assert "factory" in GRAPH.edges["store"]  # inside a function
    assert "config" not in GRAPH.edges["store"]  # for type checkers alone
    assert "errors" in GRAPH.edges["serialization"]  # from tracker_store_async import
    assert GRAPH.path("serialization", "events.base") is not None


@pytest.mark.parametrize("level", range(len(LAYERS)), ids=lambda i: LAYERS[i][0])
def test_imports_run_one_way(level: int) -> None:
    graph = GRAPH.without(*ALLOWED_UPWARDS)
    lower = [module for name in LAYERS[level] for module in members(name)]
    upper = [
        m for layer in LAYERS[level + 1 :] for name in layer for m in members(name)
    ]
    routes = [graph.path(start, goal) for start in lower for goal in upper]
    assert [" -> ".join(route) for route in routes if route] == []


def test_the_allowed_exceptions_are_needed() -> None:
    allowed = ALLOWED_UPWARDS | ALLOWED_SIDEWAYS
    assert all(goal in GRAPH.edges[start] for start, goal in allowed)


def test_there_are_no_import_cycles() -> None:
    graph = GRAPH.without(*ALLOWED_UPWARDS)
    routes = [graph.path(name, name) for name in graph.edges]
    assert [" -> ".join(route) for route in routes if route] == []


def test_siblings_never_import_each_other() -> None:
    """A backend knows no other backend, no broker and no wrapper; and so on."""
    graph = GRAPH.without(*ALLOWED_UPWARDS, *ALLOWED_SIDEWAYS)
    families: dict[str, list[str]] = {}
    for name in ("backends", "brokers", "wrappers", "sync"):
        for module in members(name):
            families.setdefault(family_of(module), []).append(module)
    assert {"backends.memory", "backends.sql", "wrappers", "sync"} <= families.keys()
    routes = [
        graph.path(start, goal)
        for one, other in permutations(families, 2)
        for start in families[one]
        for goal in families[other]
        if goal != "backends"  # the package above them all, which is empty
    ]
    assert [" -> ".join(route) for route in routes if route] == []


def family_of(module: str) -> str:
    """Return `backends.redis` for that module, its package and `redis_config`."""
    package, _, rest = module.partition(".")
    if package != "backends" or not rest:
        return package
    return f"{package}.{rest.split('.')[0].split('_')[0]}"


def run_python(program: str) -> str:
    """Run a program in a fresh interpreter and return what it prints."""
    command = [sys.executable, "-c", program]
    result = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=60
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def loaded_after(statement: str) -> set[str]:
    """Return the top-level packages that are loaded after a statement."""
    program = f"{statement}\nimport json, sys\nprint(json.dumps(list(sys.modules)))"
    return {name.split(".")[0] for name in json.loads(run_python(program))}


def test_importing_the_package_loads_no_driver() -> None:
    assert loaded_after("import tracker_store_async") & HEAVY == set()


def test_no_public_name_needs_an_optional_driver() -> None:
    names = ", ".join(sorted(tracker_store_async.__all__))
    loaded = loaded_after(f"from tracker_store_async import {names}")
    assert loaded & OPTIONAL_DRIVERS == set()


def test_importing_the_package_is_cheap() -> None:
    """The cost beyond `import pydantic`; the best of several is free of neighbours."""
    program = (
        "import time, pydantic; start = time.perf_counter()\n"
        "import tracker_store_async; print(time.perf_counter() - start)"
    )
    seconds = min(float(run_python(program)) for _ in range(5))
    assert seconds < MAX_IMPORT_SECONDS
