"""The file of a backup: JSON Lines, compressed, with a head and a foot.

::

    {"tracker_store_backup": 1, "created_at": "2026-03-14T18:02:11+00:00", ...}
    {"conversation": "alice", "version": 2, "created_at": 1773511331.25, ...}
    {"position":0,"id":"0b7c...","event":{"event": "action", ...}}
    {"position":1,"id":null,"event":{"event": "user", ...}}
    {"end": {"conversations": 1, "events": 2, "sha256": "..."}}

An event stands there as it is stored, to the byte. One that is not JSON, or spans
lines, stands as a JSON string under `text`. A conversation that was erased while it was
read is called off by a line `{"abandoned": ...}` and follows once more, or not at all.

`instead_of` in the line of a conversation is a digest of what an earlier backup has of
it: where a store holds just that, it may give way to another log of the same id.

The foot counts, and has the checksum of everything before it: a file that was cut off,
or changed anywhere, is refused before anything is done with it.
"""

from __future__ import annotations

import hashlib
import io
import json
import zlib
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import IO, TYPE_CHECKING, Any, NoReturn

from tracker_store_async.errors import (
    ConfigurationError,
    MissingExtraError,
    TrackerStoreError,
)
from tracker_store_async.moving.pages import as_text
from tracker_store_async.rows import StoredConversation

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tracker_store_async.rows import StoredRow

BACKUP_FORMAT = 1
"""Version of the format that is written; newer ones are refused."""

GZIP_LEVEL = 3
ZSTD_LEVEL = 3
_GZIP_HEAD = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
"""Of every member: no name, no time, no system."""

_GZIP_MAGIC, _ZSTD_MAGIC = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"

HEADER_FIELDS = (
    "version",
    "first_position",
    "session_start",
    "created_at",
    "updated_at",
    "expires_at",
    "user_id",
    "snapshot",
)
_EVENT = ',"event":'


class DamagedBackupError(TrackerStoreError):
    """A backup is cut off, was changed, or is no backup."""


def compression_of(path: Path) -> str:
    """Return how a backup of this name is compressed: `gzip` or `zstd`.

    Raises:
        ConfigurationError: The name does not say it.
        MissingExtraError: The package for it is not installed.
    """
    name = path.name.lower()
    if name.endswith(".gz"):
        return "gzip"
    if name.endswith(".zst"):
        zstandard_module()
        return "zstd"
    raise ConfigurationError(
        f"the name of a backup ends with .jsonl.gz or .jsonl.zst, not {path.name!r}"
    )


def zstandard_module() -> Any:
    """Return the package.

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        import zstandard
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            "a backup of the name .zst needs the package 'zstandard': "
            "pip install 'tracker-store-async[zstd]'; .jsonl.gz needs none"
        ) from error
    return zstandard


# -- lines -----------------------------------------------------------------------------


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def line_of(value: dict[str, Any]) -> bytes:
    """Return a line of the file that is no event."""
    return f"{_dump(value)}\n".encode(errors="surrogatepass")


def conversation_line(
    sender_id: str, header: StoredConversation, instead_of: str | None = None
) -> bytes:
    """Return the line that begins a conversation.

    Args:
        sender_id: The conversation.
        header: What is known of it.
        instead_of: What an earlier backup has of it, or None.
    """
    values = {name: getattr(header, name) for name in HEADER_FIELDS}
    values["snapshot"] = as_text(header.snapshot) if header.snapshot else None
    if instead_of is not None:
        values["instead_of"] = instead_of
    return line_of({"conversation": sender_id, **values})


def event_line(position: int, row: StoredRow) -> bytes:
    """Return the line of an event."""
    event_id, data = row
    text = as_text(data)
    begin = f'{{"position":{position},"id":{json.dumps(event_id)}'
    if _is_one_line_of_json(text):
        return f"{begin}{_EVENT}{text}}}\n".encode()
    return f'{begin},"text":{json.dumps(text)}}}\n'.encode()


def _is_one_line_of_json(text: str) -> bool:
    if "\n" in text or "\r" in text:
        return False
    try:
        json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return False
    return True


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)  # NaN and the like are no JSON


def parse_event(line: bytes) -> tuple[int, StoredRow]:
    """Return position and row of an event's line.

    Raises:
        ValueError: It is none.
    """
    text = line.decode()
    # Quotes in an id are escaped, so this stands nowhere before its place.
    begin, separator, event = text.partition(_EVENT)
    if separator:
        head = json.loads(f"{begin}}}")
        return head["position"], (head["id"], event.rstrip("\n")[:-1])
    head = json.loads(text)
    return head["position"], (head["id"], head["text"])


# -- reading ---------------------------------------------------------------------------


class _Members(io.RawIOBase):
    """Decompresses member after member, each of which must be complete.

    The readers of the libraries take a last member without its end for whole, and pass
    over what gzip's head says of times and names: a byte may change there unseen.
    """

    def __init__(self, raw: IO[bytes], new: Any, head: bytes) -> None:
        self._raw = raw
        self._new = new
        self._head = head
        self._member: Any = None
        self._rest = self._ready = b""

    def readable(self) -> bool:
        """Say so."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer with what comes next."""
        while not self._ready:
            piece = self._rest or self._raw.read(1 << 16)
            self._rest = b""
            if not piece:
                if self._member is not None:
                    raise EOFError("the last member is not complete")
                return 0
            if self._member is None:
                while len(piece) < len(self._head) and (more := self._raw.read(64)):
                    piece += more
                if not piece.startswith(self._head):
                    raise ValueError("the head of a member is not ours")
                self._member = self._new()
            self._ready = self._member.decompress(piece)
            if self._member.eof:
                self._rest, self._member = self._member.unused_data, None
        count = min(len(buffer), len(self._ready))
        buffer[:count], self._ready = self._ready[:count], self._ready[count:]
        return count


