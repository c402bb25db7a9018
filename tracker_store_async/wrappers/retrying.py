"""`RetryingTrackerStore`: faults that pass are waited out, within a budget of time."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from tenacity import (
    AsyncRetrying,
    retry_if_exception,
    stop_after_attempt,
    stop_before_delay,
    wait_random_exponential,
)

from tracker_store_async.errors import StoreAccessError, StoreUnavailableError
from tracker_store_async.observation import noted
from tracker_store_async.options import check_count, check_seconds
from tracker_store_async.saving_many import one_by_one
from tracker_store_async.wrappers.base import WrapperTrackerStore

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from tenacity import RetryCallState

    from tracker_store_async.rows import (
        Append,
        ConversationSummary,
        Listing,
        Read,
        Rewrite,
        StoredConversation,
    )
    from tracker_store_async.store import TrackerStore

T = TypeVar("T")

FIRST_PAUSE_SECONDS = 0.05
LONGEST_PAUSE_SECONDS = 1.0


class RetryingTrackerStore(WrapperTrackerStore):
    """Wraps a store and repeats what failed because the storage was unavailable.

    Only `StoreUnavailableError` is retried: a lost connection, a timeout, a full pool,
    a transaction that gave way; and `StoreAccessError` where the store asks for its
    credentials anew, for while they are being changed the server and what hands them
    out may disagree for a moment. An append that landed although its answer was lost is
    recognised by its ids, so repeating one is safe. A `delete` whose answer was lost,
    and which had worked, returns False. `health` is not retried: it says how it is.

    The pauses grow from 0.05 to 1 s, and each is a random part of that, so that callers
    who failed together do not come back together.

    Args:
        wrapped: The store.
        attempts: Most attempts, the first included.
        budget_seconds: No attempt begins later than this after the first one began. How
            long one takes is bounded by the store's own timeouts.

    Raises:
        ConfigurationError: An argument is not what it should be.
    """

    _carries_outbox = True

    def __init__(
        self,
        wrapped: TrackerStore,
        *,
        attempts: int = 3,
        budget_seconds: float = 2.0,
    ) -> None:
        super().__init__(wrapped)
        self._attempts = check_count("attempts", attempts)
        self._budget_seconds = check_seconds("budget_seconds", budget_seconds)

    async def _retried(self, work: Callable[[], Awaitable[T]]) -> T:
        retrying = AsyncRetrying(
            retry=retry_if_exception(self._may_pass),
            stop=stop_after_attempt(self._attempts)
            | stop_before_delay(self._budget_seconds),
            wait=wait_random_exponential(FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS),
            before_sleep=self._note_retry,
            reraise=True,
        )
        return await retrying(work)

    def _may_pass(self, error: object) -> bool:
        if isinstance(error, StoreAccessError):
            return bool(self._renews_credentials)
        return isinstance(error, StoreUnavailableError)

    def _note_retry(self, state: RetryCallState) -> None:
        noted(self, "retry")

    async def _open(self) -> None:
        await self._retried(super()._open)

    async def _append(self, append: Append) -> bool:
        return await self._retried(partial(super()._append, append))

    async def _append_many(
        self, appends: Sequence[Append]
    ) -> list[bool | BaseException]:
        if self._appends_otherwise_than(RetryingTrackerStore):
            return await one_by_one(self._append, appends)
        answers: dict[int, bool | BaseException] = {}
        left = list(range(len(appends)))

        async def attempt() -> None:
            nonlocal left
            found = await self._forward_many([appends[at] for at in left])
            answers.update(zip(left, found, strict=True))
            left = [at for at in left if self._may_pass(answers[at])]
            if left:
                raise answers[left[0]]  # type: ignore[misc]  # it is an error

        # What is left after the last attempt has its error among the answers.
        with suppress(StoreUnavailableError, StoreAccessError):
            await self._retried(attempt)
        return [answers[at] for at in range(len(appends))]

    async def _read(self, read: Read) -> StoredConversation | None:
        return await self._retried(partial(super()._read, read))

    async def _delete(
        self,
        sender_id: str,
        before: int | None,
        now: float,
        version: int | None = None,
    ) -> bool:
        return await self._retried(
            partial(super()._delete, sender_id, before, now, version)
        )

    async def _rewrite(self, rewrite: Rewrite) -> bool:
        # One that had landed is refused the second time: the caller looks what is now.
        return await self._retried(partial(super()._rewrite, rewrite))

    async def _list(self, listing: Listing) -> list[ConversationSummary]:
        return await self._retried(partial(super()._list, listing))
