"""The domain: which slots a conversation has, and what else an assistant declares.

It reads Rasa's domain files (format 3.x) as far as a tracker store needs them: slots
and the session configuration exactly, the rest as names.
"""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tracker_store_async.env_expansion import expand_environment
from tracker_store_async.errors import ConfigurationError
from tracker_store_async.redaction import get_logger
from tracker_store_async.slots import AnySlot, Slot, TextSlot, create_slot

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

logger = get_logger(__name__)

DEFAULT_INTENTS = ("restart", "back", "out_of_scope", "session_start", "nlu_fallback")
"""Intents that Rasa adds to every domain."""

REQUESTED_SLOT = "requested_slot"
SESSION_START_METADATA_SLOT = "session_started_metadata"
KNOWLEDGE_BASE_ACTION = "action_query_knowledge_base"
KNOWLEDGE_BASE_SLOTS = (
    "knowledge_base_listed_objects",
    "knowledge_base_last_object",
    "knowledge_base_last_object_type",
)

_LIST_SECTIONS = ("intents", "entities", "actions", "e2e_actions")
_MAPPING_SECTIONS = ("forms", "responses", "slots", "session_config", "config")
_DOMAIN_SECTIONS = frozenset(_LIST_SECTIONS + _MAPPING_SECTIONS) - {"config"}


class SessionConfig(NamedTuple):
    """When a session ends and what the next one takes over.

    Attributes:
        session_expiration_time: Minutes without a message after which a session ends;
            0 means never.
        carry_over_slots: Whether the next session starts with the slots of the last.
    """

    session_expiration_time: float = 60
    carry_over_slots: bool = True

    @staticmethod
    def default() -> SessionConfig:
        """Return what holds where a domain says nothing."""
        return SessionConfig()

    def are_sessions_enabled(self) -> bool:
        """Whether sessions end at all."""
        return self.session_expiration_time > 0

    def as_dict(self) -> dict[str, Any]:
        """Return the section of a domain file."""
        return {
            "session_expiration_time": self.session_expiration_time,
            "carry_over_slots_to_new_session": self.carry_over_slots,
        }