def gzip_member(content: bytes) -> bytes:
    """Return content as one member of a gzip file, with the same head everywhere."""
    return _GZIP_HEAD + zlib.compress(content, GZIP_LEVEL, wbits=31)[len(_GZIP_HEAD) :]


@contextmanager
def reading(path: Path) -> Iterator[IO[bytes]]:
    """Open a backup, decompressed, whatever it is compressed with.

    Raises:
        DamagedBackupError: It is compressed with neither.
    """
    with path.open("rb") as raw:
        magic = raw.read(4)
        raw.seek(0)
        if magic[:2] == _GZIP_MAGIC:
            new = partial(zlib.decompressobj, wbits=31)
            yield io.BufferedReader(_Members(raw, new, _GZIP_HEAD), 1 << 16)
        elif magic == _ZSTD_MAGIC:
            new = zstandard_module().ZstdDecompressor().decompressobj
            yield io.BufferedReader(_Members(raw, new, _ZSTD_MAGIC), 1 << 16)
        else:
            raise DamagedBackupError(f"{str(path)!r} is no backup, or is damaged")


@dataclass(slots=True)
class Manifest:
    """What a backup that was checked says of itself.

    Attributes:
        head: Its first line.
        conversations: Conversations in it.
        events: Events in it.
        checksum: SHA-256 of everything before the last line.
        abandoned: Which of the conversations, counted from 0, were called off.
    """

    head: dict[str, Any]
    conversations: int = 0
    events: int = 0
    checksum: str = ""
    abandoned: set[int] = field(default_factory=set)


def check_backup(path: Path) -> Manifest:
    """Read a backup from its first to its last byte; it blocks.

    Raises:
        DamagedBackupError: It is cut off, was changed, or is no backup.
        ConfigurationError: A newer version of this library wrote it.
    """
    try:
        with reading(path) as file:
            return _Check(path).run(file)
    except (DamagedBackupError, ConfigurationError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise _damaged(path, "it cannot be decompressed") from None


def _damaged(path: Path, what: str) -> DamagedBackupError:
    return DamagedBackupError(
        f"the backup {str(path)!r} is damaged ({what}): nothing was written"
    )


class _Check:
    """Follows the lines of a backup and checks that they belong together."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._hash = hashlib.sha256()
        self._count = -1  # number of the conversation that is being read
        self._next = self._end = 0  # positions that its events must have
        self._events = 0

    def run(self, file: IO[bytes]) -> Manifest:
        manifest = Manifest(self._head(file.readline()))
        for line in file:
            if line.startswith(b'{"end":'):
                self._foot(manifest, line)
                if file.readline():
                    raise _damaged(self._path, "it goes on behind its end")
                return manifest
            self._hash.update(line)
            try:
                self._follow(manifest, line)
            except (ValueError, LookupError, TypeError):
                raise _damaged(self._path, "a line is not what it should be") from None
        raise _damaged(self._path, "its end is missing")

    def _head(self, line: bytes) -> dict[str, Any]:
        self._hash.update(line)
        try:
            head: dict[str, Any] = json.loads(line)
            version = head["tracker_store_backup"]
        except (ValueError, LookupError, TypeError):
            raise _damaged(self._path, "its first line is missing") from None
        if type(version) is not int or version > BACKUP_FORMAT:
            raise ConfigurationError(
                f"the backup {str(self._path)!r} has format {version}, this version "
                f"knows {BACKUP_FORMAT}: update tracker_store_async"
            )
        return head

    def _follow(self, manifest: Manifest, line: bytes) -> None:
        if line.startswith(b'{"position":'):
            position, _ = parse_event(line)
            if position != self._next or position >= self._end:
                raise ValueError
            self._next += 1
            self._events += 1
            return
        value = json.loads(line)
        if "abandoned" in value:
            manifest.abandoned.add(self._count)
            self._next, self._events = self._end, 0
            return
        if self._next != self._end:
            raise ValueError
        manifest.events += self._events
        self._events = 0
        self._count += 1
        self._next, self._end = value["first_position"], value["version"]
        header_of(value)

    def _foot(self, manifest: Manifest, line: bytes) -> None:
        try:
            foot = json.loads(line)["end"]
            told = (foot["conversations"], foot["events"], foot["sha256"])
        except (ValueError, LookupError, TypeError):
            raise _damaged(self._path, "its last line is not readable") from None
        manifest.events += self._events
        manifest.conversations = self._count + 1 - len(manifest.abandoned)
        manifest.checksum = self._hash.hexdigest()
        if told[2] != manifest.checksum:
            raise _damaged(self._path, "its checksum differs")
        counted = (manifest.conversations, manifest.events)
        if self._next != self._end or told[:2] != counted:
            raise _damaged(self._path, "it does not hold what it counts")


def header_of(value: dict[str, Any]) -> tuple[str, StoredConversation]:
    """Return id and header that a conversation's line tells.

    Raises:
        LookupError: A field is missing.
    """
    fields = {name: value[name] for name in HEADER_FIELDS}
    return value["conversation"], StoredConversation(**fields)


def conversations_in(path: Path) -> Iterator[tuple[str, StoredConversation]]:
    """Yield id and header of the conversations in a backup that is whole; it blocks."""
    last: dict[str, Any] | None = None
    with reading(path) as file:
        for line in file:
            if line.startswith(b'{"abandoned":'):
                last = None
            elif line.startswith((b'{"conversation":', b'{"end":')):
                if last is not None:
                    yield header_of(last)
                last = json.loads(line)
