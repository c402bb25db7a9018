"""What a backend sees: encoded rows and the requests to append, read and list them.

Backends know nothing of trackers, events or brokers. The store hands them one of these
requests and gets one of these answers; all times are seconds since the epoch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, overload

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

MAX_SENDER_ID_LENGTH = 255
"""Longest sender id in characters: the width of the column in Rasa's SQL layout."""


class NewRow(NamedTuple):
    """One encoded event on its way into storage.

    Everything but `event_id` and `data` is derived from `data`, for backends that keep
    columns of their own for it, and may be left out by those that do not.
    """

    event_id: str
    data: str  # JSON text without raw NUL and encodable as UTF-8
    type_name: str
    timestamp: float | None
    intent_name: str | None
    action_name: str | None

    def __repr__(self) -> str:
        """Show what it is; the data may be the text of a message."""
        return f"<{type(self).__name__}({self.event_id!r}, {self.type_name!r})>"


StoredRow: TypeAlias = "tuple[str | None, str | bytes]"
"""One stored event: its id (None where Rasa wrote the row) and its JSON text."""


class OutboxEntry(NamedTuple):
    """One message that is to be published once it is stored."""

    message_id: str
    position: int
    body: str  # JSON text

    def __repr__(self) -> str:
        """Show what it is; the body may be the text of a message."""
        return f"<{type(self).__name__}({self.message_id!r}, {self.position})>"


class OutboxItem(NamedTuple):
    """One message that waits in an outbox, as a relay reads it.

    Attributes:
        key: What the backend finds it by.
        sender_id: The conversation.
        entry: The message. Its body may be the stored event, without `sender_id`.
        user_id: The user whom the conversation belongs to, where the body has none.
        place: Where it stands in the order that everything is read in.
    """

    key: Any
    sender_id: str
    entry: OutboxEntry
    user_id: str | None = None
    place: Any = None


class RawRows(Sequence["StoredRow"]):
    """Rows as a driver gave them: only what is asked for is taken out of them.

    Args:
        raw: What the driver gave for each row.
        row_of: Returns the id and the JSON text of one of them.
        text_of: Returns the JSON text alone.
    """

    __slots__ = ("_raw", "_row_of", "_text_of")

    def __init__(
        self,
        raw: Sequence[Any],
        row_of: Callable[[Any], StoredRow],
        text_of: Callable[[Any], str | bytes],
    ) -> None:
        self._raw, self._row_of, self._text_of = raw, row_of, text_of

    def __len__(self) -> int:
        return len(self._raw)

    @overload
    def __getitem__(self, key: int) -> StoredRow: ...
    @overload
    def __getitem__(self, key: slice) -> RawRows: ...
    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, slice):
            return RawRows(self._raw[key], self._row_of, self._text_of)
        return self._row_of(self._raw[key])

    def __iter__(self) -> Iterator[StoredRow]:
        return map(self._row_of, self._raw)

    def __eq__(self, other: object) -> bool:
        """Compare with any sequence of rows."""
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def texts(self) -> Iterable[str | bytes]:
        """Return the JSON text of each row."""
        return map(self._text_of, self._raw)


class BytesRows(RawRows):
    """Such rows whose texts are bytes, all of which can be taken out at once.

    Args:
        raw: What the driver gave for each row.
        row_of: Returns the id and the JSON text of one of them.
        texts_of: Returns the JSON texts of all of them.
    """

    __slots__ = ("_texts_of",)

    def __init__(
        self,
        raw: Sequence[Any],
        row_of: Callable[[Any], StoredRow],
        texts_of: Callable[[Sequence[Any]], list[bytes]],
    ) -> None:
        super().__init__(raw, row_of, lambda row: texts_of([row])[0])
        self._texts_of = texts_of

    def __getitem__(self, key: Any) -> Any:
        """Return one row, or some of them in the same way."""
        if isinstance(key, slice):
            return BytesRows(self._raw[key], self._row_of, self._texts_of)
        return super().__getitem__(key)

    def texts(self) -> list[bytes]:
        """Return the JSON text of each row."""
        return self._texts_of(self._raw)

    def texts_in_place(self) -> TextsInPlace:
        """Return the same, each taken out of its row when somebody asks for it."""
        return TextsInPlace(self._raw, self._texts_of)


