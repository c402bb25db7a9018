"""The file event broker: one JSON a line, appended and on the disk when it returns."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from tracker_store_async import errors
from tracker_store_async.broker import EventBroker
from tracker_store_async.brokers.envelope import encode_body, headers_of
from tracker_store_async.brokers.grouping import GroupWriter
from tracker_store_async.threads import in_thread

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tracker_store_async.broker import EventMessage

DEFAULT_PATH = "rasa_event.log"
"""Rasa's (`FileEventBroker` of 3.6.21)."""


class FileEventBroker(EventBroker):
    """Appends events to a file as Rasa does: one message a line, as JSON.

    The lines of one save are one write, so that processes that share the file do not
    mix theirs; those of saves that wait together share it. The file is opened for each
    write: one that was moved away, as log rotation does, is begun anew, and a half line
    that a crash left is ended first.

    Args:
        path: The file; it is created, its directory is not.
        with_headers: Whether each line also holds the message id, the position, the
            type and `RASA_ENVIRONMENT`, with Rasa's message as its `body`. Rasa's own
            line has nothing to drop repeats by.
        fsync: Whether a publish waits until the lines are on the disk.
        timeout_seconds: Longest time that one publish takes.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] = DEFAULT_PATH,
        *,
        with_headers: bool = False,
        fsync: bool = True,
        timeout_seconds: float = 10.0,
    ) -> None:
        self.path = Path(path)
        self.with_headers = with_headers
        self.fsync = fsync
        self.timeout_seconds = timeout_seconds
        self._writer = GroupWriter(self._write)

    def __repr__(self) -> str:
        """Say which file it writes."""
        return f"<{type(self).__name__} to {self.path}>"

    async def open(self) -> None:
        """Create the file, or find out that it cannot be written.

        Raises:
            BrokerAccessError: It may not be written.
            BrokerUnavailableError: It cannot be opened.
        """
        await self._append([])

    async def publish(self, message: EventMessage) -> None:
        """Append one message; it raises what `publish_many` does."""
        await self.publish_many([message])

    async def publish_many(self, messages: Sequence[EventMessage]) -> None:
        """Append the events of one save with one write.

        Raises:
            BrokerAccessError: The file may not be written.
            BrokerUnavailableError: It cannot be written, or not within
                `timeout_seconds`.
        """
        lines = [self._line(message) for message in messages]
        if lines:
            await self._append(lines)

    def _line(self, message: EventMessage) -> bytes:
        body = encode_body(message)
        if not self.with_headers:
            return body + b"\n"
        headers = json.dumps(headers_of(message)).encode("ascii")
        return headers[:-1] + b', "body": ' + body + b"}\n"

    async def _append(self, lines: Sequence[bytes]) -> None:
        try:
            async with asyncio.timeout(self.timeout_seconds):
                await self._writer.put(lines)
        except TimeoutError as error:
            raise errors.BrokerUnavailableError(
                f"the event file {self.path} took nothing within "
                f"{self.timeout_seconds:g} s: check the disk"
            ) from error
        except PermissionError as error:
            raise errors.BrokerAccessError(
                f"the event file {self.path} may not be written: check its owner and "
                "its rights"
            ) from error
        except OSError as error:
            raise errors.BrokerUnavailableError(
                f"the event file {self.path} cannot be written ({error.strerror}): "
                "check the directory and the space on the disk"
            ) from error

    async def _write(self, lines: list[bytes]) -> None:
        await in_thread(append_whole, self.path, b"".join(lines), self.fsync)

    async def close(self) -> None:
        """Wait for a write that is under way."""
        await self._writer.close()


def append_whole(path: Path, data: bytes, fsync: bool) -> None:
    """Append lines to a file, all of them or, if the disk is full, none.

    Args:
        path: The file.
        data: Whole lines.
        fsync: Whether to wait until they are on the disk.
    """
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_CLOEXEC", 0)
    file = os.open(path, flags, 0o640)
    try:
        _lock(file)
        size_bytes = os.fstat(file).st_size
        if fsync and data and not size_bytes:
            # Before anything is written: were it to fail later, a retry would double it
            _sync_directory(path.parent)
        if size_bytes and data and not _ends_with_newline(file, size_bytes):
            data = b"\n" + data  # a crash left half a line: what follows is not part
        try:
            _write(file, data)
            if fsync and data:
                os.fsync(file)
        except OSError:
            os.ftruncate(file, size_bytes)
            raise
    finally:
        os.close(file)  # and so unlocks it


def _write(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


def _ends_with_newline(file: int, size_bytes: int) -> bool:
    os.lseek(file, size_bytes - 1, os.SEEK_SET)
    return os.read(file, 1) == b"\n"


def _lock(file: int) -> None:
    """Keep other processes of ours out, where the system can."""
    try:
        import fcntl
    except ImportError:  # Windows: its processes do not share the file safely
        return
    fcntl.flock(file, fcntl.LOCK_EX)


def _sync_directory(directory: Path) -> None:
    """Make the name of a new file as durable as what will be in it."""
    if os.name != "posix":
        return
    try:
        handle = os.open(directory, os.O_RDONLY)
    except PermissionError:  # it may be written to, but not read
        os.sync()
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
