"""Every error this library raises on purpose, as one tree.

::

    TrackerStoreError
    ├── ConfigurationError (ValueError)       a setting is wrong; nothing was connected
    │   ├── UnknownStoreTypeError             `type:` names nothing that is registered
    │   └── MissingExtraError (ImportError)   the driver is not installed
    ├── InvalidInputError (ValueError)        an argument is wrong; nothing was written
    │   ├── InvalidSenderIdError              empty, too long, or not storable text
    │   └── EventSerialisationError           an event holds what JSON cannot hold
    ├── TrackerDeserialisationError           stored text is not what it should be
    │   └── CorruptEventError                 one stored event cannot be read
    ├── ConcurrentSaveError                   another writer was faster (`on_conflict`)
    ├── PublishError                          the event broker did not confirm an event
    │   ├── BrokerUnavailableError            it cannot be reached, or was too slow
    │   │   └── BrokerClosedError             its owner has closed it
    │   ├── BrokerAccessError                 it refused credentials, rights or TLS
    │   └── BrokerRefusedError                it refused an event
    ├── SaveManyError                         some of several trackers were not saved
    ├── StoreUnavailableError                 server, network or file cannot be reached
    │   └── StoreTimeoutError (TimeoutError)  no answer in time; it may have landed
    ├── StoreAccessError                      credentials or rights were refused
    ├── AuditError                            the audit trail cannot be written
    ├── EncryptionKeyError                    a key is missing, wrong or was erased
    │   └── ErasedKeyError                    that of one conversation was erased
    ├── StoreDataError                        the server refused what was sent
    ├── SchemaError                           the stored layout is not the one needed
    │   ├── SchemaUpgradeRequiredError        older, or Rasa's own: upgrade it first
    │   └── SchemaTooNewError                 written by a newer version of this library
    ├── StoreClosedError                      used after `close()`
    ├── WrongLoopError (RuntimeError)         used from another event loop or process
    └── CallTimeoutError (TimeoutError)       a call through the sync facade took long

Messages are safe to log: they never hold a password or the text of a message.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


class TrackerStoreError(Exception):
    """Base class of every error that this library raises on purpose."""


class ConfigurationError(TrackerStoreError, ValueError):
    """A setting is missing, misspelt or contradicts another one."""


class UnknownStoreTypeError(ConfigurationError):
    """The configured `type` is neither built in, registered nor importable."""


class MissingExtraError(ConfigurationError, ImportError):
    """The package that drives this backend is not installed."""


class InvalidInputError(TrackerStoreError, ValueError):
    """An argument is refused before anything is published or written."""


class InvalidSenderIdError(InvalidInputError):
    """The sender id is not a storable, non-empty string of bounded length."""


class EventSerialisationError(InvalidInputError):
    """An event holds a value that JSON cannot represent."""


class TrackerDeserialisationError(TrackerStoreError):
    """Stored or given data cannot be turned into a tracker."""


TrackerDeserialisationException = TrackerDeserialisationError
"""Rasa's name for :class:`TrackerDeserialisationError`."""


class CorruptEventError(TrackerDeserialisationError):
    """One stored event cannot be read.

    Args:
        sender_id: The conversation.
        position: Position of the event in the conversation, from 0.
        reason: What is wrong with it, without its content.
    """

    def __init__(self, sender_id: str, position: int, reason: str) -> None:
        super().__init__(
            f"event {position} of conversation {sender_id!r} is corrupt: {reason}"
        )
        self.sender_id = sender_id
        self.position = position
        self.reason = reason

    def __reduce__(self) -> tuple[type[CorruptEventError], tuple[str, int, str]]:
        """Rebuild from the three arguments, so that the error can be pickled."""
        return type(self), (self.sender_id, self.position, self.reason)


