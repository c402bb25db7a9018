"""Taking turns on the event loop, so that many conversations never stop it for long.

Encoding and decoding are short, but the loop runs everything that is ready before it
looks at anything else: 64 conversations that are ready at once would stop it 64 times
as long. So each takes a turn, and the turns in one pass of the loop are bounded.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque

TURNS_SECONDS_PER_PASS = 0.002
"""Work after which the next turn waits for the loop's next pass."""

NOTED_SECONDS = 0.001
"""Work after which the next pass is noted. For less there is no need to: it costs one
more pass of the loop, while a thread may be waiting for the interpreter."""


class Turns:
    """Bounds the work done in one pass of the loop; `async with` takes a turn.

    Nothing may be awaited within a turn. Turns are taken in the order of asking. Where
    nearly every call takes one, half of what it costs is saved by::

        if turns.are_over:
            await turns.wait()
        with turns:
            ...
    """

    __slots__ = ("_notes_pass", "_spent_seconds", "_started", "_waiting")

    def __init__(self) -> None:
        self._spent_seconds = 0.0  # in this pass, or in earlier ones if they had little
        self._started = 0.0
        self._notes_pass = False
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def are_over(self) -> bool:
        """Whether the next turn has to wait for the loop's next pass."""
        return bool(self._waiting) or self._spent_seconds >= TURNS_SECONDS_PER_PASS

    async def __aenter__(self) -> None:
        """Wait until it is our turn."""
        if self.are_over:
            await self.wait()
        self._started = time.perf_counter()

    async def __aexit__(self, *exc_info: object) -> None:
        """Note how long the turn took."""
        self.__exit__()

    def __enter__(self) -> None:
        """Begin a turn that does not have to wait, or has waited."""
        self._started = time.perf_counter()

    def __exit__(self, *exc_info: object) -> None:
        """Note how long the turn took."""
        self._spent_seconds += time.perf_counter() - self._started
        counts = self._spent_seconds >= NOTED_SECONDS or self._waiting
        if counts and not self._notes_pass:
            self._notes_pass = True
            asyncio.get_running_loop().call_soon(self._start_pass)

    def owe(self, seconds: float) -> None:
        """Count work that is put off: whoever has this turn does it after the turn."""
        self._started -= seconds

    async def wait(self) -> None:
        """Wait until it is our turn."""
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._give_turn()  # it was our turn already: it is the next one's now
            raise

    def _start_pass(self) -> None:
        self._spent_seconds, self._notes_pass = 0.0, False
        self._give_turn()

    def _give_turn(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
