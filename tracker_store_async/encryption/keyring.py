"""Master keys: where they come from, which is in use, and how they wrap data keys."""

from __future__ import annotations

import base64
import binascii
import inspect
import os
import re
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TypeAlias

from cryptography.exceptions import InvalidTag
from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tracker_store_async.errors import ConfigurationError, EncryptionKeyError
from tracker_store_async.threads import in_thread

Keys: TypeAlias = Mapping[str, str]
"""Key id to key: 32 bytes in base64, or `fernet:` and a Fernet key."""

KeySource: TypeAlias = Callable[[], Keys | Awaitable[Keys]]
"""Returns the keys of now; sync (then it is called in a thread) or async."""

KEY_BYTES = 32
NONCE_BYTES = 12
FERNET = "fernet:"
KEY_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


def generate_key() -> str:
    """Return a new master key: 32 random bytes in base64."""
    return base64.b64encode(os.urandom(KEY_BYTES)).decode()


class MasterKey:
    """One master key, which wraps the data keys of conversations.

    Args:
        key_id: Its name, which is stored beside what it wraps.
        text: 32 bytes in base64 for AES-256-GCM, or `fernet:` and a Fernet key.

    Raises:
        ConfigurationError: It is no key; the text never shows it.
    """

    def __init__(self, key_id: str, text: str) -> None:
        if not isinstance(key_id, str) or not KEY_ID.fullmatch(key_id):
            raise ConfigurationError(
                "encryption: the id of a key must be 1 to 64 letters, digits, '-' or "
                "'_'"
            )
        self.key_id = key_id
        self._fernet: Fernet | None = None
        self._aes: AESGCM | None = None
        is_fernet = isinstance(text, str) and text.startswith(FERNET)
        try:
            if is_fernet:
                self._fernet = Fernet(text.removeprefix(FERNET))
            else:
                self._aes = AESGCM(_decoded(text))
        except (ValueError, TypeError, binascii.Error):
            # The original may hold the key: it is not chained.
            raise ConfigurationError(
                f"encryption: the key {key_id!r} must be 32 bytes in base64, or "
                "'fernet:' and a Fernet key: `tracker-store encryption new-key` "
                "makes one"
            ) from None

    def wrap(self, data_key: bytes, sender_id: str) -> str:
        """Return a data key as it is stored: `<key id>.<base64>`."""
        owner = sender_id.encode()
        if self._fernet is not None:
            sealed = self._fernet.encrypt(data_key + owner)
        else:
            assert self._aes is not None  # noqa: S101 - one of the two is set
            nonce = os.urandom(NONCE_BYTES)
            sealed = base64.b64encode(nonce + self._aes.encrypt(nonce, data_key, owner))
        return f"{self.key_id}.{sealed.decode()}"

    def unwrap(self, sealed: str, sender_id: str) -> bytes:
        """Return the data key in what `wrap` returned, without its key id.

        Raises:
            EncryptionKeyError: It is another key, or another conversation's.
        """
        owner = sender_id.encode()
        try:
            if self._fernet is not None:
                plain = self._fernet.decrypt(sealed)
                if plain[KEY_BYTES:] == owner:
                    return plain[:KEY_BYTES]
            else:
                assert self._aes is not None  # noqa: S101 - one of the two is set
                raw = base64.b64decode(sealed, validate=True)
                nonce, text = raw[:NONCE_BYTES], raw[NONCE_BYTES:]
                return self._aes.decrypt(nonce, text, owner)
        except (InvalidTag, InvalidToken, ValueError):
            pass
        raise EncryptionKeyError(
            f"the data key of conversation {sender_id!r} does not open with the key "
            f"{self.key_id!r}: the configured key is not the one that it was sealed "
            "with, or the stored data were changed"
        )

    def __repr__(self) -> str:
        """Show its id and nothing else."""
        return f"MasterKey({self.key_id!r})"


