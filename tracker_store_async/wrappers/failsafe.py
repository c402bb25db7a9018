"""`FailSafeTrackerStore`: the assistant goes on while its storage is away."""

from __future__ import annotations

import asyncio
import inspect
import time
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from tracker_store_async.errors import ConcurrentSaveError, StoreUnavailableError
from tracker_store_async.observation import noted
from tracker_store_async.options import check_count, check_seconds
from tracker_store_async.redaction import get_logger
from tracker_store_async.rows import Health, Read
from tracker_store_async.saving_many import one_by_one
from tracker_store_async.settling import settled
from tracker_store_async.store import TrackerStore
from tracker_store_async.wrappers.base import WrapperTrackerStore
from tracker_store_async.wrappers.failsafe_backlog import Backlog
from tracker_store_async.wrappers.failsafe_breaker import CircuitBreaker
from tracker_store_async.wrappers.failsafe_journal import (
    JournalFile,
    check_directory,
    claim_files,
    store_in,
)
from tracker_store_async.wrappers.failsafe_log import (
    details_of,
    tell_outage,
    tell_what_is_left,
    tell_what_waits,
)
from tracker_store_async.wrappers.failsafe_memory import LastSeen
from tracker_store_async.wrappers.failsafe_options import (
    backlog_bound,
    check_fallback,
    check_sealed,
    in_order,
    one_of,
)
from tracker_store_async.wrappers.failsafe_recovery import Recovery
from tracker_store_async.wrappers.failsafe_replay import Replayed, Replayer
from tracker_store_async.wrappers.legacy_calls import ConversationTurns

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from tracker_store_async.rows import (
        Append,
        ConversationSummary,
        Listing,
        Rewrite,
        StoredConversation,
        Upkeep,
    )

logger = get_logger(__name__)
T = TypeVar("T")

PROBE_SENDER_ID = "tracker-store-fail-safe-probe"
"""A conversation that does not exist; a probe asks for it."""


