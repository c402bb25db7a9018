"""Where audit records go: a file of JSON lines, an SQL table, or a logger."""

from __future__ import annotations

import glob
import json
import logging
import os
import time
from abc import ABC, abstractmethod
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from tracker_store_async.auditing.chain import Chain, Head, dumped, head_of
from tracker_store_async.errors import AuditError, ConfigurationError
from tracker_store_async.redaction import fields, get_logger
from tracker_store_async.threads import in_thread

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tracker_store_async.side_database import SideTable

try:
    import fcntl
except ImportError:  # not on Windows: there one process has the file for itself
    fcntl = None  # type: ignore[assignment]

logger = get_logger(__name__)
audit_logger = get_logger("tracker_store_async.audit")

TAIL_BYTES = 64 * 1024
"""More than nearly every record has: so much is read first to find the last one."""


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

    def side_table(self) -> SideTable | None:
        """Return the table of a sink that keeps records in one."""
        return None

    async def close(self) -> None:  # noqa: B027 - not every sink holds something
        """Let go of it."""

    def _linked(self, records: Sequence[dict[str, Any]], head: Head) -> list[str]:
        lines = []
        for record in records:
            linked, head = self.chain.link(record, head)
            lines.append(dumped(linked))
        self.head = head
        return lines


class FileSink(Sink):
    """A file of JSON lines, which any number of processes of one machine share.

    Args:
        path: The file. It is made so that its owner alone can read it.
        chain: Links the records.
        max_bytes: Size from which on the file is kept under another name, and a new
            one continues its chain; None for one file that grows.
    """

    name = "file"

    def __init__(self, path: str, chain: Chain, max_bytes: int | None = None) -> None:
        super().__init__(chain)
        self.path = Path(path)
        self._max_bytes = max_bytes

    async def open(self) -> None:
        """Make the file where there is none, and look at its end."""
        await in_thread(self._write, ())

    async def write(self, records: Sequence[dict[str, Any]]) -> None:
        """Append records, in a thread, under a lock, through to the disk."""
        await in_thread(self._write, records)

    def _write(self, records: Sequence[dict[str, Any]]) -> None:
        try:
            file = self._locked()
            try:
                lines = self._linked(records, self._last(file))
                if lines:
                    _write_through(file, lines)
                if self._max_bytes and os.fstat(file).st_size >= self._max_bytes:
                    self._rotate_if_possible()
            finally:
                os.close(file)
        except OSError as error:
            raise AuditError(
                f"the audit trail {str(self.path)!r} cannot be written: "
                f"{error.strerror or type(error).__name__}"
            ) from error

    def _locked(self) -> int:
        """Open the file that has the name now, for us alone until it is closed."""
        while True:
            file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX)
            # Whoever had the lock may have moved the file away.
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file), self.path.stat()):
                    return file
            os.close(file)

    def _rotate_if_possible(self) -> None:
        """Begin a new file; if that fails the records stand, and the old one grows."""
        head = self.head
        try:
            self._rotate()
        except OSError as error:
            self.head = head
            logger.error(
                "The audit trail %r cannot be continued in a new file, and grows: %s",
                str(self.path),
                error.strerror or type(error).__name__,
                extra=fields("audit_not_rotated"),
            )

    def _rotate(self) -> None:
        """Keep the file under another name; begin one that continues its chain.

        The name always leads to a file: at first to the old one, under both names, and
        from one moment to the next to the new one, whose first record says what it
        continues.
        """
        for kept in archives(self.path):  # of a rotation that was cut off here
            if kept.samefile(self.path):
                kept.unlink()
        self.path.with_name(f"{self.path.name}.{self.head.seq:012}").hardlink_to(
            self.path
        )
        new = self.path.with_name(f"{self.path.name}.new")
        new.unlink(missing_ok=True)
        file = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            first = {"id": uuid4().hex, "time": time.time(), "action": "rotate"}
            _write_through(file, self._linked([first], self.head))
        finally:
            os.close(file)
        new.replace(self.path)

    def _last(self, file: int) -> Head:
        """Return the head, after removing half a line that a crash has left."""
        size, length = os.fstat(file).st_size, TAIL_BYTES
        while True:
            start = max(0, size - length)
            os.lseek(file, start, os.SEEK_SET)
            whole, newline, torn = os.read(file, length).rpartition(b"\n")
            _, is_behind_another, last = whole.rpartition(b"\n")
            if is_behind_another or start == 0:
                break
            length *= 2
        if torn:  # it was never acknowledged
            os.ftruncate(file, size - len(torn))
        if not newline:
            return Head()
        try:
            return head_of(json.loads(last))
        except (ValueError, KeyError, TypeError) as error:
            raise AuditError(
                f"the last line of the audit trail {str(self.path)!r} is no record: "
                "move the file away, and find out who has changed it"
            ) from error


def _write_through(file: int, lines: Sequence[str]) -> None:
    data = "".join(f"{line}\n" for line in lines).encode()
    while data:
        data = data[os.write(file, data) :]
    os.fsync(file)


def archives(path: Path) -> list[Path]:
    """Return the files that a trail was in before, the oldest first.

    Args:
        path: The file that it is in now.
    """
    found = path.parent.glob(f"{glob.escape(path.name)}.*")
    return sorted(each for each in found if each.suffix[1:].isdecimal())


def read_file(path: str | Path) -> Iterator[bytes]:
    """Return the records in a file, and before them those that it continues.

    Raises:
        ConfigurationError: It cannot be read.
    """
    path = Path(path)
    try:
        for kept in archives(path):
            if not kept.samefile(path):
                with kept.open("rb") as file:
                    yield from file
        with path.open("rb") as file:
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
        """Begin a chain; a level that nobody has set is INFO from then on."""
        if audit_logger.level == logging.NOTSET:
            audit_logger.setLevel(logging.INFO)
        self._check()
        self.head = Head()

    async def write(self, records: Sequence[dict[str, Any]]) -> None:
        """Log records."""
        self._check()
        for line in self._linked(records, self.head):
            # As it is: masking a part would break its hash, and it holds no text.
            audit_logger.info("%s", line, extra=fields("audit", _redacted=True))

    def _check(self) -> None:
        """Refuse what logging would drop without a word."""
        if audit_logger.isEnabledFor(logging.INFO) and audit_logger.hasHandlers():
            return
        raise AuditError(
            f"the logger {audit_logger.name} drops the audit trail: give it a handler, "
            "let INFO through, and mind that logging.config disables the loggers that "
            "exist unless disable_existing_loggers is False"
        )


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
