"""Values that JSON can hold: copied, compared, and written exactly."""

from __future__ import annotations

import copy
import json
import re
from secrets import token_hex
from typing import TYPE_CHECKING, Any

from pydantic_core import to_json

from tracker_store_async.errors import EventSerialisationError

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_NESTING = 500
"""Deepest nesting that is written: half of what Python can read at its usual limit."""

MAX_INTEGER_DIGITS = 4300
"""Longest integer that is written: Python's usual limit for reading one."""

_TOO_LONG = 10**MAX_INTEGER_DIGITS
_MANY_DIGITS = re.compile(rf"[0-9]{{{MAX_INTEGER_DIGITS + 1}}}")

_MANY = 100_000
"""Most lists and dicts in a value that are looked at the fast way."""

JSON_ATOMS = frozenset({str, int, float, bool, type(None)})


def isolated(value: Any) -> Any:
    """Return a copy that shares no list or dict with `value`.

    A tenth of the time of `copy.deepcopy`, which it uses for what is not from JSON.
    """
    kind = type(value)
    if kind in JSON_ATOMS:
        return value
    if kind is dict:
        fields = {}
        for key, item in value.items():
            fields[key] = item if type(item) in JSON_ATOMS else isolated(item)
        return fields
    if kind is list:
        items = []
        for item in value:
            # One frame a level, so that what can be stored can be copied.
            items.append(  # noqa: PERF401
                item if type(item) in JSON_ATOMS else isolated(item)
            )
        return items
    return copy.deepcopy(value)


def frozen(value: Any) -> str:
    """Return text that is equal for values that JSON writes alike, for comparing."""
    try:
        return json.dumps(value, default=repr)
    except (TypeError, ValueError):
        return repr(value)


def encode_json(value: Any, what: str) -> str:
    """Encode any value as `encode_event` does.

    Args:
        value: What to encode.
        what: What it is, for the error.

    Raises:
        EventSerialisationError: It holds a value that JSON cannot represent.
    """
    return encode_fast(value) or encode_with_care(value, what)


def encode_fast(value: Any) -> str | None:
    """Encode a value made of JSON's own types alone; None if it is not.

    The check and `to_json` together take half the time of `json.dumps`. Without the
    check, `to_json` would write dates and sets too.
    """
    try:
        if not _is_plain(value):
            return None
        text = to_json(value, inf_nan_mode="constants").decode()
    except (ValueError, RecursionError):
        return None  # a lone surrogate, or nested deeply
    if len(text) > MAX_INTEGER_DIGITS and _MANY_DIGITS.search(text):
        return None  # in a string, or an integer that could not be read again
    return text


def encode_all_fast(values: list[Any], doubtful: list[Any]) -> list[str] | None:
    """Encode several values at once, each as `encode_fast` does; None if one is not.

    Args:
        values: What to encode: one value or more.
        doubtful: What of it may be of other types than JSON's own.
    """
    apart = [_APART] * (2 * len(values) - 1)
    apart[::2] = values
    try:
        if not _is_plain(doubtful):
            return None
        text = to_json(apart, inf_nan_mode="constants").decode()
    except (ValueError, RecursionError):
        return None
    texts = text[1:-1].split(f',"{_APART}",')
    for text in texts:
        if len(text) > MAX_INTEGER_DIGITS and _MANY_DIGITS.search(text):
            return None
    return texts


_APART = token_hex(16)
"""It is never told to anybody, so that no value of a user can hold it."""


def _is_plain(value: Any) -> bool:
    # A loop rather than a recursion: half of the time. The list grows as it is read.
    found = [value]
    for each in found:
        kind = type(each)
        if kind is dict:
            for key, item in each.items():
                if type(key) is not str:
                    return False
                if type(item) not in JSON_ATOMS:
                    found.append(item)
        elif kind is list:
            for item in each:
                if type(item) not in JSON_ATOMS:
                    found.append(item)  # noqa: PERF401  (one of two ways to get there)
        elif kind not in JSON_ATOMS:
            return False
        if len(found) > _MANY:
            return False  # a great deal, or it contains itself
    return True


def encode_with_care(value: Any, what: str) -> str:
    """Encode what the fast way refused, or say where it cannot be encoded."""
    try:
        culprit = _find_culprit(value, "", frozenset())
    except RecursionError:  # called from deep within another recursion
        culprit = "", "it is nested too deeply"
    if culprit:
        path, reason = culprit
        place = f"{path.lstrip('.')[:200]}: " if path else ""
        raise EventSerialisationError(
            f"{what} cannot be written as JSON: {place}{reason}; "
            "convert it to what JSON can hold"
        )
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    try:
        text.encode()
    except UnicodeEncodeError:
        # Two surrogates are read back as the one character that they stand for.
        text = text.encode("utf-16-le", "surrogatepass").decode(
            "utf-16-le", "surrogatepass"
        )
        try:
            text.encode()
        except UnicodeEncodeError:  # one alone can only be written as an escape
            return json.dumps(value, separators=(",", ":"))
    return text


def _find_culprit(
    value: Any, path: str, above: frozenset[int]
) -> tuple[str, str] | None:
    """Return the path of the first thing that JSON cannot represent, and why.

    Args:
        value: Where to search.
        path: The path of `value`, each step with its separator.
        above: The ids of what contains `value`.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        if abs(value) < _TOO_LONG:
            return None
        return path, f"an integer of more than {MAX_INTEGER_DIGITS} digits"
    if value is None or isinstance(value, str | float | bool):
        return None
    if not isinstance(value, dict | list | tuple):
        return path, f"a value of type {type(value).__name__}"
    if id(value) in above:
        return path, "it contains itself"
    if len(above) == MAX_NESTING:
        return "", f"it is nested more than {MAX_NESTING} levels deep"
    within = above | {id(value)}
    for step, item in _children(value):
        if step is None:
            return path, f"a key of type {type(item).__name__}"
        culprit = _find_culprit(item, path + step, within)
        if culprit:
            return culprit
    return None


def _children(
    value: dict[Any, Any] | list[Any] | tuple[Any, ...],
) -> Iterator[tuple[str | None, Any]]:
    """Yield the step to each child and the child; None as the step to a bad key."""
    if not isinstance(value, dict):
        for index, item in enumerate(value):
            yield f"[{index}]", item
        return
    for key, item in value.items():
        if key is not None and not isinstance(key, str | int | float):
            yield None, key
        yield f".{key}", item
