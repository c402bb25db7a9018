"""What lies in MongoDB: names, documents, sizes and indexes.

`<collection>_log` holds one document a conversation, its *header*, under the sender id.
In it are the newest rows, the *tail*. What no longer fits there lies in *buckets*, in
`<collection>_events`: documents that are written once. Rasa's own `<collection>` is
only read, unless told otherwise: its documents have an `_id` and fields that Rasa's
code expects on everything in there.

::

    <collection>_log     {_id: sender_id, layout, log, version, first_position,
                          session_start, snapshot, created_at, updated_at, expires_at,
                          user_id, tail_first, tail_bytes, tail: [{id, data}, ...],
                          runs, buckets_until, ttl, hidden, pending, outbox}
                         {_id: {rasa: sender_id}}   taken over from Rasa's document
                         {_id: {layout: 1}, ...}    the version of all this
    <collection>_events  {_id: "<log>:<first>", log, first, end, rows, ttl}

An append is one update of the header, conditional on its version: a standalone server
does that atomically. A bucket is visible only through the header.
"""

from __future__ import annotations

import math
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pymongo import IndexModel

    from tracker_store_async.rows import Append, StoredRow

Document: TypeAlias = dict[str, Any]

LAYOUT_VERSION = 1
LAYOUT_ID = {"layout": 1}
"""`_id` of the document that holds the layout's version; its 1 is only a name."""

TAIL_BYTES = 64 * 1024
"""Size from which a tail takes no more rows: the next append starts a new one."""

INLINE_BYTES = 512 * 1024
"""Largest append that goes into the tail; a larger one is written as buckets."""

BUCKET_BYTES = 512 * 1024
"""Size up to which the rows of a large append share a bucket."""

DOCUMENT_BYTES = 16 * 1024 * 1024
"""The largest document that MongoDB stores."""

MAX_ROW_BYTES = DOCUMENT_BYTES - 64 * 1024
"""Largest row: alone in a bucket, beside the fields of the bucket."""

MAX_SNAPSHOT_BYTES = DOCUMENT_BYTES - 2 * 1024 * 1024
"""Largest state: the header holds it beside a tail and a large append."""

ROW_OVERHEAD_BYTES = 48
"""What BSON needs for a row beside its texts."""

OUTBOX_MARK = "outbox"
OUTBOX_SINCE = f"{OUTBOX_MARK}.since"
"""The mark of a header with events that are not published yet; see `outbox.py`."""

STAGED_SECONDS = 24 * 3600.0
"""Age at which a placeholder that was never filled is removed."""

_LONGEST_TTL_SECONDS = 100 * 365 * 86400.0


@dataclass(frozen=True, slots=True)
class Collections:
    """The three collections, with the concerns that they are used with."""

    log: Any
    events: Any
    rasa: Any


@dataclass(frozen=True, slots=True)
class Bucket:
    """Rows that go into one document.

    Attributes:
        token: Names the append that wrote it, for one of several rivals; None where
            whoever writes it writes the same.
    """

    first: int
    rows: Sequence[Document]
    token: str | None = None

    def key(self, log: str) -> str:
        """Return its `_id`."""
        key = f"{log}:{self.first}"
        return key if self.token is None else f"{key}:{self.token}"

    def content(self) -> Document:
        """Return the fields that make a placeholder a bucket."""
        return {"end": self.first + len(self.rows), "rows": list(self.rows)}


def header_indexes() -> list[IndexModel]:
    """Return the indexes of `<collection>_log`."""
    from pymongo import IndexModel

    return [
        IndexModel(
            [("user_id", 1), ("_id", 1)],
            partialFilterExpression={"user_id": {"$exists": True}},
        ),
        IndexModel([("updated_at", 1), ("_id", 1)]),
        IndexModel([("ttl", 1)], expireAfterSeconds=0),
    ]


def bucket_indexes() -> list[IndexModel]:
    """Return the indexes of `<collection>_events`."""
    from pymongo import IndexModel

    return [
        IndexModel([("log", 1), ("end", 1)]),
        IndexModel([("ttl", 1)], expireAfterSeconds=0),
    ]


def outbox_indexes() -> list[IndexModel]:
    """Return the index of `<collection>_log` that an outbox needs."""
    from pymongo import IndexModel

    return [IndexModel([(OUTBOX_SINCE, 1)], sparse=True)]


def new_log() -> str:
    """Return a name for a log: it tells one from its successor of the same sender."""
    return uuid.uuid4().hex


# -- rows --------------------------------------------------------------------------


def row_documents(rows: Iterable[StoredRow]) -> list[Document]:
    """Return rows as they are stored: JSON text stays text, so it comes back exact."""
    return [
        {"data": data} if event_id is None else {"id": event_id, "data": data}
        for event_id, data in rows
    ]


def new_rows(append: Append) -> list[Document]:
    """Return the rows that an append adds."""
    return row_documents((row.event_id, row.data) for row in append.rows)


def stored_rows(documents: Iterable[Document]) -> list[StoredRow]:
    """Return rows as the store wants them."""
    return [(row.get("id"), row["data"]) for row in documents]


