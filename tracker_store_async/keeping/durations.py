"""Ages as people write them: `90d`, `12h`."""

from __future__ import annotations

import re

from tracker_store_async.errors import InvalidInputError

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_WRITTEN = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")


def seconds_of(text: str) -> float:
    """Return the seconds of an age such as `90d`.

    Args:
        text: A number and one of `s`, `m`, `h`, `d` and `w`.

    Raises:
        InvalidInputError: It is written in another way.
    """
    found = _WRITTEN.fullmatch(text.strip())
    if found is None:
        raise InvalidInputError(
            f"{text!r} is no age: write a number and s, m, h, d or w, such as 90d"
        )
    return float(found[1]) * _SECONDS[found[2]]
