"""Moving data: migrate between stores, back up, restore, export, write transcripts.

Everything here works on any two stores, reads page by page in constant memory, can be
stopped at any moment and run again, and says what it did:

- :func:`migrate` copies conversations exactly, :func:`verify` proves it, and
  :func:`missing_in` lists what the target alone has;
- :func:`backup` writes them into one file, :func:`restore` reads that back; with a
  :class:`LastBackup` only what that backup has not;
- :func:`export_events` replays stored events to an event broker, as `rasa export` does.

The file to read first is `copying.py`: how one conversation is copied.
"""

from __future__ import annotations

from tracker_store_async.moving.backup import backup
from tracker_store_async.moving.backup_file import DamagedBackupError
from tracker_store_async.moving.exporting import export_events
from tracker_store_async.moving.last_backup import LastBackup
from tracker_store_async.moving.migration import migrate
from tracker_store_async.moving.mirroring import missing_in
from tracker_store_async.moving.opening import as_source
from tracker_store_async.moving.reports import (
    BackupReport,
    Conflict,
    ExportReport,
    MoveReport,
)
from tracker_store_async.moving.restoring import restore
from tracker_store_async.moving.transcripts import transcript
from tracker_store_async.moving.verification import verify

__all__ = [
    "BackupReport",
    "Conflict",
    "DamagedBackupError",
    "ExportReport",
    "LastBackup",
    "MoveReport",
    "as_source",
    "backup",
    "export_events",
    "migrate",
    "missing_in",
    "restore",
    "transcript",
    "verify",
]
