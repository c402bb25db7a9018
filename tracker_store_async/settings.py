"""The base of every backend's configuration, and the way from a section to it.

A backend describes its keys in a :class:`StoreConfig` of its own. `parse_settings`
turns a section of `endpoints.yml` into one: it resolves aliases, coerces types, and
turns whatever is wrong into one sentence that names the key and never its value.
"""

from __future__ import annotations

import difflib
import re
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    ClassVar,
    NamedTuple,
    TypeVar,
)

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
)

from tracker_store_async.errors import ConfigurationError
from tracker_store_async.options import (
    HOST_WITH_LOGIN,
    OnConflict,
    OnPublishError,
)
from tracker_store_async.redaction import get_logger

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pydantic_core import ErrorDetails

logger = get_logger(__name__)


def _text(value: Any) -> Any:
    # `password: 12345` is a number to YAML. A fraction is refused: its text is gone.
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value


def reject_true_and_false(value: Any) -> Any:
    """Refuse a bool where a number is wanted: pydantic would take it for 0 or 1."""
    if isinstance(value, bool):
        raise ValueError("must be a number")
    return value


def _without_login(host: str) -> str:
    # `user:password@host` lacks its scheme: else it would have been taken apart.
    if "@" in host:
        raise ValueError(f"{HOST_WITH_LOGIN}, or a whole URL")
    return host


Text = Annotated[str, BeforeValidator(_text)]
Name = Annotated[str, Field(min_length=1), BeforeValidator(_text)]
HostName = Annotated[Name, AfterValidator(_without_login)]
Secret = Annotated[SecretStr, BeforeValidator(_text)]
Count = Annotated[int, Field(ge=1), BeforeValidator(reject_true_and_false)]
Port = Annotated[int, Field(ge=1, le=65535), BeforeValidator(reject_true_and_false)]
Seconds = Annotated[
    float, Field(gt=0, allow_inf_nan=False), BeforeValidator(reject_true_and_false)
]


class RequiredDriver(NamedTuple):
    """The importable module that a store needs, and the extra that installs it."""

    module: str
    extra: str


class Section(BaseModel):
    """The keys of a section, or of one that stands within another."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    aliases: ClassVar[Mapping[str, str]] = {}
    """Other names of keys: the name in the file to the name of the field."""

    documented_names: ClassVar[Mapping[str, str]] = {}
    """Of fields that are called otherwise in the file: the field to that name."""

    other_keys: ClassVar[tuple[str, ...]] = ()
    """Keys of the same section that are taken out of it before, and valid as well."""

    hints: ClassVar[Mapping[str, str]] = {}
    """Names that others have for keys, and that only an error knows."""

    shorthands: ClassVar[tuple[str, ...]] = ()
    """Keys that the class turns into fields before they are validated."""

    def required_driver(self) -> RequiredDriver | None:
        """Return what has to be installed for this configuration, or None."""
        return None

    def constructor_kwargs(self) -> dict[str, Any]:
        """Return the keyword arguments of the constructor: every field with a value."""
        values = {name: getattr(self, name) for name in type(self).model_fields}
        return {
            name: value.get_secret_value() if isinstance(value, SecretStr) else value
            for name, value in values.items()
            if value is not None
        }

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        """Show no password: neither a secret nor the one in a URL."""
        for name, value in super().__repr_args__():
            if isinstance(value, str):
                yield name, mask_url(value)
            elif isinstance(value, dict):
                yield name, dict.fromkeys(value, "***")
            else:
                yield name, value


_KEYS_OF_EVERY_STORE = (
    "strict",
    "retry",
    "fail_safe",
    "cache",
    "encryption",
    "audit",
)


class StoreConfig(Section):
    """The keys that every tracker store has.

    Attributes:
        max_event_history: Most events that `retrieve` reads and holds.
        record_exp: Seconds after its latest save when a conversation expires; 0 is
            never, as in Rasa.
        on_conflict: What a save does about another writer's events.
        on_publish_error: What a save does when the broker fails.
    """

    other_keys: ClassVar = _KEYS_OF_EVERY_STORE

    max_event_history: Count | None = None
    record_exp: Seconds | None = None
    on_conflict: OnConflict = "rebase"
    on_publish_error: OnPublishError = "raise"

    @field_validator("record_exp", mode="before")
    @classmethod
    def _zero_is_never(cls, value: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            return value
        try:
            return value if float(value) else None
        except ValueError:
            return value

    def store_kwargs(self) -> dict[str, Any]:
        """Return the keyword arguments of the store's constructor."""
        return self.constructor_kwargs()


ConfigT = TypeVar("ConfigT", bound=Section)


