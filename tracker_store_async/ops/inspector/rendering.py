"""Templates to HTML: every value is escaped, and no character can hide or turn text."""

from __future__ import annotations

import hashlib
import re
from functools import cache
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from tracker_store_async.inspection.terminal import date_and_time, printable

STATIC_TYPES = {
    "inspector.css": "text/css; charset=utf-8",
    "inspector.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}

_BREAKS = re.compile(r"\r\n|\r")


def visible(value: Any) -> Any:
    """Return a text with control characters written as escapes; lines stay lines."""
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    lines = _BREAKS.sub("\n", value).replace("\t", "    ").split("\n")
    return "\n".join(map(printable, lines))


@cache
def static_file(name: str) -> bytes:
    """Return a file that pages refer to."""
    return resources.files(__package__).joinpath("static", name).read_bytes()


@cache
def versioned(name: str) -> str:
    """Return the link to a file, another one whenever the file is."""
    digest = hashlib.sha256(static_file(name)).hexdigest()
    return f"{name}?v={digest[:12]}"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader(__package__ or "", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["versioned"] = versioned
    environment.filters["when"] = date_and_time
    environment.filters["number"] = lambda value: f"{value:,}"
    return environment


def render(template: str, **values: Any) -> str:
    """Return a filled template.

    Args:
        template: Name of its file.
        values: What it shows.
    """
    return _environment().get_template(template).render(values)
