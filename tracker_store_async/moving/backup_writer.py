"""Writing a backup: beside its place, in members that are each complete, then moved.

Every member of the file can be decompressed by itself. What was written up to one is
kept by a run that is cut off, with a note of where it was: the next one goes on there.
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from tracker_store_async.errors import ConfigurationError
from tracker_store_async.moving.backup_file import (
    ZSTD_LEVEL,
    compression_of,
    gzip_member,
    line_of,
    reading,
    zstandard_module,
)
from tracker_store_async.moving.state import sync_directory, write_atomically

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MEMBER_BYTES = 8 * 1024 * 1024
"""Size, before compression, from which a member of the file is complete."""


class BackupWriter:
    """Writes a backup; every method blocks.

    Args:
        path: Where it will be.
        job: What goes into it; a backup of something else is not continued.

    Attributes:
        cursor: Where a run that was cut off had got to, or None.
        conversations: Conversations in the file so far.
        events: Events in it.

    Raises:
        ConfigurationError: The file is there already, or its name does not say how it
            is compressed.
    """

    def __init__(self, path: Path, job: Mapping[str, Any]) -> None:
        self._compression = compression_of(path)
        if path.exists():
            raise ConfigurationError(
                f"there is a file {str(path)!r} already: name another one"
            )
        if not path.parent.is_dir():
            raise ConfigurationError(
                f"the directory {str(path.parent)!r} does not exist: create it"
            )
        self._path = path
        self._part = path.with_name(f"{path.name}.part")
        self._note = path.with_name(f"{path.name}.part.state")
        self._job = dict(job)
        self._hash = hashlib.sha256()
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self.cursor: str | None = None
        self.conversations = 0
        self.events = 0
        self._file: IO[bytes] = self._open()

    def _open(self) -> IO[bytes]:
        noted = self._noted()
        if noted is None:
            return self._part.open("wb")
        os.truncate(self._part, noted["size_bytes"])
        with reading(self._part) as file:
            while piece := file.read(1 << 20):
                self._hash.update(piece)
        self.cursor = noted["cursor"]
        self.conversations, self.events = noted["conversations"], noted["events"]
        return self._part.open("ab")

    def _noted(self) -> dict[str, Any] | None:
        try:
            noted = json.loads(self._note.read_text(encoding="utf-8"))
            is_usable = (
                noted["job"] == self._job
                and self._part.stat().st_size >= noted["size_bytes"] > 0
            )
        except (OSError, ValueError, LookupError, TypeError):
            return None
        return noted if is_usable else None

    @property
    def is_new(self) -> bool:
        """Whether nothing is in it yet."""
        return self.cursor is None and not self._pending and not self._file.tell()

    def write(self, lines: Sequence[bytes]) -> None:
        """Add lines."""
        self._pending += lines
        self._pending_bytes += sum(map(len, lines))

    def reached(self, cursor: str, conversations: int, events: int) -> None:
        """Note that everything up to a cursor was added; a full member is written."""
        self.cursor = cursor
        self.conversations += conversations
        self.events += events
        if self._pending_bytes >= MEMBER_BYTES:
            self.save()

    def spill(self) -> None:
        """Write what is pending where it gets too much, in the midst of a long log."""
        if self._pending_bytes >= MEMBER_BYTES:
            self._write_member()

    def save(self) -> None:
        """Complete a member, and note where it ends."""
        self._write_member()
        self._file.flush()
        os.fsync(self._file.fileno())
        noted = {
            "job": self._job,
            "cursor": self.cursor,
            "size_bytes": self._file.tell(),
            "conversations": self.conversations,
            "events": self.events,
        }
        write_atomically(self._note, json.dumps(noted).encode())

    def _write_member(self) -> None:
        content, self._pending = b"".join(self._pending), []
        self._pending_bytes = 0
        if content:
            self._hash.update(content)
            self._file.write(self._compressed(content))

    def _compressed(self, content: bytes) -> bytes:
        if self._compression == "zstd":
            compressor = zstandard_module().ZstdCompressor(
                level=ZSTD_LEVEL, write_checksum=True
            )
            return bytes(compressor.compress(content))
        return gzip_member(content)

    def finish(self) -> tuple[str, int]:
        """Write the foot and put the file in its place.

        Returns:
            The checksum, and the size of the file in bytes.
        """
        self._write_member()
        checksum = self._hash.hexdigest()
        foot = {
            "conversations": self.conversations,
            "events": self.events,
            "sha256": checksum,
        }
        self._file.write(self._compressed(line_of({"end": foot})))
        self._file.flush()
        os.fsync(self._file.fileno())
        size_bytes = self._file.tell()
        self._file.close()
        self._part.replace(self._path)
        sync_directory(self._path.parent)
        self._note.unlink(missing_ok=True)
        return checksum, size_bytes

    def close(self, *, keep: bool) -> None:
        """Close it before its end.

        Args:
            keep: Whether the next run may go on from what is written.
        """
        if self._file.closed:
            return
        self._file.close()
        if not keep or not self._note.exists():
            for file in (self._part, self._note):
                with suppress(OSError):
                    Path(file).unlink()
