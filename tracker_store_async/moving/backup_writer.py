"""Writing a backup: beside its place, in members that are each complete, then moved.

Every member of the file can be decompressed by itself. What was written up to one is
kept by a run that is cut off, with a note of where it was: the next one goes on there.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
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
from tracker_store_async.moving.state import (
    open_private,
    sync_directory,
    write_atomically,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

try:
    import fcntl
except ImportError:  # not on Windows: there nobody keeps another backup out
    fcntl = None  # type: ignore[assignment]

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
        began_at: When the first run began, in seconds since the epoch: what was updated
            before then is in it as it was then, or later.

    Raises:
        ConfigurationError: The file is there already, another backup is being written
            to it, or its name does not say how it is compressed.
    """

    def __init__(self, path: Path, job: Mapping[str, Any]) -> None:
        self._compression = compression_of(path)
        self._path = path
        self._refuse_to_overwrite()
        if not path.parent.is_dir():
            raise ConfigurationError(
                f"the directory {str(path.parent)!r} does not exist: create it"
            )
        self._part = path.with_name(f"{path.name}.part")
        self._note = path.with_name(f"{path.name}.part.state")
        self._job = dict(job)
        self._hash = hashlib.sha256()
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self.cursor: str | None = None
        self.conversations = 0
        self.events = 0
        self.began_at = time.time()
        self._file = self._locked()
        try:
            self._refuse_to_overwrite()  # one that has just been finished
        except ConfigurationError:
            self.close(keep=False)
            raise
        try:
            self._go_on()
        except BaseException:
            self._file.close()
            raise

    def _refuse_to_overwrite(self) -> None:
        if self._path.exists():
            raise ConfigurationError(
                f"there is a file {str(self._path)!r} already: name another one"
            )

    def _locked(self) -> IO[bytes]:
        """Open what is written so far, for us alone until it is closed."""
        while True:
            file = open(self._part, "ab", opener=open_private)  # noqa: SIM115
            try:
                _lock(file)
            except BlockingIOError:
                file.close()
                raise ConfigurationError(
                    f"another backup is being written to {str(self._path)!r}: wait for "
                    "it, or name another file"
                ) from None
            # Whoever had the lock may have moved it to its place, or removed it.
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file.fileno()), self._part.stat()):
                    _make_private(file, self._part)
                    return file
            file.close()

    def _go_on(self) -> None:
        """Go on behind what an earlier run has noted, or begin."""
        noted = self._noted()
        self._file.truncate(0 if noted is None else noted["size_bytes"])
        self._file.seek(0, os.SEEK_END)
        if noted is None:
            return
        with reading(self._part) as file:
            while piece := file.read(1 << 20):
                self._hash.update(piece)
        self.cursor, self.began_at = noted["cursor"], noted["began_at"]
        self.conversations, self.events = noted["conversations"], noted["events"]

    def _noted(self) -> dict[str, Any] | None:
        try:
            noted = json.loads(self._note.read_text(encoding="utf-8"))
            is_usable = (
                noted["job"] == self._job
                and isinstance(noted["began_at"], float)
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
            "began_at": self.began_at,
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
        if os.name == "nt":  # Windows moves no open file
            self._file.close()
        self._part.replace(self._path)  # while nobody else can have the lock
        self._file.close()
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
        if os.name == "nt":
            self._file.close()
        if not keep or not self._note.exists():
            for file in (self._part, self._note):
                with suppress(OSError):
                    Path(file).unlink()
        self._file.close()


def _make_private(file: IO[bytes], path: Path) -> None:
    """Take from others what an earlier version, or a umask, left them of a file."""
    if os.fstat(file.fileno()).st_mode & 0o077:
        with suppress(OSError):  # such as on a file system without rights
            path.chmod(0o600)


def _lock(file: IO[bytes]) -> None:
    """Keep others out, where the system and the file system can.

    Raises:
        BlockingIOError: Somebody has it.
    """
    if fcntl is not None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise
        except OSError:  # such as on NFS without locks
            return
