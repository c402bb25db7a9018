"""Data keys, and the stored text of what they seal.

A sealed row is a JSON string, so no reader takes it for an event, and a store without
the key says that it is encrypted. A sealed snapshot is a JSON object that also carries
the data key, wrapped by a master key, or the id under which another store keeps it::

    "sealed:1:<base64 of nonce and AES-256-GCM text>"
    {"sealed": 1, "data_key": "<key id>.<base64>", "text": "<base64>"}
    {"sealed": 1, "data_key_id": "<32 hex digits>", "text": "<base64>"}
    {"sealed": 1, "data_key": ...}  where a copy without a snapshot is stored

What is authenticated beside the text is where it stands: sender id, position and event
id of a row; sender id, version and start of the session of a snapshot. So a row that is
moved, swapped or copied to another conversation does not open.
"""

from __future__ import annotations

import base64
import json
import os
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tracker_store_async.encryption.keyring import KEY_BYTES, NONCE_BYTES

FORMAT = 1
ROW_PREFIX = f'"sealed:{FORMAT}:'
ROW_PREFIX_BYTES = ROW_PREFIX.encode()
ENVELOPE_PREFIX = '{"sealed":'
TAG_BYTES = 16


class DoesNotOpenError(ValueError):
    """A text was changed or moved, or was sealed with another key."""


class DataKey:
    """The key of one conversation.

    Args:
        secret: Its 32 bytes.
        reference: The member of the envelope that leads to it: `data_key` and the
            wrapped key, or `data_key_id` and its id.
    """

    __slots__ = ("_cipher", "reference", "secret")

    def __init__(self, secret: bytes, reference: tuple[str, str]) -> None:
        self.secret = secret
        self.reference = reference
        self._cipher = AESGCM(secret)

    def seal_row(
        self, data: str, sender_id: str, position: int, event_id: str | None
    ) -> str:
        """Return the stored text of an event's JSON."""
        sealed = self._seal(data.encode(), row_place(sender_id, position, event_id))
        return f'{ROW_PREFIX}{sealed}"'

    def open_row(
        self, stored: str | bytes, sender_id: str, position: int, event_id: str | None
    ) -> bytes:
        """Return the JSON of a sealed row.

        Raises:
            DoesNotOpenError: It is not what was sealed here.
        """
        start = len(ROW_PREFIX)
        return self._open(stored[start:-1], row_place(sender_id, position, event_id))

    def seal_snapshot(
        self, snapshot: str | None, sender_id: str, version: int, session_start: int
    ) -> str:
        """Return the stored text of a snapshot, with what leads to this key.

        Where there is none, as in a copy that is not complete, it leads to the key
        alone.
        """
        place = snapshot_place(sender_id, version, session_start)
        name, value = self.reference
        envelope = {"sealed": FORMAT, name: value}
        if snapshot is not None:
            envelope["text"] = self._seal(snapshot.encode(), place)
        return json.dumps(envelope, separators=(",", ":"))

    def open_snapshot(
        self, text: str, sender_id: str, version: int, session_start: int
    ) -> bytes:
        """Return the snapshot in an envelope's `text`.

        Raises:
            DoesNotOpenError: It is not what was sealed here.
        """
        return self._open(text, snapshot_place(sender_id, version, session_start))

    def _seal(self, plain: bytes, place: bytes) -> str:
        nonce = os.urandom(NONCE_BYTES)
        return base64.b64encode(
            nonce + self._cipher.encrypt(nonce, plain, place)
        ).decode()

    def _open(self, text: str | bytes, place: bytes) -> bytes:
        try:
            raw = base64.b64decode(text, validate=True)
            return self._cipher.decrypt(raw[:NONCE_BYTES], raw[NONCE_BYTES:], place)
        except (InvalidTag, ValueError):
            raise DoesNotOpenError from None

    def __repr__(self) -> str:
        """Show nothing of the key."""
        return f"DataKey({self.reference[0]})"


@dataclass(frozen=True, slots=True)
class Envelope:
    """A sealed snapshot as it is stored.

    Attributes:
        reference: What leads to the data key.
        text: The sealed snapshot, or None if there is none yet.
    """

    reference: tuple[str, str]
    text: str | None


def new_secret() -> bytes:
    """Return the bytes of a new data key."""
    return os.urandom(KEY_BYTES)


def read_envelope(snapshot: str | bytes | None) -> Envelope | None:
    """Return the envelope that a stored snapshot is, or None if it is plain.

    Raises:
        DoesNotOpenError: It is sealed in a way that this version does not know.
    """
    text = snapshot.decode() if isinstance(snapshot, bytes) else snapshot
    if text is None or not text.startswith(ENVELOPE_PREFIX):
        return None
    try:
        envelope = json.loads(text)
        names = [name for name in ("data_key", "data_key_id") if name in envelope]
        if envelope["sealed"] == FORMAT and len(names) == 1:
            reference, text = envelope[names[0]], envelope.get("text")
            if isinstance(reference, str) and isinstance(text, str | None):
                return Envelope((names[0], reference), text)
    except (ValueError, KeyError, TypeError):
        pass
    raise DoesNotOpenError


def is_sealed_row(data: str | bytes) -> bool:
    """Whether the stored text of a row is sealed."""
    prefix = ROW_PREFIX if isinstance(data, str) else ROW_PREFIX_BYTES
    return data.startswith(prefix)  # type: ignore[arg-type]


def sealed_length(plain_bytes: int) -> int:
    """Return the length of the base64 of a sealed text."""
    return (plain_bytes + NONCE_BYTES + TAG_BYTES + 2) // 3 * 4


def row_place(sender_id: str, position: int, event_id: str | None) -> bytes:
    """Return what is authenticated beside a row: sender id, position, event id.

    A sender id holds no NUL, so no two places are written alike.
    """
    return f"{sender_id}\0{position}\0{event_id or ''}".encode(errors="surrogatepass")


def snapshot_place(sender_id: str, version: int, session_start: int) -> bytes:
    """Return what is authenticated beside a snapshot."""
    return f"{sender_id}\0snapshot\0{version}\0{session_start}".encode()
