"""What Rasa's own store wrote to MongoDB: read, taken over, listed, erased."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests import golden
from tests.mongo_databases import EACH_DRIVER, mongo_database, rasa_events, values
from tests.sql_databases import NOW, SENDER, append, read
from tests.unit.test_golden_answers import (
    VERBOSITIES,
    comparable,
    domain,
    our_start,
    rasas_start,
    rasas_state,
    state_of,
)
from tracker_store_async.events import SlotSet
from tracker_store_async.rows import Listing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.mongo_databases import MongoTarget
    from tests.servers import Servers

bson = pytest.importorskip("bson", reason="the extra mongo is not installed")
pytestmark = pytest.mark.backend("mongo")


@pytest.fixture
def target(servers: Servers) -> Iterator[MongoTarget]:
    with mongo_database(servers) as found:
        yield found


def golden_documents() -> list[dict[str, Any]]:
    """Return Rasa's documents as the driver stored them."""
    from bson import json_util

    found: list[dict[str, Any]] = json_util.loads(golden.text("mongo"))
    return found


@pytest.mark.parametrize("driver", EACH_DRIVER)
async def test_golden_data_answers_as_rasa_did(
    target: MongoTarget, driver: Any
) -> None:
    documents = golden_documents()
    target.raw.conversations.insert_many(documents)
    compared = 0
    async with target.store(domain=domain(), driver=driver) as store:
        assert list(await store.keys()) == sorted(d["sender_id"] for d in documents)
        for taken_over in (False, True):
            for document in documents:
                sender_id = document["sender_id"]
                if taken_over:
                    tracker = await store.retrieve(sender_id)
                    assert tracker is not None
                    tracker.update(SlotSet("name", "x", timestamp=2e9))
                    await store.save(tracker)
                    full = await store.retrieve_full_tracker(sender_id)
                    assert full is not None
                    assert full.version == len(document["events"]) + 1
                    continue
                for method in ("retrieve", "retrieve_full_tracker"):
                    tracker = await getattr(store, method)(sender_id)
                    start = our_start(sender_id, method)
                    if rasas_start("mongo", sender_id, method) != start:
                        continue
                    for verbosity in VERBOSITIES:
                        theirs = rasas_state("mongo", sender_id, method, verbosity)
                        ours = state_of(tracker, verbosity)
                        assert comparable(ours, "mongo") == comparable(theirs, "mongo")
                        compared += 1
    assert compared > len(documents)
    assert target.rasas() == golden_documents()  # left as they were


async def test_the_take_over_is_conditional(target: MongoTarget) -> None:
    target.add_rasas(rasa_events(12))
    async with target.store() as store:
        found = await store._read(read())
        assert found is not None
        assert (found.version, found.session_start) == (12, 10)
        target.raw.conversations.update_one(
            {"sender_id": SENDER}, {"$push": {"events": rasa_events(1, 12)[0]}}
        )
        assert not await store._append(append(0))
        assert not await store._append(append(12))
        assert not await store._append(append(13, created_at=1.0))
        assert target.raw.conversations_log.find_one({"_id": SENDER}) is None
        assert await store._append(append(13, created_at=found.created_at))
        target.raw.conversations.update_one(
            {"sender_id": SENDER}, {"$push": {"events": rasa_events(1, 13)[0]}}
        )
        again = await store._read(read())
        assert again is not None
        assert values(again) == [*range(13), 13, 14, 15]


@pytest.mark.parametrize("delete_rasa_data", [False, True])
async def test_the_old_value_is_left_or_removed(
    target: MongoTarget, delete_rasa_data: bool
) -> None:
    document = target.add_rasas(rasa_events(12))
    async with target.store(delete_rasa_data=delete_rasa_data) as store:
        assert await store._append(append(12))
        assert target.rasas() == ([] if delete_rasa_data else [document])
        assert await store._delete(SENDER, None, NOW)
        assert await store._read(read()) is None
    assert target.is_clean()


async def test_a_large_old_value(target: MongoTarget) -> None:
    events = [event | {"text": "x" * 1000} for event in rasa_events(2000)]
    target.add_rasas(events)
    async with target.store() as store:
        assert await store._append(append(2000))
        found = await store._read(read())
        assert found is not None
        assert values(found) == list(range(2003))


async def test_deleting_what_only_rasa_stored(target: MongoTarget) -> None:
    target.add_rasas(rasa_events(12))
    target.add_rasas([], "empty")
    async with target.store() as store:
        assert await store.exists(SENDER)
        assert not await store.exists("empty")
        assert await store._delete(SENDER, None, NOW)
        assert not await store._delete(SENDER, None, NOW)
        assert not await store._delete("empty", None, NOW)
    assert target.is_clean()


async def test_an_id_that_rasa_stored_as_a_number(target: MongoTarget) -> None:
    target.add_rasas(rasa_events(3), 42)
    async with target.store() as store:
        assert await store.exists("42")
        assert not await store.exists("042")
        assert list(await store.keys()) == ["42"]
        assert await store._append(append(3, sender_id="42"))
        assert list(await store.keys()) == ["42"]
        assert await store._delete("42", None, NOW)
    assert target.is_clean()


@pytest.mark.parametrize("page_size", [1, 2, 3, 7, 50])
async def test_listing_merges_both_in_order(
    target: MongoTarget, page_size: int
) -> None:
    old = [f"{number:02}" for number in range(0, 40, 2)]
    for sender_id in old:
        target.add_rasas(rasa_events(3), sender_id)
    target.add_rasas(rasa_events(3), 5)
    new = [f"{number:02}" for number in range(1, 40, 3)]
    async with target.store() as store:
        for sender_id in new:
            version = 3 if sender_id in old else 0
            assert await store._append(append(version, sender_id=sender_id))
        found = [each async for each in store.conversations(page_size=page_size)]
        expected = sorted({*old, *new, "5"})
        assert [each.sender_id for each in found] == expected
        versions = {each.sender_id: each.version for each in found}
        assert versions["02"] == 3
        assert versions["01"] == 3
        assert versions["04"] == 6
        only_old = [
            each.sender_id
            async for each in store.conversations(
                page_size=page_size, updated_before=1.65e9
            )
        ]
        assert only_old == sorted({*old, "5"} - {*new})


async def test_taken_over_while_it_is_listed(target: MongoTarget) -> None:
    """Between the page of ours and the look at Rasa's it is in neither, once."""
    for name in ("a", "b", "c"):
        target.add_rasas(rasa_events(3), name)
    async with target.store() as store:
        lister = store._opened._lister
        ours = lister._ours

        async def and_take_over(listing: Listing) -> Any:
            page = await ours(listing)
            assert await store._append(append(3, sender_id="b"))
            return page

        lister._ours = and_take_over  # type: ignore[method-assign]
        page = await store._list(Listing(NOW, 10))
        assert [each.sender_id for each in page] == ["a", "b", "c"]
