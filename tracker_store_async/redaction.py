"""What must not get out: passwords, the text of messages, and slots that one names.

One :class:`Redactor` serves the logs, error reports and whatever else leaves the
process. It is on by default; `configure` says what else is secret.
"""

from __future__ import annotations

import logging
import re
import traceback
from collections.abc import Collection, Iterable, Mapping
from numbers import Number
from typing import TYPE_CHECKING, Any

from tracker_store_async.errors import ConfigurationError, TrackerStoreError

if TYPE_CHECKING:
    from types import TracebackType

MASK = "***"
DEEPEST = 10
"""Levels within levels of what is logged that are shown."""

_SECRET_WORDS = (
    *("password", "passwd", "passphrase", "pwd", "secret", "token", "api_key"),
    *("apikey", "access_key", "private_key", "authorization", "credential", "dsn"),
)
_TEXT_KEYS = {
    *("text", "data", "metadata", "parse_data", "message", "latest_message", "body"),
    *("value", "snapshot", "events", "rows", "slots", "entities"),
}
"""Fields that hold what somebody said, by the names that events and trackers have."""

# Bounded repetitions: a text of any kind is searched in linear time.
# A password may hold an @; with a slash in it, it is told from a port by no digit.
_URL_LOGIN = re.compile(
    r"(://)(?:[^\s/'\"]{0,1000}"
    r"|[^\s/:@'\"]{1,255}:(?!\d{1,5}[/?#])[^\s'\"]{1,1000})@"
)
_ASSIGNMENT = re.compile(
    r"(?i)((?:" + "|".join(_SECRET_WORDS).replace("_", "[_-]") + r")"
    r"[\w.-]{0,40}\\{0,3}['\"]?\s{0,4}[=:]\s{0,4})"
    r"(\\{1,3}\"[^\"]*\"|\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'"
    r"|(?:(?:bearer|basic|token|negotiate)\s{1,4})?[^\s,;&)}\]]+)"
)

_LOG_RECORD = set(vars(logging.makeLogRecord({})))


class Redactor:
    """Masks what is secret in texts, values and exceptions.

    Attributes:
        enabled: Whether it masks anything.
        slots: Names of slots whose values are secret even where values are shown.
    """

    def __init__(self) -> None:
        self.enabled = True
        self.slots: frozenset[str] = frozenset()
        self._secrets: list[str] = []

    def configure(
        self,
        *,
        slots: Collection[str] = (),
        secrets: Iterable[str] = (),
        enabled: bool = True,
    ) -> None:
        """Say what is secret; it replaces what was said before.

        Args:
            slots: Names of slots whose values are never shown.
            secrets: Texts that are never shown, such as a password.
            enabled: False turns masking off. Nothing but a test should.

        Raises:
            ConfigurationError: One text was given where there should be several.
        """
        if isinstance(slots, str) or isinstance(secrets, str):  # a name of each letter
            raise ConfigurationError("`slots` and `secrets` are lists of texts")
        self.slots = frozenset(slots)
        # One may be a part of another, and would leave the rest of it.
        self._secrets = sorted({each for each in secrets if each}, key=len)[::-1]
        self.enabled = enabled

    def text(self, text: str) -> str:
        """Return a text without logins in URLs, passwords and known secrets."""
        if not self.enabled:
            return text
        for secret in self._secrets:
            text = text.replace(secret, MASK)
        # Looking for what either needs is many times faster than looking for either.
        if "://" in text:
            text = _URL_LOGIN.sub(rf"\1{MASK}@", text)
        if "=" in text or ":" in text:
            text = _ASSIGNMENT.sub(rf"\1{MASK}", text)
        return text

    def field(self, name: str, value: Any, depth: int = 0) -> Any:
        """Return a named value, or the mask if its name says that it is secret."""
        if not self.enabled:
            return value
        if self.is_secret(name) or name.lower() in _TEXT_KEYS:
            return MASK
        return self.value(value, depth)

    def is_secret(self, name: str) -> bool:
        """Whether a slot or field of this name is secret even for who reads texts."""
        if not self.enabled:
            return False
        folded = name.lower().replace("-", "_")
        return name in self.slots or any(word in folded for word in _SECRET_WORDS)

    def slot(self, name: str, value: Any) -> Any:
        """Return the value of a slot, or the mask if it is one of the named slots."""
        return MASK if self.enabled and name in self.slots else value

    def value(self, value: Any, depth: int = 0) -> Any:
        """Return a value of any kind as it may be shown.

        Plain numbers and texts stay (texts without their passwords), mappings and
        sequences are gone through, an error of ours keeps its message. Of any other
        object only the kind is shown: its `str` may be what somebody said. What is
        nested deeply, such as a mapping within itself, is masked from some level on.
        """
        if not self.enabled or value is None or isinstance(value, Number):
            return value
        if isinstance(value, str):
            return self.text(value)
        if depth > DEEPEST:
            return MASK
        if isinstance(value, Mapping):
            return {
                self.text(str(k)): self.field(str(k), v, depth + 1)
                for k, v in value.items()
            }
        if isinstance(value, list | tuple | set | frozenset):
            return [self.value(item, depth + 1) for item in value]
        if isinstance(value, BaseException):
            return self.error(value)
        return f"<{type(value).__name__}>"

    def error(self, error: BaseException) -> str:
        """Return the text of an error of ours; of any other one, its kind alone."""
        if not self.enabled or isinstance(error, TrackerStoreError):
            return self.text(str(error))
        return f"{type(error).__name__} ({MASK})"

    def traceback(self, error: BaseException) -> str:
        """Return the traceback of an error and its causes, without foreign texts."""
        parts: list[str] = []
        seen: set[int] = set()
        current: BaseException | None = error
        while current is not None and id(current) not in seen:
            seen.add(id(current))
            frames = "".join(traceback.format_tb(current.__traceback__))
            kind = f"{type(current).__module__}.{type(current).__qualname__}"
            heading = "Traceback (most recent call last):\n" if frames else ""
            parts.append(f"{heading}{frames}{kind}: {self.error(current)}")
            hidden = current.__suppress_context__
            current = current.__cause__ or (None if hidden else current.__context__)
        return "\n\nThe above was raised from:\n\n".join(parts)


