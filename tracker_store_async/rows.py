"""What a backend sees: encoded rows and the requests to append, read and list them.

Backends know nothing of trackers, events or brokers. The store hands them one of these
requests and gets one of these answers; all times are seconds since the epoch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

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


@dataclass(frozen=True, slots=True)
class Append:
    """All or nothing: store `rows` if the stored version is `expected_version`.

    A conversation that does not exist, or has expired by `now`, has version 0. One that
    was deleted and begun again is another log, told by `created_at`: the append is
    refused there whatever its version is.
    """

    sender_id: str
    expected_version: int
    rows: Sequence[NewRow]
    session_start: int  # position where the latest session starts after this append
    snapshot: str = field(repr=False)  # JSON text: the state after this append
    now: float
    expires_at: float | None = None
    user_id: str | None = None  # None leaves what is stored
    created_at: float | None = None  # when the log began; None does not ask

    @property
    def new_version(self) -> int:
        """Number of events stored once the append has landed."""
        return self.expected_version + len(self.rows)


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


@dataclass(frozen=True, slots=True)
class Read:
    """Read events from `start` on, at most the last `last` of them.

    `start` None means the start of the latest session, 0 the beginning. `last=0` asks
    for the header alone. A conversation that has expired by `now` does not exist.
    """

    sender_id: str
    now: float
    start: int | None = None
    last: int | None = None


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
