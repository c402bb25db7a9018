"""The suite can fail: each mistake turns the guarantee red that it breaks."""

from __future__ import annotations

import importlib
import inspect
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.conformance import (
    broken,
    test_cancellation,
    test_concurrent_writers,
    test_conflicts,
    test_erasure,
    test_expiry,
    test_isolation,
    test_lifecycle,
    test_listing,
    test_log,
    test_lost_acknowledgement,
    test_publishing,
    test_rewrite,
    test_sender_ids,
    test_sessions,
    test_values,
    test_window,
)
from tests.conformance.backends import BACKENDS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.conformance.broken import SoundStore

Guarantee = "Callable[..., Awaitable[None]]"

FAILURES = (Exception, pytest.fail.Exception)
"""What turns a test red; the same test has passed on a sound store before."""

CASES: list[tuple[type[SoundStore], Guarantee, dict[str, Any]]] = [
    (
        broken.RewritesTheSameLog,
        test_rewrite.test_a_tracker_from_before_brings_nothing_back,
        {"is_whole": False},
    ),
    (
        broken.KeepsTheOldState,
        test_rewrite.test_nothing_of_the_old_content_is_left,
        {"size": 1},
    ),
    (
        broken.RewritesWhateverIsThere,
        test_rewrite.test_it_is_refused_if_something_else_is_stored,
        {},
    ),
    (
        broken.DeletesWhateverVersion,
        test_erasure.test_only_the_version_that_is_meant_is_deleted,
        {},
    ),
    (
        broken.IgnoresTheExpectedVersion,
        test_log.test_an_append_at_another_version_changes_nothing,
        {},
    ),
    (
        broken.IgnoresTheExpectedVersion,
        test_conflicts.test_raise_leaves_the_conversation_as_it_is,
        {},
    ),
    (
        broken.IgnoresTheExpectedVersion,
        test_lost_acknowledgement.test_a_retry_stores_nothing_again,
        {},
    ),
    (
        broken.ChecksBeforeItWaits,
        test_concurrent_writers.test_creating_at_once_creates_once,
        {},
    ),
    (
        broken.ChecksBeforeItWaits,
        test_concurrent_writers.test_through_a_store_object_each,
        {},
    ),
    (
        broken.WritesBeforeItChecks,
        test_log.test_an_append_at_another_version_changes_nothing,
        {},
    ),
    (
        broken.WritesBeforeItChecks,
        test_concurrent_writers.test_through_a_store_object_each,
        {},
    ),
    (
        broken.WritesRowByRow,
        test_cancellation.test_a_cancelled_save_and_its_retry_store_once,
        {"late": False},
    ),
    (
        broken.WritesRowByRow,
        test_concurrent_writers.test_readers_see_whole_saves_only,
        {},
    ),
    (broken.DropsIds, test_log.test_every_event_has_an_id_of_its_own, {}),
    (
        broken.DropsIds,
        test_lost_acknowledgement.test_a_retry_stores_nothing_again,
        {},
    ),
    (broken.MergesEqualEvents, test_log.test_every_event_has_an_id_of_its_own, {}),
    (
        broken.ForgetsTheSnapshot,
        test_window.test_a_window_reads_no_more_than_it_holds,
        {},
    ),
    (
        broken.KeepsTheFirstSession,
        test_sessions.test_a_session_starts_at_its_action,
        {},
    ),
    (
        broken.SortsByTimestamp,
        test_log.test_order_is_that_of_the_saves_whatever_the_timestamps_say,
        {},
    ),
    (
        broken.SortsByTimestamp,
        test_log.test_a_clock_that_went_back_loses_no_session,
        {},
    ),
    (broken.IgnoresCase, test_sender_ids.test_each_is_a_conversation_of_its_own, {}),
    (broken.IgnoresCase, test_sender_ids.test_ids_that_only_look_stored_are_not, {}),
    (broken.CutsText, test_values.test_a_megabyte_of_text_survives, {}),
    (broken.CutsText, test_log.test_rows_come_back_byte_for_byte, {}),
    (broken.ReadsNumbersAsFloats, test_values.test_a_value_survives, {"value": 1}),
    (
        broken.ReturnsTheSameTracker,
        test_isolation.test_changing_what_was_loaded_changes_no_other,
        {"load": test_isolation.has},
    ),
    (
        broken.PublishesAfterwards,
        test_publishing.test_in_order_before_anything_is_stored,
        {},
    ),
    (
        broken.PublishesAfterwards,
        test_publishing.test_a_broker_that_fails_stores_nothing,
        {},
    ),
    (
        broken.ListsByOffset,
        test_listing.test_those_that_stay_are_listed_once_while_others_come_and_go,
        {},
    ),
    (
        broken.ListsTheLatestLast,
        test_listing.test_the_order_of_the_pages_is_that_of_the_cursors,
        {"seed": 0},
    ),
    (
        broken.CutsAnywhere,
        test_erasure.test_the_storage_itself_refuses_a_cut_into_the_latest_session,
        {"before": 15},
    ),
    (
        broken.CutsWhatExpired,
        test_expiry.test_what_expired_is_not_there_to_be_cut,
        {"before": 2},
    ),
    (
        broken.NumbersAnewAfterACut,
        test_erasure.test_earlier_sessions_can_be_cut_off,
        {"before": 7},
    ),
    (broken.NumbersAnewAfterACut, test_erasure.test_saving_goes_on_after_a_cut, {}),
    (
        broken.KeepsAJournal,
        test_erasure.test_a_deleted_conversation_leaves_no_trace,
        {},
    ),
    (
        broken.ExpiresNothing,
        test_expiry.test_an_expired_conversation_does_not_exist,
        {},
    ),
    (broken.ExpiresAfterTheFirstSave, test_expiry.test_every_save_extends_it, {}),
    (
        broken.LeaksAConnection,
        test_cancellation.test_a_cancelled_load_harms_nobody,
        {"late": False},
    ),
    (
        broken.OpensAsOftenAsItIsUsed,
        test_lifecycle.test_many_first_uses_at_once_open_once,
        {},
    ),
]


