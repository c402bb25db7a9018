"""Reading without a script: the header and the rows in one transaction.

A script takes 60 us for a conversation of ten events and this takes 35: Lua makes a
string of its own of each value, and Redis takes it apart again. The server is told
where to begin before anybody knows where the session starts. So the last rows are asked
for, and the rest, if there is any, comes with a second round trip.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from redis.exceptions import NoPermissionError

from tracker_store_async.backends.redis.kept import encoded
from tracker_store_async.backends.redis.rows import (
    conversation_of_rasa,
    decode_conversation,
)
from tracker_store_async.backends.redis.scripts import READ
from tracker_store_async.rasa_rows import slice_of

if TYPE_CHECKING:
    from tracker_store_async.backends.redis.client import Commands
    from tracker_store_async.backends.redis.keys import ConversationKeys, Keys
    from tracker_store_async.rows import Read, StoredConversation

LAST_ROWS = 128
"""Rows that are asked for where nothing is known of a session: most have fewer."""

MOST_LAST_ROWS = 500
"""Most rows that are asked for at once where `last` bounds them."""

ROWS_TO_GROW = 16
"""Rows that others may have appended since the length of a session was known."""

LONG_ROWS = 200
"""Rows from which an answer counts as long."""

MOST_LENGTHS = 10_000
"""Conversations of which the length of the latest session is remembered."""

HEAD_FIELDS = (
    *("version", "first", "session_start", "created_at", "updated_at", "expires_at"),
    *("user_id", "snapshot"),
)

ANSWERS = 6
"""How many there are to what `Question.command` sends: the last one tells it all."""


ROWS_BY_SCRIPT = 500
"""Most rows that the script for reading returns itself: then a second round trip takes
less time than the script takes longer."""

ALL_ROWS = 2**52
"""More than there can be."""

NOTHING: Any = object()
"""Answer of a read where nothing is stored."""


class Reader:
    """Reads conversations.

    Args:
        commands: The open connection.
        keys: The names of the keys.

    Attributes:
        lengths: How long the latest sessions were.
    """

    def __init__(self, commands: Commands, keys: Keys) -> None:
        self._commands, self._keys = commands, keys
        self._has_transactions = commands.keeps_connections
        self.lengths = Lengths()

    async def read(self, read: Read) -> StoredConversation | None:
        """Return header and rows as of one moment, or None.

        One round trip; two for the first read of a session of more than `LAST_ROWS`
        rows, and by the script of more than `ROWS_BY_SCRIPT`, but for a cluster.
        """
        answer = None
        if self._has_transactions:
            answer = await self._read_by_transaction(read)
            if answer is NOTHING:
                return None
        if answer is None:
            answer = await self._read_by_script(read)
        if answer is None:
            return None
        if len(answer) == 3:
            return decode_conversation(read, answer)
        value, remaining = answer
        found = conversation_of_rasa(read.sender_id, value, remaining, read.now)
        return None if found is None else slice_of(found, read)

    async def _read_by_transaction(self, read: Read) -> Any:
        """Return what the script `READ` does; `NOTHING`, or None to ask the script."""
        keys = self._keys.of(read.sender_id)
        question = question_of(read, keys, self.lengths[read.sender_id])
        answers = await self._commands.ask(
            question.command, ANSWERS, is_long=question.is_long
        )
        found = answers[-1]
        if type(found) is not list or any(isinstance(e, Exception) for e in found):
            # As where a user may run scripts, but no transactions.
            refused = any(isinstance(each, NoPermissionError) for each in answers)
            self._has_transactions = not refused
            return None
        head, length, rows, is_rasa = found
        if head[0] is None:
            return None if is_rasa else NOTHING
        if is_expired(head, read.now):
            return NOTHING
        version, first = int(head[0]), int(head[1])
        if length != version - first:
            return None  # somebody has removed rows: the script says so, too
        self.lengths[read.sender_id] = version - int(head[2])
        wanted = wanted_of(read, version, first, int(head[2]))
        begin = question.begin
        at = version - len(rows) if begin < 0 else first + begin
        if not wanted:
            return [head, wanted.start, []]
        if at <= wanted.start and wanted.stop <= at + len(rows):
            begin = wanted.start - at
            if begin or len(rows) > len(wanted):
                rows = rows[begin : begin + len(wanted)]
            return [head, wanted.start, rows]
        if wanted.start < at < wanted.stop == at + len(rows):
            earlier = [head, wanted.start, at - wanted.start]
            answer = await self._with_rows(read, earlier)
            return None if answer is None else [*answer[:2], [*answer[2], *rows]]
        return await self._with_rows(read, [head, wanted.start, len(wanted)])

    async def _read_by_script(self, read: Read) -> Any:
        most = ALL_ROWS if self._commands.is_cluster else ROWS_BY_SCRIPT
        answer = await self._read(read, most)
        if answer and type(answer[-1]) is int and len(answer) == 3:
            answer = await self._with_rows(read, answer)
            if answer is None:
                answer = await self._read(read, ALL_ROWS)
        return answer

    async def _read(self, read: Read, most_rows: int) -> Any:
        return await self._commands.run(
            READ,
            self._keys.of(read.sender_id),
            repr(read.now),
            "" if read.start is None else read.start,
            "" if read.last is None else read.last,
            "" if read.limit is None else read.limit,
            most_rows,
        )

    async def _with_rows(self, read: Read, answer: list[Any]) -> list[Any] | None:
        """Fetch the rows that an answer tells of; None if it is another log by now.

        What stands at a position never changes, but for a rewrite or a log that begins
        anew: both have another `created_at`. If the log was cut, its first position is
        another one. So a look at the header after the rows proves them.
        """
        head, first, count = answer
        keys = self._keys.of(read.sender_id)
        begin = first - int(head[1])
        rows, after = await self._commands.send_all(
            [
                ("LRANGE", keys.rows, begin, begin + count - 1),
                ("HMGET", keys.head, "first", "created_at"),
            ],
            is_long=count >= LONG_ROWS,
        )
        is_same = after == [head[1], head[3]] and len(rows) == count
        return [head, first, rows] if is_same else None


class Question(NamedTuple):
    """What is asked of the server.

    Attributes:
        command: The bytes to send.
        begin: Place in the list of the first row that is asked for; negative from the
            end.
        is_long: Whether `LONG_ROWS` rows or more are expected.
    """

    command: bytes
    begin: int
    is_long: bool


class Lengths:
    """How long the latest sessions were, to ask for as many rows as there are.

    One that is wrong, or forgotten, costs a round trip or some rows in vain.
    """

    def __init__(self) -> None:
        self._known: dict[str, int] = {}

    def __getitem__(self, sender_id: str) -> int:
        """Return how many rows the latest session of a conversation may have."""
        return self._known.get(sender_id, LAST_ROWS - ROWS_TO_GROW) + ROWS_TO_GROW

    def __setitem__(self, sender_id: str, length: int) -> None:
        if len(self._known) >= MOST_LENGTHS:
            self._known.clear()
        self._known[sender_id] = length


def question_of(read: Read, keys: ConversationKeys, length: int) -> Question:
    """Return what to ask for a read.

    Args:
        read: The read.
        keys: The keys of the conversation.
        length: How many rows its latest session may have.
    """
    end = -1
    if read.start is not None and read.last is None:
        begin = read.start  # nearly no log has had its beginning cut off
        if read.limit is not None:
            end = begin + read.limit - 1
    elif read.last is not None:
        begin = -min(read.last, MOST_LAST_ROWS)
    else:
        begin = -length
    if not begin and read.last is not None:
        begin, end = 1, 0  # no row at all
    head, rows, rasa = (b"$%d\r\n%b\r\n" % (len(key), key) for key in keys)
    command = b"".join(
        (
            *(_MULTI, _HMGET, head, _HEAD_FIELDS, _LLEN, rows),
            *(_LRANGE, rows, encoded_words(begin, end), _EXISTS, rasa, _EXEC),
        )
    )
    # from a later position on it is a page, or the few that are new
    expected = (read.limit or 0) if read.start else length
    if read.last is not None:
        expected = min(expected, read.last)
    return Question(command, begin, expected >= LONG_ROWS)


def wanted_of(read: Read, version: int, first: int, session_start: int) -> range:
    """Return the positions of the rows that a read asks for."""
    start = session_start if read.start is None else read.start
    if read.last is not None:
        start = max(start, version - read.last)
    start = min(max(start, first), version)
    end = version if read.limit is None else min(version, start + read.limit)
    return range(start, end)


def encoded_words(*numbers: int) -> bytes:
    """Return numbers as the words of a command."""
    return b"".join(b"$%d\r\n%d\r\n" % (len(b"%d" % each), each) for each in numbers)


def is_expired(head: list[Any], now: float) -> bool:
    """Whether a header says that the conversation had expired by then."""
    expires_at = head[5]
    return bool(expires_at) and float(expires_at) <= now


def _start_of(word: bytes, count: int) -> bytes:
    return b"*%d\r\n$%d\r\n%b\r\n" % (count, len(word), word)


_MULTI = encoded(("MULTI",))
_EXEC = encoded(("EXEC",))
_HMGET = _start_of(b"HMGET", 2 + len(HEAD_FIELDS))
_HEAD_FIELDS = encoded(HEAD_FIELDS).partition(b"\r\n")[2]
_LLEN = _start_of(b"LLEN", 2)
_LRANGE = _start_of(b"LRANGE", 4)
_EXISTS = _start_of(b"EXISTS", 2)
