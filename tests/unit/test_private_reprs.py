"""What may end up in a log by its repr does not show the text of a message."""

from __future__ import annotations

import pytest

from tracker_store_async.broker import EventMessage
from tracker_store_async.rows import Append, NewRow, StoredConversation
from tracker_store_async.state import TrackerActiveLoop

TEXT = "my card is 4111"
ROW = NewRow("id-1", TEXT, "user", 1.0, None, None)


@pytest.mark.parametrize(
    "value",
    [
        ROW,
        Append("x", 0, [ROW], 0, TEXT, 1.0),
        StoredConversation(1, 0, TEXT, 1.0, 1.0, rows=[("id-1", TEXT)]),
        EventMessage("id-1", "x", 0, {"text": TEXT}),
        TrackerActiveLoop("form", False, False, {"text": TEXT}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_text_is_not_shown(value: object) -> None:
    assert TEXT not in repr(value)
    assert type(value).__name__ in repr(value)