class TextsInPlace(Sequence[bytes]):
    """The texts of rows that keep what a backend has put beside them.

    To take a long history apart is a quarter of a load, and nearly all of it is never
    looked at.

    Args:
        raw: What the driver gave for each row.
        texts_of: Returns the JSON texts of some of them.
    """

    __slots__ = ("_raw", "_texts_of")

    def __init__(
        self, raw: Sequence[Any], texts_of: Callable[[Sequence[Any]], list[bytes]]
    ) -> None:
        self._raw, self._texts_of = raw, texts_of

    def __len__(self) -> int:
        return len(self._raw)

    @overload
    def __getitem__(self, key: int) -> bytes: ...
    @overload
    def __getitem__(self, key: slice) -> list[bytes]: ...
    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, slice):
            return self._texts_of(self._raw[key])
        return self._texts_of((self._raw[key],))[0]

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._texts_of(self._raw))


@dataclass(frozen=True, slots=True)
class Origin:
    """What a copied log keeps of the one that it is copied from.

    Attributes:
        created_at: When that log began.
        updated_at: Time of its latest append, with the rows that are copied.
        first_position: Where a log begins whose beginning was erased.
    """

    created_at: float
    updated_at: float
    first_position: int = 0


@dataclass(slots=True)  # frozen, it would take four times as long to make
class Append:
    """All or nothing: store `rows` if the stored version is `expected_version`.

    A conversation that does not exist, or has expired by `now`, has version 0. One that
    was deleted and begun again is another log, told by `created_at`: the append is
    refused there whatever its version is.

    An append with an `origin` is part of a copy: its times are those of the log that is
    copied, its rows may have no ids, and it may have no rows (then it changes the
    header alone).
    """

    sender_id: str
    expected_version: int
    rows: Sequence[NewRow]
    session_start: int  # position where the latest session starts after this append
    # JSON text: the state after this append; None only in a copy
    snapshot: str | None = field(repr=False)
    now: float
    expires_at: float | None = None
    user_id: str | None = None  # None leaves what is stored
    created_at: float | None = None  # when the log began; None does not ask
    # for a backend that has an outbox: to be stored in the same transaction
    outbox: Sequence[OutboxEntry] = ()
    origin: Origin | None = None  # given where a log is copied

    @property
    def position(self) -> int:
        """Position of the first row."""
        if self.origin is not None and not self.expected_version:
            return self.origin.first_position
        return self.expected_version

    @property
    def new_version(self) -> int:
        """Number of events stored once the append has landed."""
        return self.position + len(self.rows)

    @property
    def begun_at(self) -> float:
        """When a log began that begins with this append."""
        return self.now if self.origin is None else self.origin.created_at

    @property
    def stamp(self) -> float:
        """The time to be stored as that of the latest append."""
        return self.now if self.origin is None else self.origin.updated_at


@dataclass(frozen=True, slots=True)
class Rewrite:
    """All or nothing: put other content in the place of what is stored.

    It is refused unless the log is the one that began at `created_at` and holds exactly
    the events from `first_position` up to `expected_version`. Positions, ids, session,
    time of the latest append and expiry stay as they are.

    The log gets another `created_at`, later by the smallest step that every backend
    tells apart. So whoever has loaded the conversation before, and could store the old
    state again with its next save, is told that it is another log and loads it anew.

    `changed` are the positions of the rows that differ from what is stored. Where it is
    empty nothing is written, but what an earlier rewrite that was cut short has left
    behind is removed.
    """

    sender_id: str
    expected_version: int
    first_position: int
    created_at: float
    rows: Sequence[NewRow] = field(repr=False)  # all of them, without a gap
    changed: frozenset[int]
    snapshot: str = field(repr=False)  # JSON text: the state after the last row
    user_id: str | None = field(repr=False)  # in place of what is stored
    now: float

    @property
    def new_created_at(self) -> float:
        """When the log begins from now on."""
        return max(self.created_at + 1e-6, math.nextafter(self.created_at, math.inf))

    @property
    def changed_rows(self) -> Sequence[tuple[int, NewRow]]:
        """Positions and rows of what differs."""
        found = enumerate(self.rows, self.first_position)
        return [(position, row) for position, row in found if position in self.changed]


