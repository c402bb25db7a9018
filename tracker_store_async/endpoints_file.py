"""Reads an `endpoints.yml` into plain data, without ever quoting it in an error.

YAML 1.2, as in Rasa: `yes` and `on` are text. A number that is not written in plain
decimal form (`0123`, `0x1F`) keeps its text, so that a password of digits stays whole.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tracker_store_async.errors import ConfigurationError

if TYPE_CHECKING:
    from ruamel.yaml import YAML


def read_sections(path: str | Path) -> dict[str, Any]:
    """Return the sections of an endpoints file, with no variable expanded.

    Args:
        path: The file.

    Returns:
        Section name to what stands in it; empty for an empty file.

    Raises:
        ConfigurationError: The file cannot be read, is not YAML or is not a mapping.
    """
    from ruamel.yaml.error import YAMLError

    text = _read_text(Path(path))
    try:
        content = _parser().load(text)
    except (YAMLError, ValueError, KeyError) as error:  # a date that is none, a tag
        raise ConfigurationError(_describe(error, path)) from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigurationError(
            f"{path}: must hold sections such as 'tracker_store:', each with its keys"
        )
    return {str(name): section for name, section in content.items()}


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ConfigurationError(f"{path}: there is no such endpoints file") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{path}: is not text in UTF-8") from None
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}") from error


def _parser() -> YAML:
    from ruamel.yaml import YAML

    # The pure parser is YAML 1.2; the one in C is 1.1.
    yaml = YAML(typ="safe", pure=True)
    yaml.Constructor = _constructor_class()
    return yaml


@functools.cache
def _constructor_class() -> type[Any]:
    from ruamel.yaml.constructor import SafeConstructor

    class PlainConstructor(SafeConstructor):
        """Keeps the text of whole numbers that are not in plain decimal form."""

        def construct_plain_int(self, node: Any) -> int | str:
            number = int(self.construct_yaml_int(node))
            return number if str(number) == node.value else str(node.value)

    PlainConstructor.add_constructor(
        "tag:yaml.org,2002:int", PlainConstructor.construct_plain_int
    )
    return PlainConstructor


def _describe(error: Exception, path: str | Path) -> str:
    """Say where the file is wrong; the parser's own words may quote a password."""
    from ruamel.yaml.constructor import DuplicateKeyError

    mark = getattr(error, "problem_mark", None)
    where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
    if isinstance(error, DuplicateKeyError):
        return f"{path}: the same key is given twice{where}"
    return (
        f"{path}: is not valid YAML{where}; check the indentation, and put values with "
        "special characters into quotes"
    )