async def check(
    guarantee: Callable[..., Awaitable[None]],
    store_class: type[SoundStore],
    arguments: dict[str, Any],
) -> None:
    """Run one test of the suite on stores of this class."""
    storage = broken.BrokenStorage(store_class)
    wanted = inspect.signature(guarantee).parameters
    given = dict(arguments)
    if "storage" in wanted:
        given["storage"] = storage
    if "store" in wanted:
        given["store"] = storage.store()
    try:
        await guarantee(**given)
    finally:
        await storage.close()


def case_id(value: object) -> str | None:
    return getattr(value, "__name__", None)


@pytest.mark.parametrize(("store_class", "guarantee", "arguments"), CASES, ids=case_id)
async def test_a_mistake_is_found(
    store_class: type[SoundStore],
    guarantee: Callable[..., Awaitable[None]],
    arguments: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(test_cancellation, "PATIENCE_SECONDS", 0.5)
    await check(guarantee, broken.SoundStore, arguments)
    with pytest.raises(FAILURES):
        await check(guarantee, store_class, arguments)


def test_no_backend_is_spared_anything() -> None:
    spared = {name: list(each.beyond) for name, each in BACKENDS.items() if each.beyond}
    assert spared.pop("awaitable")
    # Two tests put down what an erasure leaves in the raw storage by its plain text.
    [reason] = spared.pop("encrypted-memory")
    assert spared == {"encrypted-sqlite": [reason]}
    assert reason.startswith("what is left can be read in the storage no more")


def test_what_a_wrapper_is_spared_exists() -> None:
    tests = [
        f"{file.stem}::{name}"
        for file in Path(__file__).parent.glob("test_*.py")
        for name in vars(importlib.import_module(f"{__package__}.{file.stem}"))
        if name.startswith("test_")
    ]
    for backend in BACKENDS.values():
        for patterns in backend.beyond.values():
            for pattern in patterns:
                assert any(fnmatchcase(test, pattern) for test in tests), pattern