class ConcurrentSaveError(TrackerStoreError):
    """Another writer appended to the conversation since it was loaded.

    Args:
        sender_id: The conversation.
        expected_version: Number of events that the tracker was loaded with.
        stored_version: Number of events that are stored now.
    """

    def __init__(
        self, sender_id: str, expected_version: int | None, stored_version: int
    ) -> None:
        known = "none" if expected_version is None else str(expected_version)
        super().__init__(
            f"conversation {sender_id!r} has {stored_version} stored events, the "
            f"tracker knows of {known}: retrieve it again and repeat the change, or "
            "use on_conflict='rebase' to append after the other writer's events"
        )
        self.sender_id = sender_id
        self.expected_version = expected_version
        self.stored_version = stored_version

    def __reduce__(
        self,
    ) -> tuple[type[ConcurrentSaveError], tuple[str, int | None, int]]:
        """Rebuild from the three arguments, so that the error can be pickled."""
        return type(self), (self.sender_id, self.expected_version, self.stored_version)


class PublishError(TrackerStoreError):
    """The event broker did not confirm an event, so nothing was stored."""


class BrokerUnavailableError(PublishError):
    """The event broker cannot be reached, or did not confirm in time.

    What was sent may have arrived: publishing it again is safe, since consumers drop
    repeats by message id.
    """


class BrokerClosedError(BrokerUnavailableError):
    """The event broker was closed by whoever owns it; its `open()` lets it be used."""


class BrokerAccessError(PublishError):
    """The event broker refused the credentials, the rights they carry, or TLS."""


class BrokerRefusedError(PublishError):
    """The event broker refused an event, for a reason that a retry may not mend."""


class SaveManyError(TrackerStoreError):
    """`save_many` stored some of the trackers and failed on others.

    Args:
        failures: The error of each conversation that was not saved, by sender id.
        total: Number of trackers that were to be saved.
    """

    def __init__(self, failures: Mapping[str, BaseException], total: int) -> None:
        names = ", ".join(repr(sender_id) for sender_id in list(failures)[:5])
        more = "" if len(failures) <= 5 else f" and {len(failures) - 5} more"
        first = next(iter(failures.values()))
        # Of any other error only the kind: its text may be what somebody said.
        shown = first if isinstance(first, TrackerStoreError) else type(first).__name__
        super().__init__(
            f"{len(failures)} of {total} trackers were not saved: {names}{more}; "
            f"the first error: {shown}"
        )
        self.failures = dict(failures)
        self.total = total

    def __reduce__(
        self,
    ) -> tuple[type[SaveManyError], tuple[dict[str, BaseException], int]]:
        """Rebuild from the two arguments, so that the error can be pickled."""
        return type(self), (self.failures, self.total)


class StoreUnavailableError(TrackerStoreError):
    """The storage cannot be reached; trying again later may succeed.

    An append that raises this may have landed. Saving the same tracker again is safe:
    the events are recognised by their ids and stored once.
    """


class StoreTimeoutError(StoreUnavailableError, TimeoutError):
    """The storage did not answer in time; what it was asked to do may be done."""


class StoreAccessError(TrackerStoreError):
    """The storage refused the credentials, or the rights they carry."""


class AuditError(TrackerStoreError):
    """An access cannot be recorded in the audit trail, and so was not made."""


class EncryptionKeyError(TrackerStoreError):
    """The key that opens a conversation is not configured, is wrong, or was erased."""


class ErasedKeyError(EncryptionKeyError):
    """The data key of one conversation was erased: nobody can read it any more."""


class StoreDataError(TrackerStoreError):
    """The storage refused what was sent, for a reason that a retry will not mend."""


class SchemaError(TrackerStoreError):
    """The storage holds a layout that this version of the library cannot use."""


class SchemaUpgradeRequiredError(SchemaError):
    """The layout is older, or Rasa's own, and has to be upgraded first."""


class SchemaTooNewError(SchemaError):
    """The layout was written by a newer version of this library."""


class StoreClosedError(TrackerStoreError):
    """The store was closed; call `open()` to use it again."""


class WrongLoopError(TrackerStoreError, RuntimeError):
    """The store belongs to another event loop, thread or process."""


class CallTimeoutError(TrackerStoreError, TimeoutError):
    """A call through the sync facade did not finish within its `timeout_seconds`."""
