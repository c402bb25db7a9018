"""Where the tests find what the real Rasa 3.6.21 wrote and answered.

The full data lies in `shared/golden` next to the repository. Where it does not, a part
of it does: `tests/data/golden`, the same files with fewer conversations. Tests must
pass with both; `TRACKER_STORE_GOLDEN` names the folder to use.
"""

from __future__ import annotations

import gzip
import json
import os
from functools import cache
from pathlib import Path
from typing import Any

VERSION = "oss-3.6.21"
TESTS = Path(__file__).parent
FULL = TESTS.parents[1] / "shared" / "golden"
SELECTION = TESTS / "data" / "golden"


def _folder() -> Path:
    named = os.environ.get("TRACKER_STORE_GOLDEN")
    if named:
        return Path(named) / VERSION
    return (FULL if (FULL / VERSION).is_dir() else SELECTION) / VERSION


FOLDER = _folder()


def path(name: str) -> Path:
    """Return the path of a golden file, such as `sqlite/rasa.db` or `domain.yml`."""
    found = FOLDER / name
    if not found.is_file():
        raise FileNotFoundError(f"no golden file {name} in {FOLDER}")
    return found


@cache
def text(name: str) -> str:
    """Return the text of `<name>.json` or `<name>.json.gz`."""
    packed = FOLDER / f"{name}.json.gz"
    if packed.is_file():
        return gzip.decompress(packed.read_bytes()).decode()
    return path(f"{name}.json").read_text(encoding="utf-8")


def load(name: str) -> Any:
    """Parse `<name>.json` or `<name>.json.gz`; each call returns an object of its own.

    Args:
        name: Such as `inputs`, `answers`, `deserialise` or `broker/redis`.
    """
    return json.loads(text(name))


def conversations() -> list[dict[str, Any]]:
    """Return the conversations that Rasa was given: `sender_id`, `turns` and more."""
    found: list[dict[str, Any]] = load("inputs")["conversations"]
    return found


def sender_ids() -> list[str]:
    """Return the sender ids of the conversations, in order."""
    return [conversation["sender_id"] for conversation in conversations()]
