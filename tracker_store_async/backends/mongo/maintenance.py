"""What the collections take, and the commands that make them take less."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pymongo.errors import OperationFailure

from tracker_store_async.backends.mongo.layout import (
    Collections,
    bucket_indexes,
    header_indexes,
)
from tracker_store_async.rows import Upkeep

if TYPE_CHECKING:
    from collections.abc import Sequence


async def mongo_upkeep(
    database: Any, collections: Collections, *, apply: bool
) -> Upkeep:
    """Report on the collections; with `apply`, mend indexes and compact first.

    Args:
        database: The database.
        collections: Our collections in it.
        apply: Whether to do something.
    """
    wanted = (
        (collections.log, header_indexes()),
        (collections.events, bucket_indexes()),
    )
    notes: list[str] = []
    steps: list[str] = []
    for collection, indexes in wanted:
        missing = await _missing(collection, indexes)
        steps += [f"create the index {name} of {collection.name}" for name in missing]
        steps.append(f"compact {collection.name}")
        if apply and missing:
            await collection.create_indexes(indexes)
        if apply:
            try:
                await database.command("compact", collection.name)
            except OperationFailure as error:
                notes.append(f"compact of {collection.name} was refused: {error.code}")
    size = await _size(database, [collection.name for collection, _ in wanted])
    notes.append(
        "on a replica set compact works on the member that is asked, the primary; what "
        "was erased stays in the oplog until that has gone round"
    )
    return Upkeep(size, steps, notes)


async def _missing(collection: Any, indexes: Sequence[Any]) -> list[str]:
    there = await collection.index_information()
    return [i.document["name"] for i in indexes if i.document["name"] not in there]


async def _size(database: Any, names: Sequence[str]) -> int | None:
    size = 0
    for name in names:
        try:
            said = await database.command("collStats", name)
        except OperationFailure:
            return None
        size += int(said.get("storageSize", 0)) + int(said.get("totalIndexSize", 0))
    return size
