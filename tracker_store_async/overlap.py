"""Which events of a tracker built by hand are stored already."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from tracker_store_async.events import encode_event

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tracker_store_async.events import Event
    from tracker_store_async.rows import StoredConversation


def adds_entities(events: Iterable[Event]) -> bool:
    """Whether an `EntitiesAdded` is among the events.

    It adds to the entities of the message before it, in the tracker that holds both and
    so in what was made from its state. Where there is one, entities say nothing about
    whether two messages are the same.

    Args:
        events: The events that are stored, and those of the tracker.
    """
    return any(event.type_name == "entities" for event in events)


def keys_of(events: Iterable[Event], *, without_entities: bool) -> list[str]:
    """Return text for each event that is equal for the same event.

    Args:
        events: The events.
        without_entities: Whether the entities of messages do not count.
    """
    keys = []
    for event in events:
        text = encode_event(event)
        if without_entities and event.type_name == "user":
            fields = json.loads(text)
            parse_data = fields.get("parse_data")
            if isinstance(parse_data, dict):
                parse_data.pop("entities", None)
            text = json.dumps(fields)
        keys.append(sys.intern(text))  # fast to compare
    return keys


def overlap(stored: Sequence[str], own: Sequence[str]) -> tuple[int, int]:
    """Find the items of `own` that are stored, in linear time.

    They are the longest run that both have, where one of the two begins with it: `own`
    may hold more before or after it, only a part of what is stored, or may have gone
    another way in the middle.

    Args:
        stored: What is stored.
        own: What the tracker built by hand holds.

    Returns:
        How many leading items of `own` are not new, and where they end in `stored`.
    """
    in_stored, in_own = common_prefixes(own, stored), common_prefixes(stored, own)
    places = [(0, at, in_stored[at]) for at in reversed(range(len(stored)))]
    places += [(at, 0, in_own[at]) for at in range(1, len(own))]
    best, known, end = (0, False), 0, 0
    for mine, theirs, run in places:
        is_whole = run == min(len(own) - mine, len(stored) - theirs)
        if run and (run, is_whole) > best:
            best, known, end = (run, is_whole), mine + run, theirs + run
    return known, end


def common_prefixes(pattern: Sequence[str], text: Sequence[str]) -> list[int]:
    """Return for each place in `text` how long a prefix of `pattern` stands there.

    It is the Z algorithm (Gusfield, "Algorithms on Strings, Trees and Sequences", 1.4).
    """
    items: list[str | None] = [*pattern, None, *text]
    lengths = [0] * len(items)
    left = right = 0
    for at in range(1, len(items)):
        length = min(right - at, lengths[at - left]) if at < right else 0
        while at + length < len(items) and items[length] == items[at + length]:
            length += 1
        lengths[at] = length
        if at + length > right:
            left, right = at, at + length
    return lengths[len(pattern) + 1 :]


def ids_of(stored: StoredConversation | None) -> set[str | None]:
    """Return the ids of stored events: what carries one of them is a repeat of it."""
    return set() if stored is None else {event_id for event_id, _ in stored.rows}


def landed_run(
    mine: Sequence[str], stored: StoredConversation | None, start: int
) -> tuple[int, int]:
    """Return where events of one append stand in the log already, and how many.

    The answer is (0, 0) if an earlier attempt did not land. The first ones may have
    been erased since, up to a session that begins among them.

    Args:
        mine: The ids of the events, which one append has handed over.
        stored: What is stored from there on.
        start: The position that it was read from.
    """
    ids, at, erased = _first_landed(mine, stored, start)
    if stored is None or erased is None or (erased and at):
        return 0, 0
    count = erased
    for theirs, own in zip(ids[at:], mine[erased:], strict=False):
        if theirs != own:
            break
        count += 1
    return stored.first_position + at - erased, count


def landed_parts(
    mine: Sequence[str], stored: StoredConversation | None, start: int
) -> tuple[int, int]:
    """Return the same of events that several appends have handed over, in this order.

    What others wrote may stand between them.

    Args:
        mine: The ids of the events.
        stored: What is stored from there on.
        start: The position that it was read from.
    """
    ids, at, erased = _first_landed(mine, stored, start)
    if stored is None or erased is None:
        return 0, 0
    count = erased
    for theirs in ids[at:]:
        if count < len(mine) and theirs == mine[count]:
            count += 1
    return stored.first_position + at - erased, count


def _first_landed(
    mine: Sequence[str], stored: StoredConversation | None, start: int
) -> tuple[list[str | None], int, int | None]:
    """Return the stored ids, where one of mine is first, and which; None for none.

    Those before it can only have been erased where so many positions are missing. Else
    somebody has stored an event of the same id, and mine have not landed.
    """
    if stored is None:
        return [], 0, None
    ids = [event_id for event_id, _ in stored.rows]
    known = set(ids)
    first = next((n for n, event_id in enumerate(mine) if event_id in known), None)
    if first is None or first > max(0, stored.first_position - start):
        return ids, 0, None
    return ids, ids.index(mine[first]), first
