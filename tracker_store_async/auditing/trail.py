"""The way of records to a sink: those of callers who come together go together."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeAlias

from tracker_store_async.auditing.sinks import tell_head
from tracker_store_async.redaction import REDACTOR, fields, get_logger

if TYPE_CHECKING:
    from tracker_store_async.auditing.sinks import Sink

logger = get_logger(__name__)

_Waiting: TypeAlias = "tuple[dict[str, Any], asyncio.Future[None] | None]"
"""A record, and what its caller waits for, if it does."""


class Trail:
    """Writes records of one store, on its loop.

    Args:
        sink: Where they go.

    Attributes:
        error: Why the latest records were not written, or None.
    """

    def __init__(self, sink: Sink) -> None:
        self.sink = sink
        self.error: str | None = None
        self._waiting: list[_Waiting] = []
        self._writer: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Open the sink."""
        await self.sink.open()
        tell_head(self.sink)

    async def close(self) -> None:
        """Write what waits, and close the sink."""
        writer = self._writer
        if writer is not None and writer.get_loop() is asyncio.get_running_loop():
            await asyncio.wait({writer})
        elif writer is not None:  # its loop has ended, and it with it
            self._abandon([])
        if self._waiting:
            await self._write_all()
        tell_head(self.sink)
        await self.sink.close()

    async def write(self, record: dict[str, Any]) -> None:
        """Return once a record is durable.

        Raises:
            AuditError: It was not written.
        """
        done = asyncio.get_running_loop().create_future()
        self._add(record, done)
        await done

    def note(self, record: dict[str, Any]) -> None:
        """Write a record without waiting, and tell the log if that fails."""
        self._add(record, None)

    def _add(self, record: dict[str, Any], done: asyncio.Future[None] | None) -> None:
        self._waiting.append((record, done))
        if self._writer is None:
            self._writer = asyncio.ensure_future(self._write_all())

    async def _write_all(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            error: Exception | None = None
            try:
                await self.sink.write([record for record, _ in batch])
            except Exception as caught:  # noqa: BLE001 - its callers raise it
                error = caught
            except BaseException:  # cancelled, as everything is when a loop ends
                self._abandon(batch)
                raise
            self.error = None if error is None else REDACTOR.error(error)
            for _, done in batch:
                if done is None and error is not None:
                    logger.error(
                        "A record of the audit trail was not written: %s",
                        error,
                        extra=fields("audit_failed"),
                    )
                elif done is not None and not done.done():
                    if error is None:
                        done.set_result(None)
                    else:
                        done.set_exception(error)
        self._writer = None

    def _abandon(self, batch: list[_Waiting]) -> None:
        """Let nobody wait for a writer that has ended; keep what is only noted."""
        left = [*batch, *self._waiting]
        self._waiting = [(record, None) for record, done in left if done is None]
        self._writer = None
        for _, done in left:
            if done is not None and not done.get_loop().is_closed():
                done.cancel()