REDACTOR = Redactor()
"""The one that everything uses."""

configure = REDACTOR.configure


class RedactionFilter(logging.Filter):
    """Masks what is secret in a log record before any handler sees it."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Change the record in place; it is always logged."""
        if not REDACTOR.enabled or hasattr(record, "_redacted"):
            return True
        if isinstance(record.args, Mapping):
            record.args = {k: REDACTOR.field(k, v) for k, v in record.args.items()}
        elif record.args:
            record.args = tuple(REDACTOR.value(value) for value in record.args)
        if isinstance(record.msg, str):
            _redact_message(record)
        else:
            record.msg = REDACTOR.value(record.msg)
        for name in vars(record).keys() - _LOG_RECORD:
            setattr(record, name, REDACTOR.field(name, getattr(record, name)))
        if record.exc_info and record.exc_info[1] is not None:
            record.exc_text = REDACTOR.traceback(record.exc_info[1])
            record.exc_info = _without_text(record.exc_info[1])
        record._redacted = True
        return True


def _redact_message(record: logging.LogRecord) -> None:
    """Mask what a message says once its arguments are in it.

    What is secret may stand in an argument, and what tells so in the message. Where
    nothing is masked they stay apart, for whoever groups records by their message.
    """
    try:
        said = record.getMessage()
    except (TypeError, ValueError, KeyError):
        # It does not fit its arguments, and the standard library would print these.
        record.msg, record.args = REDACTOR.text(record.msg), None
        return
    shown = REDACTOR.text(said)
    if shown != said:
        record.msg, record.args = shown, None


class RedactedError(Exception):
    """Stands in a log record for an error whose own text is not to be shown."""


def _without_text(
    error: BaseException,
) -> tuple[type[BaseException], BaseException, TracebackType | None]:
    """Return the `exc_info` for handlers that format it themselves."""
    shown_with_it = error.__cause__ or (
        None if error.__suppress_context__ else error.__context__
    )
    if isinstance(error, TrackerStoreError) and shown_with_it is None:
        return type(error), error, error.__traceback__
    shown = RedactedError(f"{type(error).__name__}: {REDACTOR.error(error)}")
    return type(shown), shown, error.__traceback__


_FILTER = RedactionFilter()


def get_logger(name: str) -> logging.Logger:
    """Return the logger of a module of ours: what it logs is redacted.

    A filter of a parent does not see its children's records, so each logger has it.

    Args:
        name: The module's name.
    """
    logger = logging.getLogger(name)
    if _FILTER not in logger.filters:
        logger.addFilter(_FILTER)
    return logger


def fields(event: str, **values: Any) -> dict[str, Any]:
    """Return the `extra` of a log line: what happened, and with what.

    Args:
        event: Name of what happened, such as `breaker_opened`.
        values: Numbers, names and ids; never what somebody said.
    """
    return {"event": event, **values}
