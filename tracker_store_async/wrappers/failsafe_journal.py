"""The files of a journal: each belongs to one process, and may outlive it."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tracker_store_async.config import EndpointConfig
from tracker_store_async.errors import ConfigurationError, StoreUnavailableError
from tracker_store_async.store import TrackerStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MAX_PROCESSES = 256
"""Most processes that share one journal path."""


@dataclass(frozen=True, slots=True)
class JournalFile:
    """A file that is ours until the lock is released, or the process ends.

    Attributes:
        path: The SQLite file.
        lock: Descriptor of the open lock file beside it.
    """

    path: Path
    lock: int

    def release(self) -> None:
        """Let another process have it."""
        with suppress(OSError):
            os.close(self.lock)


def store_in(
    file: JournalFile, wrap: Callable[[TrackerStore], TrackerStore] | None
) -> TrackerStore:
    """Return the store of a file, which publishes nothing.

    Args:
        file: The file.
        wrap: Returns it in a wrapper of its own, or None.
    """
    config = EndpointConfig(type="sql", dialect="sqlite", db=str(file.path))
    store = TrackerStore.create(config)
    store._is_wrapped = True
    return store if wrap is None else wrap(store)


def check_directory(path: str) -> None:
    """Check that there is a directory for a journal; nothing is created.

    Raises:
        ConfigurationError: There is none.
    """
    parent = Path(path).parent
    if not parent.is_dir():
        raise ConfigurationError(
            f"journal: the directory {str(parent)!r} does not exist: create it"
        )


def claim_files(path: str) -> list[JournalFile]:
    """Take the first file that is free, and every other one that a process has left.

    The path itself is the first, then `-2`, `-3` ... before its suffix. So all
    processes of one machine can be given the same path, and what one that was killed
    has left is taken up by the next that starts. It blocks: run it in a thread.

    Args:
        path: Path of the journal.

    Returns:
        Our own file, then those that were left.

    Raises:
        ConfigurationError: There is no such directory, or too many processes.
        StoreUnavailableError: The file cannot be made.
    """
    check_directory(path)
    first = Path(path)
    claimed: list[JournalFile] = []
    try:
        for candidate in _candidates(first):
            if claimed and not candidate.exists():
                break
            if (lock := _try_lock(candidate)) is not None:
                claimed.append(JournalFile(candidate, lock))
    except BaseException as error:
        for file in claimed:
            file.release()
        if isinstance(error, OSError):
            raise StoreUnavailableError(
                f"the journal {path!r} cannot be written: {error.strerror}"
            ) from error
        raise
    if not claimed:
        raise ConfigurationError(
            f"journal: more than {MAX_PROCESSES} processes use {path!r}"
        )
    return claimed


def _candidates(first: Path) -> Iterator[Path]:
    yield first
    for number in range(2, MAX_PROCESSES + 1):
        yield first.with_name(f"{first.stem}-{number}{first.suffix}")


def _try_lock(path: Path) -> int | None:
    """Lock the lock file beside a journal; return its descriptor, None if it is taken.

    The lock is the system's: it ends with the process however that ends.
    """
    lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        _lock_exclusively(lock)
    except OSError:
        os.close(lock)
        return None
    return lock


def _lock_exclusively(descriptor: int) -> None:
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
    else:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
