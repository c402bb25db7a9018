"""What the MongoDB store stores, document by document, read with the bare driver.

A change here is a change of the layout: it needs a new version and an upgrade.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.mongo_databases import EACH_DRIVER, LAYOUT_DOCUMENT, mongo_database
from tests.sql_databases import SENDER, ids, read
from tracker_store_async.rows import Append, NewRow

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.mongo_databases import MongoTarget
    from tests.servers import Servers

LOG = "0123456789abcdef0123456789abcdef"
ROWS = [
    NewRow(
        "5e1bb2a8-3f0c-4c8e-9a37-2b1a35a0a3a1",
        '{"event":"user","timestamp":1700000000.123456,'
        '"text":"h\\u00e9 \\ud800 \\u0000 é \N{WINKING FACE}"}',
        "user",
        1700000000.123456,
        "greet",
        None,
    ),
    NewRow("own id ", '{"event":"action","name":"x"}', "action", None, None, "x"),
]
APPENDS = [
    Append(SENDER, 0, ROWS, 0, '{"slots":{"a":1.0}}', 1700000001.25),
    Append(SENDER, 2, ROWS[:1], 2, "{}", 1700000002.5, 1700086402.75, "user 1"),
]
STORED = [{"id": row.event_id, "data": row.data} for row in ROWS]
HEADER = {
    "_id": SENDER,
    "layout": 1,
    "log": LOG,
    "version": 3,
    "first_position": 0,
    "session_start": 2,
    "snapshot": "{}",
    "created_at": 1700000001.25,
    "updated_at": 1700000002.5,
    "expires_at": 1700086402.75,
    "user_id": "user 1",
    "tail_first": 0,
    "tail": [*STORED, STORED[0]],
    "tail_bytes": 422,
}
INDEXES = {
    "conversations_log": {
        "_id_": {"key": [("_id", 1)]},
        "user_id_1__id_1": {
            "key": [("user_id", 1), ("_id", 1)],
            "partialFilterExpression": {"user_id": {"$exists": True}},
        },
        "updated_at_1__id_1": {"key": [("updated_at", 1), ("_id", 1)]},
        "ttl_1": {"key": [("ttl", 1)], "expireAfterSeconds": 0},
    },
    "conversations_events": {
        "_id_": {"key": [("_id", 1)]},
        "log_1_end_1": {"key": [("log", 1), ("end", 1)]},
        "ttl_1": {"key": [("ttl", 1)], "expireAfterSeconds": 0},
    },
}


@pytest.fixture
def target(servers: Servers) -> Iterator[MongoTarget]:
    with mongo_database(servers) as found:
        yield found


def without_ttl(document: dict[str, Any]) -> dict[str, Any]:
    """Return a document without the date that MongoDB's own clock goes by."""
    ttl = document.pop("ttl")
    assert type(ttl).__name__ == "datetime"
    return document


@pytest.mark.parametrize("driver", EACH_DRIVER)
async def test_what_appends_store(
    target: MongoTarget, driver: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "tracker_store_async.backends.mongo.appending.new_log", lambda: LOG
    )
    async with target.store(driver=driver) as store:
        for append in APPENDS:
            assert await store._append(append)
    found = without_ttl(target.header())
    assert found == HEADER
    assert [type(found[name]) for name in ("created_at", "tail_bytes")] == [float, int]
    assert list(target.raw.conversations_log.find({"_id": {"layout": 1}})) == [
        LAYOUT_DOCUMENT
    ]
    assert target.buckets() == []


@pytest.mark.backend("mongo")
async def test_what_a_bucket_is(target: MongoTarget) -> None:
    async with target.store() as store:
        target.raw.conversations_log.insert_one(HEADER | {"tail_bytes": 65536})
        more = Append(SENDER, 3, ROWS[1:], 2, "{}", 1700000003.5)
        assert await store._append(more)
        assert target.buckets() == [
            {
                "_id": f"{LOG}:0",
                "log": LOG,
                "first": 0,
                "end": 3,
                "rows": HEADER["tail"],
            }
        ]
        assert target.header() == HEADER | {
            "version": 4,
            "updated_at": 1700000003.5,
            "expires_at": None,
            "tail_first": 3,
            "tail": STORED[1:],
            "tail_bytes": 84,
            "buckets_until": float("inf"),
        }


@pytest.mark.parametrize("driver", EACH_DRIVER)
async def test_what_was_stored_is_read(target: MongoTarget, driver: Any) -> None:
    header = HEADER | {"tail_first": 2, "tail": STORED[:1], "tail_bytes": 100}
    header["runs"] = ["f00d"]
    target.raw.conversations_log.insert_many([LAYOUT_DOCUMENT, header])
    bucket = {"log": LOG, "first": 0, "end": 2, "rows": STORED}
    target.raw.conversations_events.insert_one(
        bucket | {"_id": f"{LOG}:0:f00d", "token": "f00d"}
    )
    async with target.store(driver=driver) as store:
        found = await store._read(read())
    assert ids(found) == [ROWS[0].event_id, ROWS[1].event_id, ROWS[0].event_id]
    assert found is not None
    assert [data for _, data in found.rows] == [ROWS[n].data for n in (0, 1, 0)]
    assert (found.created_at, found.updated_at) == (1700000001.25, 1700000002.5)
    assert (found.snapshot, found.user_id) == ("{}", "user 1")


@pytest.mark.backend("mongo")
async def test_indexes(target: MongoTarget) -> None:
    async with target.store():
        for name, expected in INDEXES.items():
            found = {
                index: {key: value for key, value in about.items() if key != "v"}
                for index, about in target.raw[name].index_information().items()
            }
            assert found == expected
        assert "conversations" not in target.raw.list_collection_names()


@pytest.mark.backend("mongo")
async def test_the_mark_of_a_take_over(target: MongoTarget) -> None:
    target.add_rasas([{"event": "restart", "timestamp": 5.5}])
    async with target.store() as store:
        assert await store._append(Append(SENDER, 1, ROWS, 0, "{}", 9.5))
    mark = target.raw.conversations_log.find_one({"_id": {"rasa": SENDER}})
    assert mark == {"_id": {"rasa": SENDER}, "layout": 1}
    assert target.header()["created_at"] == 5.5
    assert target.header()["tail"][0] == {"data": '{"event":"restart","timestamp":5.5}'}
