"""Whether the state beside some rows is the one that applying the rows would give.

A state is taken from a tracker in memory, and the rows are what was stored of it. The
two differ where a caller has changed a message in place after it was saved, or has made
it of what is not stored. The state holds copies of a few events: of the latest message,
of the latest thing the bot said, and of the message that started a loop. So these are
compared with their rows. Where anything is in doubt, the rows are applied.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic_core import from_json

from tracker_store_async.events import UserUttered, decode_event
from tracker_store_async.events.base import EVENT_CLASSES
from tracker_store_async.message_changes import listens_after
from tracker_store_async.row_types import (
    has_type,
    kind_of_name,
    kind_of_row,
    needs_replay,
    types_with_own_state,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tracker_store_async.applied import Kind

    Row = str | bytes
    Rows = Sequence[Row]


def tells_everything(
    state: Mapping[str, Any],
    rows: Rows,
    *,
    begins_earlier: bool = False,
    text: Row | None = None,
) -> bool:
    """Whether the state is that of a tracker which applied all rows that were read.

    Args:
        state: The state.
        rows: The rows, from where the state began or earlier.
        begins_earlier: Whether it is earlier.
        text: The JSON text that the state was decoded from, if it is at hand.
    """
    if begins_earlier and needs_replay(rows):
        return False  # a revert reaches into an earlier session
    own = types_with_own_state()
    if own and any(has_type(data, own) for data in rows):
        return False
    try:
        return _has_message(state["latest_message"], rows, text) and (
            _has_said(state["latest_bot_utterance"], rows, text)
            and _has_trigger(state["active_loop"], rows)
        )
    except (ValueError, LookupError, TypeError):
        return False  # a row, or a state, of another shape


def _has_message(
    message: Mapping[str, Any] | None, rows: Rows, state: Row | None
) -> bool:
    if message is None:
        # The state does not say which message it is that says nothing.
        return not any(kind_of_row(data) in ("user", None) for data in rows)
    fields = message["event"]
    parse_data = fields["parse_data"]
    # What events add to its entities counts as understood once it is loaded.
    if message.get("entities", parse_data["entities"]) != parse_data["entities"]:
        return False
    said, intent = fields.get("text"), parse_data["intent"] or {}
    if type(intent) is not dict or type(parse_data["entities"] or []) is not list:
        return False  # loaded, it is no message
    place = _last(rows, "user")
    if place is None or not (
        _is_copied(_MESSAGE, rows[place], state) or _is_stored(fields, rows[place])
    ):
        return False
    has_text, has_intent = bool(said), bool(intent.get("name"))
    decided = _decided(rows, place, has_text if has_text != has_intent else None)
    return bool(message["use_text_for_featurization"] is decided)


def _is_copied(key: str, row: Row, state: Row | None) -> bool:
    """Whether the text of a state has the text of a row at a place, as a save puts it.

    In a tenth of the time that it takes to decode the row.
    """
    if isinstance(state, str) and isinstance(row, str):
        return state.startswith(row, state.rfind(key) + len(key))
    if isinstance(state, bytes) and isinstance(row, bytes):
        return state.startswith(row, state.rfind(key.encode()) + len(key))
    return False


_MESSAGE = ',"latest_message":{"event":'
_SAID = ',"latest_bot_utterance":'


def _is_stored(fields: Mapping[str, Any], row: Row) -> bool:
    """Whether these are the fields of the event in a row."""
    try:
        if from_json(row) == fields:
            return True
    except ValueError:
        pass  # what only Python's own parser reads
    return decode_event(row).shared_dict() == fields


def _decided(rows: Rows, place: int, otherwise: bool | None) -> bool | None:
    """Return what the rows after a message have decided of its featurisation.

    It is said of the message if the bot waits for the next one.
    """
    last = _last(rows, "featurisation", begin=place)
    if last is None:
        return otherwise
    decided, listens = otherwise, _listens_before(rows, place)
    for row in rows[place + 1 : last + 1]:
        if _is(row, "action"):
            listens = _listens(row)
        elif _is(row, "featurisation") and listens:
            event: Any = decode_event(row)
            decided = event.use_text_for_featurization
    return decided


def _listens_before(rows: Rows, place: int) -> bool:
    place_of_action = _last(rows, "action", place)
    if place_of_action is None:
        return False
    if any(_is(row, "restart", "session") for row in rows[place_of_action:place]):
        return False
    return _listens(rows[place_of_action])


def _listens(row: Row) -> bool:
    return has_type(row, ("action_listen",)) and listens_after(decode_event(row))


def _has_said(said: Mapping[str, Any] | None, rows: Rows, state: Row | None) -> bool:
    if said is None:
        return True
    place = _last_with(rows, _BOT, 0, len(rows))
    return place is not None and (
        _is_copied(_SAID, rows[place], state) or _is_stored(said, rows[place])
    )


def _has_trigger(loop: Mapping[str, Any] | None, rows: Rows) -> bool:
    """Whether an active loop was started by the message that the state says."""
    if loop is None or "triggered_by_latest_message" in loop:
        return True
    place = _last(rows, "loop")
    if place is None:
        return False
    event: Any = decode_event(rows[place])
    if event.name != loop["name"]:
        return False
    trigger = _last(rows, "user", place)
    if trigger is None:
        return bool(loop["trigger_message"] == UserUttered.empty().parse_data)
    rest = rows[trigger + 1 :]
    until = next((n for n, row in enumerate(rest) if _is(row, "user")), len(rest))
    if any(_is(row, "entities") for row in rest[:until]):
        return False  # they may have been added to what the loop holds
    if any(_is(row, "restart", "session") for row in rest):
        return False
    message: Any = decode_event(rows[trigger])
    return bool(message.parse_data == loop["trigger_message"])


# -- the first characters of rows ------------------------------------------------------

_heads: dict[tuple[Kind, ...], tuple[tuple[str, ...], tuple[bytes, ...]]] = {}
_known_types = 0


def _is(row: Row, *kinds: Kind) -> bool:
    """Whether a row begins as Rasa, or this library, writes rows of these kinds."""
    texts, encoded = _heads_of(kinds)
    if isinstance(row, str):
        return row.startswith(texts)
    return row.startswith(encoded)


def _last(rows: Rows, kind: Kind, end: int | None = None, begin: int = 0) -> int | None:
    """Return the place of the last row of a kind between two places, or None."""
    return _last_with(
        rows, _heads_of((kind,)), begin, len(rows) if end is None else end
    )


def _last_with(
    rows: Rows, heads: tuple[tuple[str, ...], tuple[bytes, ...]], begin: int, end: int
) -> int | None:
    texts, encoded = heads
    for place in range(end - 1, begin - 1, -1):
        row = rows[place]
        if row.startswith(texts) if isinstance(row, str) else row.startswith(encoded):
            return place
    return None


def _heads_of(kinds: tuple[Kind, ...]) -> tuple[tuple[str, ...], tuple[bytes, ...]]:
    global _known_types
    if len(EVENT_CLASSES) != _known_types:
        _heads.clear()
        _known_types = len(EVENT_CLASSES)
    if kinds not in _heads:
        names = tuple(name for name in EVENT_CLASSES if kind_of_name(name) in kinds)
        _heads[kinds] = _heads_for(names)
    return _heads[kinds]


def _heads_for(
    names: tuple[str, ...],
) -> tuple[tuple[str, ...], tuple[bytes, ...]]:
    texts = tuple(f'{{"event":{space}"{name}"' for name in names for space in ("", " "))
    return texts, tuple(text.encode() for text in texts)


_BOT = _heads_for(("bot",))
