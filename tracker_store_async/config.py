"""`endpoints.yml`, Rasa's file, as objects: `EndpointConfig` and `AvailableEndpoints`.

Names and attributes are Rasa's (`rasa/utils/endpoints.py`, `rasa/core/utils.py`). What
a section means for a store or a broker is decided in `settings.py`, `factory.py` and
`broker_factory.py`.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

from tracker_store_async import secrets_manager
from tracker_store_async.endpoints_file import read_sections
from tracker_store_async.env_expansion import expand_environment
from tracker_store_async.errors import ConfigurationError
from tracker_store_async.settings import mask_url

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

TRACKER_STORE = "tracker_store"
EVENT_BROKER = "event_broker"
DEFAULT_TOKEN_NAME = "token"  # noqa: S105 - the name of a parameter

_OURS = (TRACKER_STORE, EVENT_BROKER)
_RASA_SECTIONS = {
    "nlg": "nlg",
    "nlu": "nlu",
    "action_endpoint": "action",
    "models": "model",
    TRACKER_STORE: TRACKER_STORE,
    "lock_store": "lock_store",
    EVENT_BROKER: EVENT_BROKER,
}
"""Section in the file to attribute of `AvailableEndpoints`, as in Rasa."""

_OTHER_KNOWN_SECTIONS = (
    *("vector_store", "model_groups", "privacy"),
    secrets_manager.SECTION,
)


class EndpointConfig:
    """One section of an endpoints file; Rasa's class, without its HTTP client.

    Args:
        url: Where the service is: a URL or a host name.
        params: Query parameters of an HTTP endpoint.
        headers: Headers of an HTTP endpoint.
        basic_auth: `username` and `password` of an HTTP endpoint.
        token: Token of an HTTP endpoint.
        token_name: Name of the query parameter that carries `token`.
        cafile: File with the certificates that an HTTP endpoint is checked against.
        **kwargs: Everything else; `type`, or `store_type`, becomes `type`.

    Raises:
        ConfigurationError: `type` and `store_type` are both given and differ.
    """

    def __init__(
        self,
        url: str | None = None,
        params: dict[str, Any] | None = None,
        headers: dict[str, Any] | None = None,
        basic_auth: dict[str, str] | None = None,
        token: str | None = None,
        token_name: str = DEFAULT_TOKEN_NAME,
        cafile: str | None = None,
        **kwargs: Any,
    ) -> None:
        self.url = url
        self.params = params or {}
        self.headers = headers or {}
        self.basic_auth = basic_auth or {}
        self.token = token
        self.token_name = token_name
        self.cafile = cafile
        self.type = _pop_type(kwargs)
        self.kwargs = kwargs

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> EndpointConfig:
        """Return the configuration that a section of the file holds.

        Args:
            data: The section: key to value.

        Raises:
            ConfigurationError: It is not a mapping from text to values.
        """
        return section_config("endpoint", data)

    def copy(self) -> EndpointConfig:
        """Return an equal configuration whose top-level keys can be changed alone."""
        return EndpointConfig(**self.as_dict())

    def as_dict(self) -> dict[str, Any]:
        """Return the keys that were given, as `from_dict` takes them."""
        given: dict[str, Any] = {
            "url": self.url,
            "type": self.type,
            "params": dict(self.params) or None,
            "headers": dict(self.headers) or None,
            "basic_auth": dict(self.basic_auth) or None,
            "token": self.token,
            "token_name": self.token_name
            if self.token_name != DEFAULT_TOKEN_NAME
            else None,
            "cafile": self.cafile,
        }
        return {k: v for k, v in given.items() if v is not None} | self.kwargs

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, EndpointConfig):
            return NotImplemented
        return self.as_dict() == other.as_dict()

    __hash__ = None  # type: ignore[assignment]  # mutable, as in Rasa

    def __repr__(self) -> str:
        """Name the keys only: every value but type and place may be a secret."""
        url = mask_url(self.url) if isinstance(self.url, str) else self.url
        keys = sorted(self.as_dict().keys() - {"url", "type"})
        return f"EndpointConfig(type={self.type!r}, url={url!r}, keys={keys})"


class AvailableEndpoints:
    """Everything that an endpoints file configures, by Rasa's attribute names.

    Args:
        nlg: Server that generates responses.
        nlu: Server that interprets messages.
        action: Server that runs custom actions (`action_endpoint`).
        model: Server that models are fetched from (`models`).
        tracker_store: The tracker store.
        lock_store: The lock store.
        event_broker: The event broker.
        other: Sections that newer products add, as they stand in the file.
    """

    def __init__(
        self,
        nlg: EndpointConfig | None = None,
        nlu: EndpointConfig | None = None,
        action: EndpointConfig | None = None,
        model: EndpointConfig | None = None,
        tracker_store: EndpointConfig | None = None,
        lock_store: EndpointConfig | None = None,
        event_broker: EndpointConfig | None = None,
        other: Mapping[str, Any] | None = None,
    ) -> None:
        self.nlg = nlg
        self.nlu = nlu
        self.action = action
        self.model = model
        self.tracker_store = tracker_store
        self.lock_store = lock_store
        self.event_broker = event_broker
        self.other = dict(other or {})

    @classmethod
    def read_endpoints(cls, endpoint_file: str | Path) -> AvailableEndpoints:
        """Read a whole endpoints file.

        Args:
            endpoint_file: Path of the file.

        Raises:
            ConfigurationError: The file is missing or wrong, or names an environment
                variable that is not set; the text says where.
        """
        sections = read_sections(endpoint_file)
        configs = {
            attribute: _find_section(sections, name)
            for name, attribute in _RASA_SECTIONS.items()
        }
        other = {
            name: expand_environment(section, name)
            for name, section in sections.items()
            if name not in _RASA_SECTIONS
        }
        return cls(**configs, other=other)

    def __repr__(self) -> str:
        """Show the known sections, and the others by name only."""
        known = {name: getattr(self, name) for name in _RASA_SECTIONS.values()}
        shown = [f"{name}={value!r}" for name, value in known.items() if value]
        return f"AvailableEndpoints({', '.join(shown)}, other={sorted(self.other)})"


def read_endpoint_config(
    filename: str | Path | None, endpoint_type: str
) -> EndpointConfig | None:
    """Read one section of an endpoints file; variables of others need not be set.

    Args:
        filename: Path of the file; None or empty gives None, as in Rasa.
        endpoint_type: Name of the section, such as `tracker_store`.

    Returns:
        The section, or None where the file has none.

    Raises:
        ConfigurationError: The file is missing (Rasa logs that and goes on without) or
            the section is wrong; the text says where.
    """
    if not filename:
        return None
    return _find_section(read_sections(filename), endpoint_type)


def _find_section(sections: Mapping[str, Any], name: str) -> EndpointConfig | None:
    if name not in sections:
        if name in _OURS:
            _refuse_misspelling(sections, name)
        return None
    section = sections[name]
    if section is None:
        # Rasa takes an empty section for an absent one and goes on in memory.
        if name in _OURS:
            raise ConfigurationError(
                f"{name}: is empty; give it a 'type', or remove the section"
            )
        return None
    if name == TRACKER_STORE and isinstance(section, dict):
        section = secrets_manager.hand_on(section, sections)
    return section_config(name, expand_environment(section, name))


def _refuse_misspelling(sections: Mapping[str, Any], name: str) -> None:
    known = {*_RASA_SECTIONS, *_OTHER_KNOWN_SECTIONS}
    candidates = {
        given.lower().replace("-", "_"): given
        for given in sections
        if given not in known
    }
    near = difflib.get_close_matches(name, candidates, n=1, cutoff=0.85)
    if near:
        raise ConfigurationError(
            f"unknown section '{candidates[near[0]]}'; did you mean '{name}'?"
        )


def section_config(name: str, section: Any) -> EndpointConfig:
    """Return the configuration that a section holds, which must be a mapping.

    Args:
        name: Name of the section, for errors.
        section: What stands in it.

    Raises:
        ConfigurationError: It is not a mapping from text to values.
    """
    if not isinstance(section, dict) or not all(isinstance(k, str) for k in section):
        raise ConfigurationError(
            f"{name}: must hold keys and values, such as 'type: in_memory'"
        )
    given = {key: value for key, value in section.items() if value is not None}
    try:
        return EndpointConfig(**given)
    except ConfigurationError as error:
        raise ConfigurationError(f"{name}: {error}") from None


def _pop_type(kwargs: dict[str, Any]) -> Any:
    alias, name = kwargs.pop("store_type", None), kwargs.pop("type", None)
    if alias is not None and name is not None and alias != name:
        raise ConfigurationError("'type' and 'store_type' differ; keep one of them")
    return name if alias is None else alias
