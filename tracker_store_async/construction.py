"""Calls a third party's class or function with the keys of a section.

What the callable does not accept, or needs and does not get, is found out from its
signature beforehand: an error then names the key instead of a line inside the callable.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from tracker_store_async.errors import ConfigurationError
from tracker_store_async.redaction import get_logger
from tracker_store_async.settings import suggest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

logger = get_logger(__name__)

_KEYWORDS = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def call_with_settings(
    function: Callable[..., Any],
    settings: Mapping[str, Any],
    given: Mapping[str, Any],
    *,
    where: str,
    strict: bool,
    others: Iterable[str],
) -> Any:
    """Return `function(**settings, **given)`.

    Args:
        function: The class or function.
        settings: Keys of the section.
        given: What the factory hands over of itself; one that is None is left out if
            the function has no such parameter.
        where: What errors begin with, such as `tracker_store`.
        strict: Whether a key that is not accepted is an error; else it is logged and
            left out.
        others: Keys of the section that are taken out of it before, and valid as well.

    Raises:
        ConfigurationError: A key is not accepted, or one that is needed is missing.
    """
    name = getattr(function, "__qualname__", repr(function))
    signature = _signature(function)
    if signature is None:
        return function(**settings, **given)
    accepted, needed, takes_any = _parameters(signature)
    arguments = dict(settings)
    for key, value in given.items():
        if takes_any or key in accepted:
            arguments[key] = value
        elif value is not None:
            raise ConfigurationError(f"{where}: {name} does not accept '{key}'")
    unknown = [] if takes_any else [key for key in arguments if key not in accepted]
    if unknown:
        valid = {*(accepted - given.keys()), *others}
        _report_unknown(unknown, valid, where, name, strict=strict)
    missing = sorted(needed - arguments.keys())
    if missing:
        raise ConfigurationError(f"{where}: {name} needs the key '{missing[0]}'")
    return function(**{k: v for k, v in arguments.items() if k not in unknown})


def parameter_names(function: Callable[..., Any]) -> set[str]:
    """Return the names of the parameters that a class or function has of its own."""
    signature = _signature(function)
    return set() if signature is None else _parameters(signature)[0]


def _signature(function: Callable[..., Any]) -> inspect.Signature | None:
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):  # some callables written in C have none
        return None


def _parameters(signature: inspect.Signature) -> tuple[set[str], set[str], bool]:
    """Return the accepted and the needed names, and whether any other is accepted."""
    named = [p for p in signature.parameters.values() if p.kind in _KEYWORDS]
    needed = {p.name for p in named if p.default is inspect.Parameter.empty}
    takes_any = any(
        p.kind is inspect.Parameter.VAR_KEYWORD for p in signature.parameters.values()
    )
    return {p.name for p in named}, needed, takes_any


def _report_unknown(
    unknown: list[str], accepted: set[str], where: str, name: str, *, strict: bool
) -> None:
    valid = f"valid keys: {', '.join(sorted(accepted)) or 'none'}"
    message = "; ".join(
        f"{where}: unknown key '{key}' for {name}; {suggest(key, accepted, valid)}"
        for key in unknown
    )
    if strict:
        raise ConfigurationError(message)
    logger.warning("%s (left out, because of strict: false)", message)
