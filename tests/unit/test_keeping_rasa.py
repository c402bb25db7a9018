"""What Rasa wrote is anonymised and pruned too, and its own value goes with it."""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from tests.conformance.backends import (
    BACKENDS,
    DynamoStorage,
    MongoStorage,
    RedisStorage,
)
from tests.conformance.kit import said
from tracker_store_async.events import UserUttered
from tracker_store_async.keeping import Retention, anonymise, prune
from tracker_store_async.keeping.rules import rules_from

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conformance.backends import Storage
    from tests.servers import Servers

SECRET = "xyzzy-secret"
EVENTS = [
    {"event": "user", "timestamp": 10.5, "text": "old", "parse_data": {}},
    {"event": "action", "timestamp": 11.0, "name": "action_session_start"},
    {"event": "session_started", "timestamp": 11.5},
    {"event": "slot", "timestamp": 12.0, "name": "who", "value": SECRET},
    {
        "event": "user",
        "timestamp": 12.25,
        "text": f"I am {SECRET}",
        "parse_data": {},
    },
]
RULES = rules_from({"rules": [{"slots": "*", "action": "replace", "with": "X"}]})


@pytest.fixture(
    params=[
        pytest.param(name, marks=pytest.mark.backend(BACKENDS[name].server), id=name)
        for name in ("redis", "redis_cluster", "mongo", "dynamo")
    ]
)
def rasas(
    request: pytest.FixtureRequest, servers: Servers, tmp_path: Path
) -> Iterator[Storage]:
    """Give a storage that holds a conversation as Rasa writes it."""
    with ExitStack() as stack:
        storage = stack.enter_context(
            BACKENDS[request.param].storage(servers, tmp_path)
        )
        write(storage)
        yield storage


def write(storage: Storage) -> None:
    match storage:
        case RedisStorage():
            value = json.dumps({"events": EVENTS, "name": "alice"})
            storage.client.set(f"{storage.prefix}:tracker:alice", value)
        case MongoStorage():
            document = {"sender_id": "alice", "events": EVENTS}
            storage._client[storage._database].conversations.insert_one(document)
        case DynamoStorage():
            item = {"sender_id": {"S": "alice"}, "events": wire(EVENTS)}
            storage._server.call("put_item", TableName=storage._name, Item=item)


def wire(value: Any) -> dict[str, Any]:
    """Return a value as DynamoDB's API has it."""
    if isinstance(value, list):
        return {"L": [wire(each) for each in value]}
    if isinstance(value, dict):
        return {"M": {name: wire(each) for name, each in value.items()}}
    return {"S": value} if isinstance(value, str) else {"N": str(value)}


@pytest.mark.parametrize("is_taken_over", [False, True])
async def test_nothing_of_it_is_left(rasas: Storage, is_taken_over: bool) -> None:
    store = rasas.store()
    before = await store.retrieve_full_tracker("alice")
    assert before is not None
    if is_taken_over:
        before.update(UserUttered("more"))
        await store.save(before)
    planned = [each async for each in anonymise(store, RULES, dry_run=True)]
    assert SECRET in rasas.raw()
    done = [each async for each in anonymise(store, RULES)]
    assert done == planned
    assert [each.events for each in done] == [2]
    tracker = await store.retrieve_full_tracker("alice")
    assert tracker is not None
    assert tracker.version == 5 + is_taken_over
    assert said(tracker)[:2] == ["old", "I am X"]
    assert tracker.get_slot("who") == "X"
    tracker.update(UserUttered("on"))
    await store.save(tracker)
    assert [s.sender_id async for s in store.conversations()] == ["alice"]
    await rasas.close()
    assert SECRET not in rasas.raw()


async def test_its_beginning_is_cut_off(rasas: Storage) -> None:
    store = rasas.store()
    [cut] = [each async for each in prune(store, Retention(keep_last_sessions=1))]
    assert cut is not None
    assert (cut.before, cut.events) == (1, 1)
    tracker = await store.retrieve_full_tracker("alice")
    assert said(tracker) == [f"I am {SECRET}"]
    [cut] = [each async for each in prune(store, Retention(older_than_seconds=1))]
    assert cut is not None
    assert (cut.before, cut.events) == (None, 4)
    await rasas.close()
    assert SECRET not in rasas.raw()
