"""Where a move stands, in a small file: a run that was cut off goes on from there."""

from __future__ import annotations

import json
import os
import stat
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from tracker_store_async.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

STATE_FORMAT = 1

SAVE_SECONDS = 1.0
"""How often the file is written while a move is under way."""


def open_private(path: str, flags: int) -> int:
    """Open a file, for `opener`; a new one is readable by its owner alone."""
    return os.open(path, flags, 0o600)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Have a file written beside its place, and put there whole or not at all.

    Args:
        path: The file; it is replaced if it is there, and then keeps its rights. A new
            one is for its owner alone: it holds ids of conversations.

    Yields:
        Where to write; an empty file is there.
    """
    temporary = path.with_name(f"{path.name}.{uuid4().hex[:8]}.tmp")
    try:
        with open(temporary, "wb", opener=open_private), suppress(OSError):
            temporary.chmod(stat.S_IMODE(path.stat().st_mode))
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    sync_directory(path.parent)


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, and durably; see `replacing`.

    Args:
        path: The file.
        content: All of it.
    """
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def sync_directory(directory: Path) -> None:
    """Have the names in a directory survive a power cut, where the system can."""
    with suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


class StateFile:
    """Remembers a cursor, and what the move it belongs to is.

    Args:
        path: The file, or None to remember nothing.
        job: What the move is; another one does not go on from here.
    """

    def __init__(self, path: Path | None, job: Mapping[str, Any]) -> None:
        self._path = path
        self._job = {"format": STATE_FORMAT, **job}
        self._saved_at = 0.0
        self._unsaved: dict[str, Any] | None = None

    def load(self) -> dict[str, Any]:
        """Return what was remembered, or nothing.

        Raises:
            ConfigurationError: The file belongs to another move, or is none of ours.
        """
        if self._path is None or not self._path.exists():
            return {}
        try:
            found = json.loads(self._path.read_text(encoding="utf-8"))
            job, progress = found["job"], found["progress"]
        except (ValueError, LookupError, TypeError):
            raise ConfigurationError(
                f"{str(self._path)!r} is not the state of a move: delete it to start "
                "from the beginning, or name another file"
            ) from None
        if job != self._job or not isinstance(progress, dict):
            raise ConfigurationError(
                f"{str(self._path)!r} belongs to another move: delete it to start from "
                "the beginning, or name another file"
            )
        return progress

    def note(self, progress: dict[str, Any]) -> None:
        """Remember how far the move is; the file is written now and then."""
        self._unsaved = progress
        if time.monotonic() - self._saved_at >= SAVE_SECONDS:
            self.save()

    def save(self) -> None:
        """Write what was noted and is not in the file yet."""
        progress, self._unsaved = self._unsaved, None
        if self._path is None or progress is None:
            return
        content = {"job": self._job, "progress": progress}
        write_atomically(self._path, f"{json.dumps(content)}\n".encode())
        self._saved_at = time.monotonic()

    def finish(self) -> None:
        """Forget it: the move is at its end."""
        self._unsaved = None
        if self._path is not None:
            self._path.unlink(missing_ok=True)