class KeyRing:
    """The master keys: the active one seals, all of them open.

    Args:
        source: The keys, or what returns them. The first one is active.
        active: Id of the active key in place of the first.

    Raises:
        ConfigurationError: There is no key, or one is not a key.
    """

    def __init__(self, source: Keys | KeySource, *, active: str | None = None) -> None:
        self._source: KeySource | None = None
        self._wanted_active = active
        self._keys: dict[str, MasterKey] = {}
        if isinstance(source, Mapping):
            self._take(source)
        elif callable(source):
            self._source = source
        else:
            raise ConfigurationError(
                "encryption: keys must be a mapping of key id to key, or a callable "
                "that returns one"
            )

    @property
    def active(self) -> MasterKey:
        """The key that seals what is new."""
        wanted = self._wanted_active or next(iter(self._keys))
        return self._keys[wanted]

    @property
    def key_ids(self) -> list[str]:
        """The ids of all keys."""
        return list(self._keys)

    async def open(self) -> None:
        """Ask the source for the keys, if there is one and it was not asked yet."""
        if not self._keys:
            await self.refresh()

    async def refresh(self) -> bool:
        """Ask the source again; return whether there is one.

        Raises:
            ConfigurationError: What it returned is no mapping of keys.
            EncryptionKeyError: It failed; the text says no more than how.
        """
        source = self._source
        if source is None:
            return False
        try:
            if inspect.iscoroutinefunction(source):
                found = await source()
            else:
                found = await in_thread(source)
                if inspect.isawaitable(found):
                    found = await found
        except ConfigurationError:
            raise
        except Exception as error:  # noqa: BLE001 - any failure of somebody else's code
            # What it raised may hold a secret: it is not chained.
            raise EncryptionKeyError(
                "the encryption keys cannot be had: their source raised "
                f"{type(error).__name__}"
            ) from None
        self._take(found)
        return True

    async def find(self, key_id: str) -> MasterKey:
        """Return a key; the source is asked again for one that is not known.

        Raises:
            EncryptionKeyError: There is no such key.
        """
        if key_id not in self._keys:
            await self.refresh()
        try:
            return self._keys[key_id]
        except KeyError:
            raise EncryptionKeyError(
                f"the key {key_id!r} is needed to open what is stored and is not "
                f"configured (there is {', '.join(self._keys)}): add it to "
                "`encryption.keys`"
            ) from None

    def _take(self, found: object) -> None:
        if not isinstance(found, Mapping) or not found:
            raise ConfigurationError(
                "encryption: there must be at least one key, as a mapping of key id "
                "to key"
            )
        keys = {str(name): MasterKey(str(name), text) for name, text in found.items()}
        if self._wanted_active is not None and self._wanted_active not in keys:
            raise ConfigurationError(
                f"encryption: active_key is {self._wanted_active!r}, which is not one "
                f"of the keys: {', '.join(keys)}"
            )
        self._keys = keys

    def __repr__(self) -> str:
        """Show ids and nothing else."""
        return f"KeyRing({', '.join(self._keys)})"


class KeysFile:
    """A source of keys: a file of lines `id=key`; the first is the active one.

    Args:
        path: The file; it is read anew when a key is not known.
    """

    def __init__(self, path: str) -> None:
        self._path = Path(path)

    def __call__(self) -> dict[str, str]:
        """Return the keys that the file holds now.

        Raises:
            ConfigurationError: It cannot be read, or a line is not `id=key`.
        """
        try:
            text = self._path.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(
                f"encryption.keys_file: {str(self._path)!r} cannot be read: "
                f"{type(error).__name__}"
            ) from None
        return parse_keys(text, f"encryption.keys_file: {str(self._path)!r}")


def keys_from_environment(name: str) -> dict[str, str]:
    """Return the keys in an environment variable: `id=key`, parted by commas.

    Raises:
        ConfigurationError: It is not set, or an entry is not `id=key`.
    """
    text = os.environ.get(name)
    if not text:
        raise ConfigurationError(
            f"encryption.keys_env: the environment variable {name} is not set: it "
            "holds entries id=key, parted by commas"
        )
    return parse_keys(text, f"encryption.keys_env: {name}")


def parse_keys(text: str, where: str) -> dict[str, str]:
    """Return the keys in a text of entries `id=key`, parted by commas or line ends.

    Raises:
        ConfigurationError: An entry is not `id=key`; the text does not show it.
    """
    keys: dict[str, str] = {}
    entries = [entry.strip() for entry in re.split(r"[,\n]", text)]
    for number, entry in enumerate(e for e in entries if e and not e.startswith("#")):
        name, equals, key = entry.partition("=")
        if not equals or name.strip() in keys:
            raise ConfigurationError(
                f"{where}: entry {number + 1} is not id=key with an id of its own"
            )
        keys[name.strip()] = key.strip()
    return keys


def _decoded(text: object) -> bytes:
    if not isinstance(text, str):
        raise TypeError
    raw = base64.b64decode(text.replace("-", "+").replace("_", "/"), validate=True)
    if len(raw) != KEY_BYTES:
        raise ValueError
    return raw