class Domain:
    """What an assistant declares; make one with `load`, `from_yaml` or `from_dict`.

    Attributes:
        slots: The slots, with those that Rasa adds: `requested_slot` where there are
            forms, three for the knowledge base action, `session_started_metadata`
            always. A tracker copies them.
        session_config: When sessions end and what is carried over.
        intents: Names of the intents, sorted, with the default ones.
        entities: Names of the entities, sorted.
        responses: The responses by name.
        forms: The forms by name.
        user_actions: Names of the custom actions, then of the responses.
    """

    def __init__(self, data: Mapping[str, Any]) -> None:
        """Create a domain; `from_dict` is the way to do it.

        Raises:
            ConfigurationError: The description is wrong; the text says where.
        """
        self._data = _checked_sections(data)
        self.session_config = _session_config(self._data)
        self._data["session_config"] = self.session_config.as_dict()
        self.intents = sorted({*_names(self._data, "intents"), *DEFAULT_INTENTS})
        self.entities = sorted(set(_names(self._data, "entities")))
        self.responses: dict[str, Any] = self._data.get("responses", {})
        self.forms: dict[str, Any] = self._data.get("forms", {})
        actions = list(dict.fromkeys(_names(self._data, "actions")))
        self.user_actions = actions + sorted(set(self.responses) - set(actions))
        self.slots: list[Slot] = [
            create_slot(name, properties)
            for name, properties in self._data.get("slots", {}).items()
        ]
        self._add_default_slots()

    @property
    def form_names(self) -> list[str]:
        """Names of the forms."""
        return list(self.forms)

    @classmethod
    def empty(cls) -> Domain:
        """Return the domain that declares nothing."""
        return cls({})

    @classmethod
    def load(
        cls, paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]
    ) -> Domain:
        """Load a domain from files and directories, merged.

        Args:
            paths: A YAML file, a directory of them (searched recursively), or several
                of these. Where two declare the same thing, the first one holds.

        Raises:
            ConfigurationError: No path is given, a path does not exist, a file is not a
                domain file, or a directory holds none; the text names it.
        """
        given = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
        if not given or "" in given:
            raise ConfigurationError(
                "no domain path is given: name a file or directory"
            )
        domain = cls.empty()
        for path in given:
            domain = domain.merge(cls.from_path(path))
        return domain

    @classmethod
    def from_path(cls, path: str | os.PathLike[str]) -> Domain:
        """Load a domain from a YAML file or a directory of YAML files.

        Raises:
            ConfigurationError: The path does not exist, or a file is not a domain file.
        """
        given = Path(path)
        if given.is_dir():
            return cls._from_directory(given)
        if given.is_file():
            return cls.from_yaml(_read_text(given), str(given))
        raise ConfigurationError(f"the domain path {str(given)!r} does not exist")

    @classmethod
    def _from_directory(cls, path: Path) -> Domain:
        files = sorted(
            Path(root, name)
            for root, _, names in os.walk(path, followlinks=True)
            for name in names
            if name.endswith((".yml", ".yaml"))
        )
        parsed = {file: _parse_yaml(_read_text(file), str(file)) for file in files}
        found = {
            file: data
            for file, data in parsed.items()
            if isinstance(data, dict) and not _DOMAIN_SECTIONS.isdisjoint(data)
        }
        if not found:
            raise ConfigurationError(
                f"the directory {str(path)!r} holds no domain: no YAML file in it has "
                "a section such as `slots`"
            )
        domain = cls.empty()
        for file, data in found.items():
            domain = domain.merge(cls._from_parsed(data, str(file)))
        return domain

    @classmethod
    def from_yaml(cls, yaml: str, original_filename: str = "") -> Domain:
        """Load a domain from YAML 1.2 text.

        `${VARIABLE}` in the slots stands for an environment variable, as in Rasa.

        Args:
            yaml: The text.
            original_filename: Where it comes from, for the error.

        Raises:
            ConfigurationError: It is not YAML, or not a domain; the text says where.
        """
        return cls._from_parsed(_parse_yaml(yaml, original_filename), original_filename)

    @classmethod
    def _from_parsed(cls, data: Any, filename: str) -> Domain:
        where = f"the domain {filename!r}" if filename else "the domain"
        if not isinstance(data, dict):
            raise ConfigurationError(
                f"{where} must be a mapping with sections such as `slots`, not "
                f"{type(data).__name__}"
            )
        try:
            slots = expand_environment(data.get("slots"), "slots")
            return cls.from_dict({**data, "slots": slots} if slots else data)
        except ConfigurationError as error:
            if not filename:
                raise
            raise ConfigurationError(f"{where} is wrong: {error}") from error

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Domain:
        """Create a domain from the content of a domain file; it is not changed.

        Raises:
            ConfigurationError: A section has the wrong shape, a slot an unknown type.
        """
        return cls(data)

    def merge(self, domain: Domain | None, override: bool = False) -> Domain:
        """Return a domain with everything that this one and another one declare.

        Args:
            domain: The other one.
            override: Where both declare the same thing, take the other one's.

        Raises:
            ConfigurationError: The two do not fit together.
        """
        if domain is None or domain.is_empty():
            return self
        if self.is_empty():
            return domain
        return type(self)(_merge(self._data, domain._data, override=override))

    def is_empty(self) -> bool:
        """Whether the domain declares nothing."""
        return self.as_dict() == type(self).empty().as_dict()

    def as_dict(self) -> dict[str, Any]:
        """Return a copy of the content of the domain file, without empty sections."""
        return copy.deepcopy(self._data)

    def _add_default_slots(self) -> None:
        names = {slot.name for slot in self.slots}
        added: list[Slot] = []
        if self.forms:
            added.append(TextSlot(REQUESTED_SLOT, influence_conversation=False))
        if KNOWLEDGE_BASE_ACTION in self.user_actions:
            added += [
                TextSlot(name, influence_conversation=False)
                for name in KNOWLEDGE_BASE_SLOTS
            ]
        added.append(AnySlot(SESSION_START_METADATA_SLOT))
        self.slots += [slot for slot in added if slot.name not in names]

    def __repr__(self) -> str:
        """Show how much the domain declares."""
        return (
            f"<Domain: {len(self.slots)} slots, {len(self.intents)} intents, "
            f"{len(self.entities)} entities, {len(self.forms)} forms, "
            f"{len(self.responses)} responses, {len(self.user_actions)} actions>"
        )


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"the domain file {str(path)!r} cannot be read: {error}"
        ) from error


