"""What the backups of `--since-last` have of each conversation, in a small file.

No time tells what a backup lacks: a conversation that was restored, migrated or
anonymised keeps the time of its last event. So the file holds a digest of what each
conversation was when it was backed up, under a digest of its id, and a conversation is
backed up when that is not what it is now. It is a SQLite database, so that only a page
of it is in memory.
"""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Protocol

from tracker_store_async.errors import ConfigurationError
from tracker_store_async.moving.backup_file import conversations_in
from tracker_store_async.moving.state import replacing

if TYPE_CHECKING:
    from pathlib import Path

DIGEST_BYTES = 16

TABLES = """
CREATE TABLE IF NOT EXISTS conversations (
    id BLOB PRIMARY KEY, state BLOB NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS about (source TEXT NOT NULL, checksum TEXT NOT NULL);
"""


class Header(Protocol):
    """What tells one state of a conversation from another."""

    @property
    def version(self) -> int: ...
    @property
    def created_at(self) -> float: ...
    @property
    def updated_at(self) -> float: ...
    @property
    def user_id(self) -> str | None: ...


def _digest(text: str) -> bytes:
    content = text.encode(errors="surrogatepass")
    return hashlib.sha256(content).digest()[:DIGEST_BYTES]


def state_of(header: Header) -> str:
    """Return a digest of what a conversation is: it changes when that does."""
    times = float(header.created_at), float(header.updated_at)
    return _digest(repr((header.version, *times, header.user_id))).hex()


class LastBackup:
    """What the backups of one file of `--since-last` have; reading it blocks shortly.

    Args:
        path: The file; where there is none, there was no backup.
        source: The store that is backed up.

    Attributes:
        checksum: That of the content of the last backup; None before the first.

    Raises:
        ConfigurationError: The file is of another store, or none of ours, or cannot be
            written where it is to be.
    """

    def __init__(self, path: Path, source: str) -> None:
        self._path = path
        self._source = source
        self._file: sqlite3.Connection | None = None
        self.checksum: str | None = None
        if path.exists():
            self._open()
        elif not path.parent.is_dir():
            raise ConfigurationError(
                f"the directory {str(path.parent)!r} does not exist: create it"
            )

    def _open(self) -> None:
        uri = f"{self._path.absolute().as_uri()}?mode=ro&immutable=1"
        try:
            self._file = sqlite3.connect(uri, uri=True)
            [(source, self.checksum)] = self._file.execute("SELECT * FROM about")
        except (sqlite3.Error, ValueError):
            self.close()
            raise self._says_nothing() from None
        if source != self._source:
            self.close()
            raise ConfigurationError(
                f"{str(self._path)!r} is of a backup of another store: name another "
                "file"
            )

    def _says_nothing(self) -> ConfigurationError:
        return ConfigurationError(
            f"{str(self._path)!r} does not say what the last backup has: delete it for "
            "a backup of everything, or name another file"
        )

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def has(self, sender_id: str) -> str | None:
        """Return what the backups have of a conversation, as of `state_of`, or None.

        Raises:
            ConfigurationError: The file is damaged.
        """
        if self._file is None:
            return None
        query = "SELECT state FROM conversations WHERE id = ?"
        try:
            found = self._file.execute(query, (_digest(sender_id),)).fetchone()
        except sqlite3.Error:
            raise self._says_nothing() from None
        return None if found is None else bytes(found[0]).hex()

    def add(self, backup: Path, checksum: str) -> None:
        """Note, once it is closed, what another backup has; it is replaced as a whole.

        Args:
            backup: The backup, which is finished.
            checksum: That of its content.
        """
        with replacing(self._path) as temporary:
            if self._path.exists():
                shutil.copyfile(self._path, temporary)
            with closing(sqlite3.connect(temporary)) as file, file:
                file.execute("PRAGMA journal_mode = MEMORY")
                file.executescript(TABLES)
                file.execute("DELETE FROM about")
                file.execute(
                    "INSERT INTO about VALUES (?, ?)", (self._source, checksum)
                )
                file.executemany(
                    "INSERT OR REPLACE INTO conversations VALUES (?, ?)",
                    (
                        (_digest(sender_id), bytes.fromhex(state_of(header)))
                        for sender_id, header in conversations_in(backup)
                    ),
                )