@dataclass(slots=True)  # frozen, it would take four times as long to make
class Read:
    """Read events from `start` on, at most the last `last` of them.

    `start` None means the start of the latest session, 0 the beginning. `last=0` asks
    for the header alone. A conversation that has expired by `now` does not exist.

    `limit` asks for at most the first `limit` events, to read a log page by page; it
    goes with a `start` and without `last`. The header is that of the whole log.

    `columns` lets a backend that keeps the columns of a :class:`NewRow` answer with
    such rows, so that who copies them does not derive them again. Without `ids` nobody
    looks at the ids of the rows: a backend may leave them out, as None.
    """

    sender_id: str
    now: float
    start: int | None = None
    last: int | None = None
    limit: int | None = None
    columns: bool = False
    ids: bool = True


@dataclass(slots=True)
class StoredConversation:
    """The answer to a :class:`Read`: the header and a gapless run of rows.

    `rows[i]` is the event at position `first_position + i`. With no rows,
    `first_position` is `version`.
    """

    version: int
    session_start: int
    # None where Rasa wrote the conversation
    snapshot: str | bytes | None = field(repr=False)
    created_at: float
    updated_at: float
    expires_at: float | None = None
    user_id: str | None = None
    first_position: int = 0
    rows: Sequence[StoredRow] = field(default=(), repr=False)

    def with_rows(
        self, first_position: int, rows: Sequence[StoredRow]
    ) -> StoredConversation:
        """Return the same header with other rows."""
        return StoredConversation(
            self.version,
            self.session_start,
            self.snapshot,
            self.created_at,
            self.updated_at,
            self.expires_at,
            self.user_id,
            first_position,
            rows,
        )


@dataclass(frozen=True, slots=True)
class Listing:
    """Ask for one page of conversations, ordered by the backend's own stable key.

    `after` is the `cursor` of the last summary already seen, or None to begin. Times
    bound `updated_at`: `updated_from` is included, `updated_before` is not.
    """

    now: float
    limit: int
    after: str | None = None
    user_id: str | None = None
    updated_from: float | None = None
    updated_before: float | None = None


@dataclass(frozen=True, slots=True)
class ConversationSummary:
    """One conversation as `conversations()` lists it.

    Attributes:
        sender_id: The conversation.
        version: Number of events stored so far.
        created_at: Time of its first append, in seconds since the epoch.
        updated_at: Time of its latest append, in seconds since the epoch.
        user_id: The user it belongs to, or None.
        cursor: Pass it to `conversations(cursor=...)` to go on after this one.
    """

    sender_id: str
    version: int
    created_at: float
    updated_at: float
    user_id: str | None
    cursor: str


@dataclass(frozen=True, slots=True)
class Upkeep:
    """What a storage takes, and what can be done, or was done, to make it take less.

    Attributes:
        size_bytes: What the conversations take with their indexes, as the storage
            itself counts it; None where it does not say.
        steps: What an optimisation does, in words, in order.
        notes: What its owner ought to know.
    """

    size_bytes: int | None = None
    steps: Sequence[str] = ()
    notes: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Health:
    """The answer of `health()`.

    Attributes:
        backend: Name of the backend, such as `postgresql`.
        reachable: Whether it answered.
        latency_seconds: How long the answer took.
        server_version: What the server says of itself.
        schema_version: Version of the stored layout, or None where nothing is stored.
        error: One line saying why it is not reachable, or None.
        details: More that is specific to the backend, such as its pool's use.
    """

    backend: str
    reachable: bool
    latency_seconds: float
    server_version: str | None = None
    schema_version: int | None = None
    error: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
