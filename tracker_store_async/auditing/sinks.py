"""Where audit records go: a file of JSON lines, an SQL table, or a logger."""

from __future__ import annotations

import asyncio
import json
import os
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tracker_store_async.auditing.chain import Chain, Head, head_of
from tracker_store_async.errors import AuditError, ConfigurationError
from tracker_store_async.redaction import fields, get_logger

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

try:
    import fcntl
except ImportError:  # not on Windows: there one process has the file for itself
    fcntl = None  # type: ignore[assignment]

logger = get_logger(__name__)
audit_logger = get_logger("tracker_store_async.audit")

TAIL_BYTES = 64 * 1024
"""More than the longest record has: so much is read to find the last one."""


class Sink(ABC):
    """Keeps linked records, and never changes one.

    Args:
        chain: Links them.

    Attributes:
        head: The last record that was written here.
    """

    name: str

    def __init__(self, chain: Chain) -> None:
        self.chain = chain
        self.head = Head()

    @abstractmethod
    async def open(self) -> None:
        """Make sure that it can be written to.

        Raises:
            AuditError: It cannot.
        """

    @abstractmethod
    async def write(self, records: Sequence[dict[str, Any]]) -> None:
        """Append records, durably, behind whatever others have appended.

        Raises:
            AuditError: They were not written.
        """

    async def close(self) -> None:  # noqa: B027 - not every sink holds something
        """Let go of it."""

    def _linked(self, records: Sequence[dict[str, Any]], head: Head) -> list[str]:
        lines = []
        for record in records:
            linked, head = self.chain.link(record, head)
            lines.append(json.dumps(linked, separators=(",", ":")))
        self.head = head
        return lines


class FileSink(Sink):
    """A file of JSON lines, which any number of processes of one machine share.

    Args:
        path: The file. It is made so that its owner alone can read it.
        chain: Links the records.
    """

    name = "file"

    def __init__(self, path: str, chain: Chain) -> None:
        super().__init__(chain)
        self.path = Path(path)

    async def open(self) -> None:
        """Make the file where there is none, and look at its end."""
        await asyncio.to_thread(self._write, ())

    async def write(self, records: Sequence[dict[str, Any]]) -> None:
        """Append records, in a thread, under a lock, through to the disk."""
        await asyncio.to_thread(self._write, records)

    def _write(self, records: Sequence[dict[str, Any]]) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND
        try:
            file = os.open(self.path, flags, 0o600)
            try:
                if fcntl is not None:
                    fcntl.flock(file, fcntl.LOCK_EX)  # until it is closed
                head = self._last(file)
                lines = self._linked(records, head)
                if lines:
                    data = "".join(f"{line}\n" for line in lines).encode()
                    while data:
                        data = data[os.write(file, data) :]
                    os.fsync(file)
            finally:
                os.close(file)
        except OSError as error:
            raise AuditError(
                f"the audit trail {str(self.path)!r} cannot be written: "
                f"{error.strerror or type(error).__name__}"
            ) from error

    def _last(self, file: int) -> Head:
        """Return the head, after removing half a line that a crash has left."""
        size = os.fstat(file).st_size
        start = max(0, size - TAIL_BYTES)
        os.lseek(file, start, os.SEEK_SET)
        tail = os.read(file, TAIL_BYTES)
        whole, newline, torn = tail.rpartition(b"\n")
        if torn:  # it was never acknowledged
            os.ftruncate(file, size - len(torn))
        if not newline:
            return Head()
        try:
            return head_of(json.loads(whole.rpartition(b"\n")[2]))
        except (ValueError, KeyError, TypeError) as error:
            raise AuditError(
                f"the last line of the audit trail {str(self.path)!r} is no record: "
                "move the file away, and find out who has changed it"
            ) from error


def read_file(path: str | Path) -> Iterator[bytes]:
    """Return the records in a file.

    Raises:
        ConfigurationError: It cannot be read.
    """
    try:
        with Path(path).open("rb") as file:
            yield from file
    except OSError as error:
        raise ConfigurationError(
            f"the audit trail {str(path)!r} cannot be read: "
            f"{error.strerror or type(error).__name__}"
        ) from error


class LoggerSink(Sink):
    """The logger `tracker_store_async.audit`: a chain for each time it is opened.

    The message of each line is the record as JSON.
    """

    name = "logger"

    async def open(self) -> None:
        """Begin a chain."""
        self.head = Head()

    async def write(self, records: Sequence[dict[str, Any]]) -> None:
        """Log records."""
        for line in self._linked(records, self.head):
            # As it is: masking a part would break its hash, and it holds no text.
            audit_logger.info("%s", line, extra=fields("audit", _redacted=True))


def tell_head(sink: Sink) -> None:
    """Tell the log what the last record is: a head that is kept elsewhere.

    Args:
        sink: The sink.
    """
    logger.info(
        "The audit trail (%s) ends with record %s.",
        sink.name,
        sink.head,
        extra=fields("audit_head", seq=sink.head.seq, hash=sink.head.hash),
    )