def _parse_yaml(text: str, filename: str) -> Any:
    # Imported here because most programs that import this package load no domain.
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    parser = YAML(typ="safe")
    parser.version = (1, 2)
    try:
        data = parser.load(text)
    except YAMLError as error:
        where = repr(filename) if filename else "the text"
        raise ConfigurationError(f"{where} is not valid YAML: {error}") from error
    return {} if data is None else data


def _checked_sections(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return a deep copy of the sections that are not empty, with checked shapes."""
    sections = {
        str(key): copy.deepcopy(value)
        for key, value in data.items()
        if value is not None and value != {} and value != []
    }
    for name in _LIST_SECTIONS:
        _check_shape(sections, name, list)
    for name in _MAPPING_SECTIONS:
        _check_shape(sections, name, dict)
    return sections


def _check_shape(sections: dict[str, Any], name: str, shape: type) -> None:
    section = sections.get(name)
    if section is not None and not isinstance(section, shape):
        expected = "list" if shape is list else "mapping"
        raise ConfigurationError(
            f"the section `{name}` must be a {expected}, not {type(section).__name__}"
        )


def _names(data: Mapping[str, Any], section: str) -> list[str]:
    return [name for item in data.get(section, []) for name in _names_of(item, section)]


def _names_of(item: Any, section: str) -> list[str]:
    """Return the names in one entry of a list section: text, or a mapping by name."""
    names = list(item) if isinstance(item, dict) and item else [item]
    for name in names:
        if not isinstance(name, str):
            raise ConfigurationError(
                f"the section `{section}` must list names, or mappings with a name as "
                f"key; one entry is {type(name).__name__}"
            )
    return names


def _session_config(data: Mapping[str, Any]) -> SessionConfig:
    section = data.get("session_config", {})
    default = SessionConfig.default()
    minutes = section.get("session_expiration_time")
    carry_over = section.get("carry_over_slots_to_new_session")
    if minutes is None:
        minutes = default.session_expiration_time
    if carry_over is None:
        carry_over = default.carry_over_slots
    if isinstance(minutes, bool) or not isinstance(minutes, int | float) or minutes < 0:
        raise ConfigurationError(
            "session_config.session_expiration_time must be a number of minutes, 0 or "
            "more"
        )
    if not isinstance(carry_over, bool):
        raise ConfigurationError(
            "session_config.carry_over_slots_to_new_session must be true or false"
        )
    return SessionConfig(minutes, carry_over)


def _merge(
    first: Mapping[str, Any], second: Mapping[str, Any], *, override: bool
) -> dict[str, Any]:
    """Merge two domains as Rasa's `Domain.merge_domain_dicts` does."""
    merged = dict(first)
    for name in (*_LIST_SECTIONS, "forms", "responses", "slots"):
        merged[name] = _merge_section(first, second, name, override=override)
    forms = list(first.get("forms", {}))  # an action with options is a mapping
    merged["actions"] = [
        item
        for item in merged["actions"]
        if item in first.get("actions", []) or item not in forms
    ]
    if override:
        merged["config"] = {**first.get("config", {}), **second.get("config", {})}
    default = SessionConfig.default().as_dict()
    if (override or first["session_config"] == default) and (
        second["session_config"] != default
    ):
        merged["session_config"] = second["session_config"]
    return merged


def _merge_section(
    first: Mapping[str, Any], second: Mapping[str, Any], name: str, *, override: bool
) -> Any:
    ours, theirs = _by_name(first, name), _by_name(second, name)
    differing = [key for key in ours if key in theirs and ours[key] != theirs[key]]
    if differing:
        logger.warning(
            "More than one domain declares these %s differently, the %s one holds: %s",
            name,
            "last" if override else "first",
            ", ".join(differing),
        )
    merged = {**ours, **theirs} if override else {**theirs, **ours}
    return list(merged.values()) if name in _LIST_SECTIONS else merged


def _by_name(data: Mapping[str, Any], section: str) -> dict[str, Any]:
    entries = data.get(section)
    if isinstance(entries, list):
        return {min(_names_of(item, section)): item for item in entries}
    return dict(entries or {})
