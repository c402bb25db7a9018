"""The way of records to a sink: those of callers who come together go together."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from tracker_store_async.auditing.sinks import tell_head
from tracker_store_async.redaction import REDACTOR, fields, get_logger

if TYPE_CHECKING:
    from tracker_store_async.auditing.sinks import Sink

logger = get_logger(__name__)


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
        self._waiting: list[tuple[dict[str, Any], asyncio.Future[None] | None]] = []
        self._writer: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Open the sink."""
        await self.sink.open()
        tell_head(self.sink)

    async def close(self) -> None:
        """Write what waits, and close the sink."""
        if self._writer is not None:
            await asyncio.wait({self._writer})
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
