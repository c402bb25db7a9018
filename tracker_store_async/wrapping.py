"""The keys of a `tracker_store` section that wrap the store, whatever its type."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeVar

from pydantic import Field, model_validator

from tracker_store_async.errors import ConfigurationError
from tracker_store_async.settings import (
    Count,
    Name,
    Seconds,
    Secret,
    Section,
    parse_settings,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from tracker_store_async.auditing.sinks import Sink
    from tracker_store_async.store import TrackerStore

SectionT = TypeVar("SectionT", bound=Section)


class RetryConfig(Section):
    """The keys of `retry`.

    Attributes:
        attempts: Most attempts, the first included.
        budget_seconds: No attempt begins later than this after the first one.
    """

    attempts: Count | None = None
    budget_seconds: Seconds | None = None


class FailSafeConfig(Section):
    """The keys of `fail_safe`.

    Attributes:
        journal: Path of the SQLite file that keeps what an outage adds.
        fallback: A section like `tracker_store` for the store that does so instead.
        timeout_seconds: Longest time that a request to the primary may take.
        probe_min_seconds: First pause before the primary is tried again.
        probe_max_seconds: Longest of these pauses.
        remembered_conversations: Most conversations to remember.
        remembered_bytes: About how much memory that may take.
        max_backlog_bytes: About how much an outage may leave in the fallback.
    """

    journal: Name | None = None
    fallback: dict[str, Any] | None = None
    timeout_seconds: Seconds | None = None
    probe_min_seconds: Seconds | None = None
    probe_max_seconds: Seconds | None = None
    remembered_conversations: Count | None = None
    remembered_bytes: Count | None = None
    max_backlog_bytes: Count | None = None


class CacheConfig(Section):
    """The keys of `cache`.

    Attributes:
        max_trackers: Most conversations to keep.
        max_bytes: Most bytes to keep, counted as the stored text of the events.
    """

    max_trackers: Count | None = None
    max_bytes: Count | None = None


class EncryptionConfig(Section):
    """The keys of `encryption`: the master keys come from one of the first four.

    Attributes:
        keys: Key id to key.
        keys_file: Path of a file of lines `id=key`.
        keys_env: Name of an environment variable with entries `id=key`.
        keys_callable: Dotted path of what returns the keys, sync or async.
        active_key: Id of the key that seals what is new, in place of the first.
        plaintext: What is done about events and state that are not sealed.
        keep_columns: Columns beside the event that stay readable.
        data_keys: URL of the SQL database that keeps the wrapped data keys.
    """

    keys: dict[str, Secret] | None = None
    keys_file: Name | None = None
    keys_env: Name | None = None
    keys_callable: Name | None = None
    active_key: Name | None = None
    plaintext: Literal["accept", "refuse"] | None = None
    keep_columns: list[Name] | None = None
    data_keys: Secret | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        names = ("keys", "keys_file", "keys_env", "keys_callable")
        if sum(getattr(self, name) is not None for name in names) != 1:
            raise ValueError(
                "needs the master keys from one place: keys, keys_file, keys_env or "
                "keys_callable"
            )
        return self


MIN_FILE_BYTES = 64 * 1024
"""Smallest size at which an audit file may be told to begin a new one."""


class AuditConfig(Section):
    """The keys of `audit`.

    Attributes:
        sink: Where records go.
        path: The file, for the sink `file`.
        max_bytes: Size from which on that begins a new file.
        url: URL of the database, for the sink `sql`.
        key: Secret for the hash chain.
        reads: Whether reads and lists are recorded too.
        default_actor: Who acts where nobody has said.
    """

    sink: Literal["file", "sql", "logger"]
    path: Name | None = None
    max_bytes: Annotated[int, Field(ge=MIN_FILE_BYTES)] | None = None
    url: Secret | None = None
    key: Secret | None = None
    reads: bool | None = None
    default_actor: Name | None = None

    @model_validator(mode="after")
    def _fits_the_sink(self) -> Self:
        needed = {"file": "path", "sql": "url"}.get(self.sink)
        for name in ("path", "url"):
            if (getattr(self, name) is not None) != (name == needed):
                raise ValueError(
                    f"sink {self.sink} needs the key {name}"
                    if name == needed
                    else f"sink {self.sink} has no {name}"
                )
        if self.max_bytes is not None and self.sink != "file":
            raise ValueError(f"sink {self.sink} has no max_bytes")
        return self


@dataclass(frozen=True, slots=True)
class Wrapping:
    """What a store is to be wrapped in.

    Attributes:
        retry: How faults are retried, or None.
        fail_safe: How outages are survived, or None.
        cache: How much is kept decoded, or None.
        encryption: How events and state are sealed, or None.
        audit: How accesses are recorded, or None.
    """

    retry: RetryConfig | None
    fail_safe: FailSafeConfig | None
    cache: CacheConfig | None
    encryption: EncryptionConfig | None = None
    audit: AuditConfig | None = None

    def apply(
        self, store: TrackerStore, create: Callable[[dict[str, Any]], TrackerStore]
    ) -> TrackerStore:
        """Return the store in its wrappers.

        Encryption is innermost, also around what keeps an outage. Then come retries,
        the fail-safe around them, the audit trail, and the cache outside.

        Args:
            store: The store.
            create: Makes the fallback from its section.

        Raises:
            ConfigurationError: The keys contradict each other.
        """
        seal = None if self.encryption is None else sealing(self.encryption)
        if seal is not None:
            store = seal(store)
        if self.retry is not None:
            from tracker_store_async.wrappers.retrying import RetryingTrackerStore

            store = RetryingTrackerStore(store, **_given(self.retry))
        if self.fail_safe is not None:
            from tracker_store_async.wrappers.failsafe import FailSafeTrackerStore

            options = _given(self.fail_safe)
            if "fallback" in options:
                options["fallback"] = create(options["fallback"])
            if seal is not None:
                options["wrap_fallback"] = seal
            store = FailSafeTrackerStore(store, **options)
        if self.audit is not None:
            from tracker_store_async.wrappers.audited import AuditedTrackerStore

            options = _given(self.audit)
            kept = {k: options[k] for k in ("reads", "default_actor") if k in options}
            store = AuditedTrackerStore(store, make_sink(self.audit), **kept)
        if self.cache is not None:
            from tracker_store_async.wrappers.cached import CachedTrackerStore

            store = CachedTrackerStore(store, **_given(self.cache))
        return store


def sealing(config: EncryptionConfig) -> Callable[[TrackerStore], TrackerStore]:
    """Return what wraps a store as the `encryption` section says.

    Raises:
        MissingExtraError: The package `cryptography` is not installed.
        ConfigurationError: A key is no key, or cannot be had.
    """
    from tracker_store_async import registry

    where = "tracker_store.encryption"
    wrapper = registry.load_part(
        "tracker_store_async.wrappers.encrypted:EncryptedTrackerStore",
        "encryption",
        where,
    )
    source = _key_source(config, where)
    url = None if config.data_keys is None else config.data_keys.get_secret_value()

    def seal(store: TrackerStore) -> TrackerStore:
        sealed: TrackerStore = wrapper(
            store,
            source,
            active_key=config.active_key,
            plaintext=config.plaintext or "accept",
            keep_columns=config.keep_columns or (),
            data_keys=url,
        )
        return sealed

    return seal


def _key_source(config: EncryptionConfig, where: str) -> Any:
    from tracker_store_async import registry
    from tracker_store_async.encryption import keyring

    if config.keys is not None:
        return {name: key.get_secret_value() for name, key in config.keys.items()}
    if config.keys_file is not None:
        return keyring.KeysFile(config.keys_file)
    if config.keys_env is not None:
        return partial(keyring.keys_from_environment, config.keys_env)
    group = "tracker_store_async.encryption_keys"
    return registry.load_third_party(config.keys_callable or "", {}, group, where)


def make_sink(config: AuditConfig) -> Sink:
    """Return the sink that the `audit` section names.

    Raises:
        ConfigurationError: Its URL cannot be used.
    """
    from tracker_store_async.auditing import sinks
    from tracker_store_async.auditing.chain import Chain

    chain = Chain(None if config.key is None else config.key.get_secret_value())
    if config.path is not None:
        return sinks.FileSink(config.path, chain, config.max_bytes)
    if config.url is not None:
        from tracker_store_async.auditing.sql import SQLSink

        return SQLSink(config.url.get_secret_value(), chain)
    return sinks.LoggerSink(chain)


def take_wrapping(
    settings: dict[str, Any], own: Collection[str], *, where: str, strict: bool
) -> Wrapping:
    """Take the keys that wrap a store out of its section.

    Args:
        settings: The section; the keys are removed.
        own: Keys that the store's class wants for itself.
        where: What errors begin with, such as `tracker_store`.
        strict: Whether an unknown key is an error.

    Raises:
        ConfigurationError: A key is unknown or has a wrong value.
    """

    def take(name: str, model: type[SectionT]) -> SectionT | None:
        given = None if name in own else settings.pop(name, None)
        if given is None or given is False:
            return None
        if given is not True and not isinstance(given, dict):
            raise ConfigurationError(
                f"{where}.{name}: must be true, false, or hold keys and values"
            )
        keys = {} if given is True else given
        place = f"{where}.{name}"
        return parse_settings(model, keys, where=place, type_name=name, strict=strict)

    return Wrapping(
        take("retry", RetryConfig),
        take("fail_safe", FailSafeConfig),
        take("cache", CacheConfig),
        take("encryption", EncryptionConfig),
        take("audit", AuditConfig),
    )


def _given(section: Section) -> dict[str, Any]:
    values = {name: getattr(section, name) for name in type(section).model_fields}
    return {name: value for name, value in values.items() if value is not None}
