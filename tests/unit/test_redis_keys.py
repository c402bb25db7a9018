"""The keys of a conversation lie in the slot of Rasa's key and never collide."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tracker_store_async.backends.redis.keys import Keys

crc = pytest.importorskip("redis.crc", reason="the extra redis is not installed")

ids = st.text(st.sampled_from("a{}:é"), min_size=1, max_size=8)


@given(ids)
@example("{}")
@example("}")
@example("{a}{b}")
@example("{{a}}")
def test_all_lie_in_the_slot_of_rasas_key(sender_id: str) -> None:
    for prefix in (None, "p1"):
        keys = Keys(prefix).of(sender_id)
        assert len({crc.key_slot(key) for key in keys}) == 1
        assert keys.rasa.decode().endswith(f"tracker:{sender_id}")


@given(st.sets(ids, min_size=2, max_size=6))
def test_no_two_conversations_share_a_key(sender_ids: set[str]) -> None:
    keys = [key for each in sender_ids for key in Keys(None).of(each)]
    assert len(set(keys)) == len(keys)
