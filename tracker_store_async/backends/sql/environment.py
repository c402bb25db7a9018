"""Rasa's environment variables for PostgreSQL."""

from __future__ import annotations

import os

_POOL_VARIABLES = {
    "pool_size": ("SQL_POOL_SIZE", "POSTGRESQL_POOL_SIZE"),
    "max_overflow": ("SQL_MAX_OVERFLOW", "POSTGRESQL_MAX_OVERFLOW"),
}
"""Option to the variables that give its value, first one first.

Rasa's code reads the `SQL_` names; its own constants, and some of its texts, call them
by the `POSTGRESQL_` ones.
"""

_SCHEMA_VARIABLE = "POSTGRESQL_SCHEMA"


def pool_from_environment(option: str) -> int | None:
    """Return what the environment says of `pool_size` or `max_overflow`, or None.

    Raises:
        ValueError: It is not a whole number; the text names the variable.
    """
    for name in _POOL_VARIABLES[option]:
        text = os.environ.get(name)
        if text:
            if not text.isdecimal():
                raise ValueError(
                    f"the environment variable {name} must be a whole number"
                )
            return int(text)
    return None


def schema_from_environment() -> str | None:
    """Return the schema that the environment names, or None."""
    return os.environ.get(_SCHEMA_VARIABLE) or None
