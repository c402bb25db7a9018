"""`${VARIABLE}` in configuration values, replaced from the environment.

Rasa's rule (`rasa/shared/utils/io.py`): `${NAME}` anywhere in a scalar stands for the
environment variable of that name, and a name that is not set is an error. There are no
defaults (`${NAME:-x}`), and the result is always text. What a variable holds is taken
as it is and never expanded again. Unlike Rasa, `$NAME` without braces stays what it is,
so that a password may hold a dollar sign.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

from tracker_store_async.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

_REFERENCE = re.compile(r"\$\{([^}]*)\}")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def expand_environment(
    value: Any, key_path: str, environment: Mapping[str, str] | None = None
) -> Any:
    """Return `value` with every `${NAME}` in its texts replaced.

    Args:
        value: A scalar, or mappings and lists of them, as YAML gives them.
        key_path: Where the value stands, such as `tracker_store.password`, for errors.
        environment: The variables; None takes the process's own.

    Raises:
        ConfigurationError: A variable is not set, or `${...}` holds no variable name.
            The text names the key and the variable, and no value.
    """
    known = os.environ if environment is None else environment
    if isinstance(value, str):
        return _REFERENCE.sub(lambda found: _look_up(found[1], key_path, known), value)
    if isinstance(value, dict):
        return {
            key: expand_environment(item, f"{key_path}.{key}", known)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [
            expand_environment(item, f"{key_path}[{index}]", known)
            for index, item in enumerate(value)
        ]
    return value


def _look_up(name: str, key_path: str, environment: Mapping[str, str]) -> str:
    # What stands between the braces is shown only where it is a plain name: anything
    # else may be part of a password.
    if _NAME.fullmatch(name) is None:
        raise ConfigurationError(
            f"{key_path}: '${{...}}' must hold the name of one environment variable; "
            "put a value that itself holds '${' into an environment variable"
        )
    try:
        return environment[name]
    except KeyError:
        raise ConfigurationError(
            f"{key_path}: the environment variable {name} is not set"
        ) from None