class FailSafeTrackerStore(WrapperTrackerStore):
    """Wraps a store, the primary, and goes on without it while it is unavailable.

    Only `StoreUnavailableError` counts as that: every other error reaches the caller.

    During an outage

    - saves go to the fallback, and are acknowledged once they are stored there;
    - reads answer with the conversation as it was last seen through this object, and
      with what the outage added. The latest sessions of the conversations used last are
      remembered for that, in memory and within bounds;
    - a conversation of which nothing is known begins anew and is marked as provisional
      (`is_provisional`): the primary may hold more of it, and what the outage added is
      then appended behind that;
    - `delete`, `keys` and `conversations` raise `StoreUnavailableError`: nothing may
      count as erased that is not, and no list leaves out conversations without a word.

    When the primary answers again, everything is replayed in order, each event once (an
    append whose answer was lost is recognised by its ids), behind what others wrote
    meanwhile. A conversation is served from the primary only after its replay.

    One log line says that the breaker opens, and one that it closes and what was
    replayed. Every process has its own fallback; any number of them may share the
    primary, and the path of a journal.

    Args:
        primary: The store to be made safe. (`tracker_store` is Rasa's name for it.)
        fallback: Keeps what is saved during an outage; None is the memory of this
            process. It is used for nothing else. Rasa's order of this and the next
            argument is understood too.
        on_tracker_store_error: Called with each error for which the fallback is used;
            it may be async.
        journal: Path of an SQLite file to be the fallback: a crash during the outage
            loses nothing, and the next process replays it. Processes with the same path
            use a file each.
        timeout_seconds: Longest time that one request to the primary may take before
            the primary counts as unavailable; None leaves that to the primary.
        probe_min_seconds: First pause before the primary is tried again; the pauses
            double, and vary by half.
        probe_max_seconds: Longest of these pauses.
        remembered_conversations: Most conversations to remember.
        remembered_bytes: About how much memory that may take.
        max_backlog_bytes: About how much an outage may leave in the fallback; a save
            beyond that raises `StoreUnavailableError`, and is counted and told in the
            log. None is 256 MiB in memory, and no bound for `journal` and `fallback`.
        tracker_store: Rasa's name of `primary`.
        fallback_tracker_store: Rasa's name of `fallback`.
        wrap_fallback: Returns the fallback, or the store of the journal's file, in a
            wrapper of its own: encryption keeps what is journalled as secret as the
            primary's.

    Raises:
        ConfigurationError: An argument is not what it should be.
    """

    def __init__(
        self,
        primary: TrackerStore | None = None,
        fallback: TrackerStore | Callable[[Exception], Any] | None = None,
        on_tracker_store_error: Callable[[Exception], Any] | TrackerStore | None = None,
        *,
        journal: str | None = None,
        timeout_seconds: float | None = 5.0,
        probe_min_seconds: float = 0.1,
        probe_max_seconds: float = 1.0,
        remembered_conversations: int = 10_000,
        remembered_bytes: int = 64 * 2**20,
        max_backlog_bytes: int | None = None,
        tracker_store: TrackerStore | None = None,
        fallback_tracker_store: TrackerStore | None = None,
        wrap_fallback: Callable[[TrackerStore], TrackerStore] | None = None,
    ) -> None:
        super().__init__(one_of(primary, tracker_store, "primary"))
        given, on_error = in_order(fallback, on_tracker_store_error)
        store = one_of(given, fallback_tracker_store, "fallback")
        if store is not None:
            check_fallback(store, self._wrapped, journal)
            store = store if wrap_fallback is None else wrap_fallback(store)
        self._wrap_journal = wrap_fallback
        if self._seals and wrap_fallback is None:
            check_sealed(store, journal)
        if timeout_seconds is not None:
            check_seconds("timeout_seconds", timeout_seconds)
        check_seconds("probe_min_seconds", probe_min_seconds)
        check_seconds("probe_max_seconds", probe_max_seconds)
        self._on_error = on_error
        self._journal = None if journal is None else str(journal)
        self._timeout_seconds = timeout_seconds
        self._files: list[JournalFile] = []
        self._fallbacks: list[TrackerStore] = []
        if journal is None:
            self._fallbacks = [store or TrackerStore.create(None)]
            self._fallbacks[0]._is_wrapped = True  # it publishes nothing
        self._seen = LastSeen(
            check_count("remembered_conversations", remembered_conversations),
            check_count("remembered_bytes", remembered_bytes),
        )
        is_in_memory = journal is None and store is None
        self._backlog = Backlog(backlog_bound(max_backlog_bytes, is_in_memory))
        self._turns = ConversationTurns()
        self._recovery = Recovery(self, (probe_min_seconds, probe_max_seconds))

    @property
    def fallback_tracker_store(self) -> TrackerStore | None:
        """The store that saves go to in an outage; None if the journal is not open."""
        return self._fallbacks[0] if self._fallbacks else None

    def is_provisional(self, sender_id: str) -> bool:
        """Whether a conversation began in an outage, with nothing known of it."""
        entry = self._backlog.entries.get(sender_id)
        return entry is not None and entry.provisional

    # -- primitives --------------------------------------------------------------------

    async def _append(self, append: Append) -> bool:
        if append.origin is not None:  # a copy can be run again
            work = partial(super()._append, append)
            return await self._change(append.sender_id, "nothing was copied", work)
        while True:
            if await self._is_served_by_primary(append.sender_id):
                with suppress(StoreUnavailableError):
                    erasures = self._seen.erasures
                    accepted = await self._ask(partial(super()._append, append))
                    if accepted:
                        self._seen.note_append(append, erasures)
                    return accepted
            async with self._turns.turn(append.sender_id):
                if self._was_replayed(append.sender_id):
                    continue
                seen = self._seen.find(append.sender_id, append.now)
                kept = await self._backlog.append(append, seen, self._fallbacks[0])
            self._recovery.soon()
            return kept

    async def _append_many(
        self, appends: Sequence[Append]
    ) -> list[bool | BaseException]:
        if self._appends_otherwise_than(FailSafeTrackerStore):
            return await one_by_one(self._append, appends)
        if all(append.origin is not None for append in appends):
            for append in appends:
                self._seen.forget(append.sender_id)
            return await self._forward_many(appends)
        sent = [at for at, each in enumerate(appends) if self._may_be_sent(each)]
        found = await self._send([appends[at] for at in sent])
        answers = {
            at: answer
            for at, answer in zip(sent, found, strict=True)
            if not isinstance(answer, StoreUnavailableError)
        }
        # What the primary had no answer for goes to the fallback like any other save:
        # what had landed after all is recognised when it is replayed.
        left = [at for at in range(len(appends)) if at not in answers]
        alone = await one_by_one(self._append, [appends[at] for at in left])
        answers |= zip(left, alone, strict=True)
        return [answers[at] for at in range(len(appends))]

    def _may_be_sent(self, append: Append) -> bool:
        """Whether the primary is asked, and has all of the conversation."""
        if append.origin is not None or self._breaker.is_open:
            return False
        return append.sender_id not in self._backlog.entries

    async def _send(self, appends: Sequence[Append]) -> list[bool | BaseException]:
        """Have the primary append several; it is unavailable if it is for one."""
        erasures = self._seen.erasures
        if not appends:
            return []
        try:
            found = await self._ask(partial(self._forward_many, appends))
        except StoreUnavailableError as error:
            return [error] * len(appends)
        for append, answer in zip(appends, found, strict=True):
            if answer is True:
                self._seen.note_append(append, erasures)
            elif isinstance(answer, StoreUnavailableError) and self._note_outage(
                answer
            ):
                await self._report(answer)
        return found

    async def _read(self, read: Read) -> StoredConversation | None:
        if read.limit is not None:
            return await self._read_page(read)
        read = replace(read, ids=True)  # what is read is remembered
        while True:
            if await self._is_served_by_primary(read.sender_id):
                with suppress(StoreUnavailableError):
                    erasures = self._seen.erasures
                    found = await self._ask(partial(super()._read, read))
                    self._seen.note_read(read, found, erasures)
                    return found
            async with self._turns.turn(read.sender_id):
                if self._was_replayed(read.sender_id):
                    continue
                entry = self._backlog.entries.get(read.sender_id)
                if entry is not None:
                    return await self._backlog.read(entry, read)
                return self._seen.read(read)

    async def _read_page(self, read: Read) -> StoredConversation | None:
        """Read for a copy, for which what is remembered would be too little."""
        if not await self._is_served_by_primary(read.sender_id, at_once=True):
            raise self._breaker.refusal("what it holds cannot be copied")
        return await self._ask(partial(super()._read, read))

    def _was_replayed(self, sender_id: str) -> bool:
        """Whether the primary has become the one to ask while we waited for a turn."""
        return not self._breaker.is_open and sender_id not in self._backlog.entries

    async def _delete(
        self,
        sender_id: str,
        before: int | None,
        now: float,
        version: int | None = None,
    ) -> bool:
        work = partial(super()._delete, sender_id, before, now, version)
        return await self._change(sender_id, "nothing was erased", work)

    async def _rewrite(self, rewrite: Rewrite) -> bool:
        work = partial(super()._rewrite, rewrite)
        return await self._change(rewrite.sender_id, "nothing was rewritten", work)

    async def _change(
        self, sender_id: str, refusal: str, work: Callable[[], Coroutine[Any, Any, T]]
    ) -> T:
        """Have the primary, or nobody, change what is stored."""
        if not await self._is_served_by_primary(sender_id, at_once=True):
            raise self._breaker.refusal(refusal)
        try:
            return await self._ask(work)
        finally:
            self._seen.forget(sender_id)  # and what was being read of it meanwhile

    async def _list(self, listing: Listing) -> list[ConversationSummary]:
        for sender_id in list(self._backlog.entries):
            if not await self._is_served_by_primary(sender_id, at_once=True):
                break
        if self._breaker.is_open:
            raise self._breaker.refusal("what it holds cannot be listed")
        return await self._ask(partial(super()._list, listing))

    async def _upkeep(self, *, apply: bool) -> Upkeep:
        # Past the limit of time: what it does may rightly take hours. And no outage is
        # noted, since the primary may serve others while this one fails.
        if self._breaker.is_open:
            raise self._breaker.refusal("nothing was tidied up")
        return await super()._upkeep(apply=apply)

    async def _health(self) -> Health:
        started = time.perf_counter()
        try:
            health = await self._ask(super()._health)
        except StoreUnavailableError as error:
            shown = self._breaker.error or error
            elapsed = time.perf_counter() - started
            health = Health(self.backend_name, False, elapsed, error=str(shown))
        details = details_of(
            self._breaker, self._backlog, self._seen, self._fallbacks[0], self._files
        )
        return replace(health, details={**health.details, "fail_safe": details})

    # -- the primary -------------------------------------------------------------------

    async def _ask(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Return what the primary answers; open the breaker if it is unavailable."""
        try:
            return await self._breaker.call(work)
        except StoreUnavailableError as error:
            if self._note_outage(error):
                await self._report(error)
            raise

    def _note_outage(self, error: StoreUnavailableError) -> bool:
        """Open the breaker; return whether it was not open."""
        if self._breaker.is_open:
            return False
        if self._breaker.open(error):
            self._replayer.replayed = Replayed()
            noted(self, "opened")
            fallback = self._fallbacks[0].backend_name
            tell_outage(self.backend_name, fallback, error)
        self._recovery.soon()
        return True

    async def _report(self, error: StoreUnavailableError) -> None:
        if self._on_error is None:
            return
        try:
            result = self._on_error(error)
            if inspect.isawaitable(result):
                await result
        except Exception:
            logger.exception("on_tracker_store_error failed")

    async def _is_served_by_primary(
        self, sender_id: str, *, at_once: bool = False
    ) -> bool:
        """Whether the primary has all of a conversation; replay what it has not.

        Args:
            sender_id: The conversation.
            at_once: Do not leave that to the replay that is under way.

        Raises:
            TrackerStoreError: The primary refuses what is replayed.
        """
        while sender_id in self._backlog.entries:
            if self._breaker.is_open or (self._recovery.is_replaying and not at_once):
                return False  # its turn comes: all at once would keep each waiting
            try:
                await self._replay(sender_id)
            except StoreUnavailableError as error:
                self._note_outage(error)
                return False
            except ConcurrentSaveError:  # others were faster each time
                self._recovery.soon()
                return False
        return not self._breaker.is_open

    async def _replay(self, sender_id: str) -> None:
        async with self._turns.turn(sender_id):
            entry = self._backlog.entries.get(sender_id)
            if entry is not None:
                noted(self, "replayed", await self._replayer.replay(entry))

    async def _answers(self) -> bool:
        """Ask the primary for anything."""
        read = Read(PROBE_SENDER_ID, self._now(), last=0)
        try:
            await self._breaker.probe(partial(super()._read, read))
        except StoreUnavailableError as error:
            self._breaker.error = error
            return False
        except Exception:
            # It is there; what is wrong, it tells the next caller.
            logger.debug("The probe of the tracker store failed", exc_info=True)
        return True

    # -- opening and closing -----------------------------------------------------------

    async def _open(self) -> None:
        self._breaker = CircuitBreaker(
            f"the {self.backend_name} store", self._timeout_seconds
        )
        self._replayer = Replayer(
            self._wrapped, self._breaker, self._backlog, self._seen
        )
        try:
            await self._open_fallbacks()
            with suppress(StoreUnavailableError):
                await self._ask(super()._open)
        except BaseException:
            await self._close_all()
            raise
        self._recovery.has_left_over = bool(self._backlog.entries)
        tell_what_waits(self._backlog, self._fallbacks[0].backend_name)
        self._recovery.soon()

    async def _open_fallbacks(self) -> None:
        if self._journal is not None:
            # Else the locks of a caller who is cancelled meanwhile would be forgotten.
            await settled(self._claim_files(self._journal))
            wrap = self._wrap_journal
            self._fallbacks = [store_in(file, wrap) for file in self._files]
        self._backlog.clear()
        for fallback in self._fallbacks:
            await fallback.open()
            await self._backlog.load(fallback)

    def check_journal(self) -> None:
        """Check that the journal can have its place; nothing is created or opened.

        Raises:
            ConfigurationError: There is no such directory.
        """
        if self._journal is not None:
            check_directory(self._journal)

    async def _claim_files(self, journal: str) -> None:
        self._files = await asyncio.to_thread(claim_files, journal)

    async def _close(self) -> None:
        await self._recovery.stop()
        if self._backlog.entries and not self._breaker.is_open:
            await self._recovery.replay_all()
        fallback = self._fallbacks[0].backend_name
        tell_what_is_left(self._backlog, fallback, self._journal)
        await self._close_all()

    async def _close_all(self) -> None:
        try:
            await self._breaker.give_up()
            await self._wrapped.close()
        finally:
            for fallback in self._fallbacks:
                await fallback.close()
            for file in self._files:
                file.release()
            if self._files:
                self._files, self._fallbacks = [], []
                self._backlog.clear()