def row_bytes(row: Document) -> int:
    """Return about how much of a document a row takes."""
    return text_bytes(row["data"]) + text_bytes(row.get("id", "")) + ROW_OVERHEAD_BYTES


def text_bytes(text: str) -> int:
    """Return the size of a text in UTF-8."""
    return len(text) if text.isascii() else len(text.encode(errors="replace"))


def packed(first: int, rows: Sequence[Document], token: str) -> list[Bucket]:
    """Return buckets for the rows of a large append, each as full as it should be."""
    buckets: list[Bucket] = []
    at = 0
    while at < len(rows):
        end, size = at + 1, row_bytes(rows[at])
        while end < len(rows) and (size := size + row_bytes(rows[end])) <= BUCKET_BYTES:
            end += 1
        buckets.append(Bucket(first + at, rows[at:end], token))
        at = end
    return buckets


# -- headers -------------------------------------------------------------------------


def same_header(header: Document) -> Document:
    """Return the filter that finds a header as it was read, and no later one."""
    fields = ("_id", "log", "version", "tail_first", "pending")
    return {name: header.get(name) for name in fields}


def alive(now: float) -> Document:
    """Return the filter that leaves out what has expired."""
    return {"$or": [{"expires_at": None}, {"expires_at": {"$gt": now}}]}


def is_expired(header: Document, now: float) -> bool:
    """Whether a conversation has expired."""
    expires_at = header.get("expires_at")
    return expires_at is not None and expires_at <= now


def append_values(append: Append) -> Document:
    """Return what every append writes to the header."""
    values: Document = {
        "version": append.new_version,
        "session_start": append.session_start,
        "snapshot": append.snapshot,
        "updated_at": float(append.stamp),
        "expires_at": None if append.expires_at is None else float(append.expires_at),
    }
    if append.user_id is not None:
        values["user_id"] = append.user_id
    return values


def begun_values(append: Append, log: str) -> Document:
    """Return what the first append writes to the header besides its rows."""
    return append_values(append) | {
        "layout": LAYOUT_VERSION,
        "log": log,
        "created_at": float(append.begun_at),
        "first_position": 0 if append.expected_version else append.position,
    }


def outbox_mark(append: Append) -> Document:
    """Return what an append writes where the header has no mark yet; maybe nothing."""
    if not append.outbox:
        return {}
    return {"from": append.outbox[0].position, "since": float(append.now)}


def with_outbox(update: Document, append: Append) -> Document:
    """Return an update that also marks the header, unless it is marked already.

    The smaller value stays: what waits already was appended earlier.
    """
    mark = outbox_mark(append)
    if not mark:
        return update
    return update | {"$min": {f"{OUTBOX_MARK}.{key}": mark[key] for key in mark}}


def tail_values(first: int, rows: Sequence[Document]) -> Document:
    """Return the fields of a tail."""
    size = sum(map(row_bytes, rows))
    return {"tail_first": first, "tail": list(rows), "tail_bytes": size}


def with_ttl(update: Document, ttl: datetime | None) -> Document:
    """Return an update that also sets, or removes, the date for MongoDB's expiry."""
    if ttl is not None:
        return update | {"$set": update.get("$set", {}) | {"ttl": ttl}}
    return update | {"$unset": update.get("$unset", {}) | {"ttl": ""}}


# -- expiry --------------------------------------------------------------------------


def longer_ttl(ttl: datetime | None) -> Document:
    """Return the update that keeps a bucket until then, or longer if it is already."""
    return {"$unset": {"ttl": ""}} if ttl is None else {"$max": {"ttl": ttl}}


def ttl_date(expires_at: float | None, now: float) -> datetime | None:
    """Return when MongoDB may remove something, or None for never.

    Args:
        expires_at: When it expires by the store's clock, or None.
        now: The store's clock.
    """
    if expires_at is None or expires_at - now > _LONGEST_TTL_SECONDS:
        return None
    return datetime.now(UTC) + timedelta(seconds=expires_at - now)


def buckets_until(append: Append) -> float:
    """Return how long buckets that are written, or refreshed, by an append are kept.

    It is one more life than the conversation has. So they outlive it as long as it
    goes on, are refreshed once in such a time and not at each save, and do not outlive
    it for good.
    """
    if append.expires_at is None:
        return math.inf
    return append.expires_at + max(append.expires_at - append.now, 1.0)


def bucket_ttl(append: Append) -> datetime | None:
    """Return the date for MongoDB's expiry of the buckets that an append writes."""
    until = buckets_until(append)
    return ttl_date(None if until == math.inf else until, append.now)


def limit_of_buckets(append: Append) -> Document:
    """Return what is left to do once a conversation without an end has got one."""
    return {
        "kind": "limit",
        "until": buckets_until(append),
        "ttl": bucket_ttl(append),
    }


def kept_long_enough(append: Append) -> Document:
    """Return the filter for headers whose buckets are kept as the append needs it."""
    if append.expires_at is None:
        return {"buckets_until": {"$in": [None, math.inf]}}
    enough = {"$gte": float(append.expires_at), "$lt": math.inf}
    return {"$or": [{"buckets_until": None}, {"buckets_until": enough}]}
