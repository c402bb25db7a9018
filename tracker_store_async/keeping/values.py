"""What becomes of a value: part of it is hidden, it is hashed, or replaced.

Each of them gives the same again for what it has given before, so that rules may be
applied twice.
"""

from __future__ import annotations

import hmac
import re
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

HASHED = re.compile(r"hmac:[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class Mask:
    """Hides all characters but some at the ends.

    A text that is not longer than what may be seen is hidden whole.

    Attributes:
        keep_left: Characters that stay at the beginning.
        keep_right: Characters that stay at the end.
        mark: What stands for each of the others.
    """

    keep_left: int = 0
    keep_right: int = 0
    mark: str = "*"

    def __call__(self, text: str) -> str:
        """Return the masked text."""
        hidden = len(text) - self.keep_left - self.keep_right
        if hidden <= 0:
            return self.mark * len(text)
        end = text[len(text) - self.keep_right :]
        return text[: self.keep_left] + self.mark * hidden + end


@dataclass(frozen=True, slots=True)
class Hash:
    """Puts a keyed hash (HMAC-SHA-256) there: equal values stay equal.

    Attributes:
        key: The secret. Without it nobody can try out what a value was.
    """

    key: bytes

    def __call__(self, text: str) -> str:
        """Return `hmac:` and 32 hexadecimal digits."""
        if HASHED.fullmatch(text):
            return text
        data = text.encode(errors="surrogatepass")  # half an emoji is text, too
        return f"hmac:{hmac.new(self.key, data, sha256).hexdigest()[:32]}"

    def __repr__(self) -> str:
        """Leave the secret out."""
        return "Hash()"


@dataclass(frozen=True, slots=True)
class Replace:
    """Puts one text there for every value.

    Attributes:
        text: The text.
    """

    text: str = "[removed]"

    def __call__(self, text: str) -> str:
        """Return the replacement."""
        return self.text


def changed(value: Any, change: Callable[[str], str]) -> Any:
    """Return a JSON value with every text and number in it changed.

    Args:
        value: Text, a number, a list or an object of them; null, true and false stay.
        change: What becomes of a text; a number is changed as its text.
    """
    if isinstance(value, str):
        return change(value) if value else value
    # No comprehensions: each takes a further level of the stack for a level of these.
    if isinstance(value, list):
        items = []
        for each in value:
            items.append(changed(each, change))  # noqa: PERF401
        return items
    if isinstance(value, dict):
        fields = {}
        for name, each in value.items():
            fields[name] = changed(each, change)
        return fields
    if value is None or isinstance(value, bool):
        return value
    return change(str(value))


def copied(value: Any) -> Any:
    """Return a copy of a JSON value."""
    if isinstance(value, list):
        items = []
        for each in value:
            items.append(copied(each))  # noqa: PERF401
        return items
    if isinstance(value, dict):
        fields = {}
        for name, each in value.items():
            fields[name] = copied(each)
        return fields
    return value


def texts_in(value: Any) -> set[str]:
    """Return every text and number in a JSON value, as text."""
    if isinstance(value, list):
        return set().union(*map(texts_in, value))
    if isinstance(value, dict):
        return set().union(*map(texts_in, value.values()))
    return set() if value is None or isinstance(value, bool) else {str(value)}