def parse_settings(
    model: type[ConfigT],
    settings: Mapping[str, Any],
    *,
    where: str,
    type_name: str,
    strict: bool = True,
) -> ConfigT:
    """Return the validated configuration of one store.

    Args:
        model: The backend's configuration class.
        settings: Key to value; a key without a value counts as not given.
        where: What errors begin with, such as `tracker_store`.
        type_name: The store's type, for errors.
        strict: Whether an unknown key is an error; else it is logged and left out.

    Raises:
        ConfigurationError: A key is unknown, given twice, or has a wrong value.
    """
    given = {key: value for key, value in settings.items() if value is not None}
    written = _resolve_aliases(model, given, where)
    valid = {*model.model_fields, *model.shorthands}
    unknown = [key for key in written if key not in valid]
    if unknown:
        message = _told_unknown(model, unknown, where, type_name)
        if strict:
            raise ConfigurationError(message)
        logger.warning("%s (left out, because of strict: false)", message)
    known = {key: given[name] for key, name in written.items() if key not in unknown}
    try:
        return model.model_validate(known)
    except ValidationError as error:
        problems = [
            _problem(details, written, where)
            for details in error.errors(include_url=False, include_input=False)
        ]
        # The original holds the values, and so passwords: it is not chained.
        raise ConfigurationError("; ".join(problems)) from None


def _resolve_aliases(
    model: type[Section], given: Mapping[str, Any], where: str
) -> dict[str, str]:
    """Return field name to the name that the user wrote."""
    written: dict[str, str] = {}
    for name in given:
        field = model.aliases.get(name, name)
        if field in written:
            raise ConfigurationError(
                f"{where}: '{written[field]}' and '{name}' mean the same; keep one"
            )
        written[field] = name
    return written


def _told_unknown(
    model: type[Section], unknown: list[str], where: str, type_name: str
) -> str:
    """Return what is said of unknown keys: the nearest one, or all that there are."""
    fields = {model.documented_names.get(name, name) for name in model.model_fields}
    valid = sorted({*fields, *model.shorthands, *model.other_keys})
    words = [*valid, *model.aliases]
    return "; ".join(
        f"{where}: unknown key '{key}' for type {type_name}; "
        + suggest(
            model.hints.get(key, key),
            words,
            otherwise=f"valid keys: {', '.join(valid)}",
        )
        for key in unknown
    )


def _problem(details: ErrorDetails, written: Mapping[str, str], where: str) -> str:
    location = [str(part) for part in details["loc"]]
    if location:
        location[0] = written.get(location[0], location[0])
    return f"{'.'.join([where, *location])}: {_reason(details)}"


_REASONS = {
    "bool": "must be true or false",
    "int": "must be a whole number",
    "float": "must be a number",
    "string_type": "must be text; put the value in quotes",
    "string_too_short": "must not be empty",
    "dict": "must hold keys and values",
}
"""Kind of pydantic's error, or its first word, to what we say."""


def _reason(details: ErrorDetails) -> str:
    kind = details["type"]
    if kind == "value_error":
        return str(details["ctx"]["error"])
    general = re.sub(r"^(Input|String) should", "must", details["msg"])
    return _REASONS.get(kind) or _REASONS.get(kind.split("_")[0]) or general


def suggest(word: str, valid: Iterable[str], otherwise: str) -> str:
    """Return `did you mean ...?` for the nearest of the valid words.

    Args:
        word: What the user wrote.
        valid: What would have been right.
        otherwise: Returned where nothing is near.
    """
    by_folded = {name.lower(): name for name in valid}
    near = difflib.get_close_matches(word.lower(), by_folded, n=1, cutoff=0.6)
    return f"did you mean '{by_folded[near[0]]}'?" if near else otherwise


def mask_url(text: str) -> str:
    """Return a URL without the user, password and query that it may hold.

    One that lacks its scheme may hold them, too.
    """
    login = r"://.*@" if "://" in text else r"^[^@]*:.*@"
    masked = "://***@" if "://" in text else "***@"
    return re.sub(r"(?s)\?.*", "?***", re.sub(f"(?s){login}", masked, text))


def merge_url_parts(values: dict[str, Any], parts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys together with what the URL among them says.

    Args:
        values: The keys as given.
        parts: What was found in the URL, by the name of the key; None is not found.

    Raises:
        ValueError: A key and the URL contradict each other.
    """
    merged = dict(values)
    for name, part in parts.items():
        if part is None:
            continue
        own = merged.get(name)
        if own is not None and not _same(own, part):
            raise ValueError(
                f"'{name}' differs from what the url says; give it in one place"
            )
        merged[name] = part
    return merged


def _same(own: Any, part: Any) -> bool:
    if isinstance(part, bool):
        return str(own).lower() in _WORDS_OF_BOOL[part]
    plain = own.get_secret_value() if isinstance(own, SecretStr) else own
    return str(plain) == str(part)


_WORDS_OF_BOOL = {
    True: ("true", "yes", "on", "1", "y", "t"),
    False: ("false", "no", "off", "0", "n", "f"),
}
