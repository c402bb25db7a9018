"""What the commands share: how a store is named, and how a command ends."""

from __future__ import annotations

import asyncio
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias, TypeVar

import typer

from tracker_store_async.inspection.targets import URL_VARIABLE
from tracker_store_async.inspection.terminal import abandon_stdout

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator

T = TypeVar("T")

FAILED, WRONG_USAGE, INTERRUPTED, READER_GONE = 1, 2, 130, 141
"""Exit codes."""

Db: TypeAlias = Annotated[
    str | None, typer.Option("--db", metavar="FILE", help="The store: a SQLite file.")
]
Url: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--url",
        metavar="URL",
        help="The store: a URL such as postgresql://user@host/db. Others on this "
        f"machine may see a password in it; set {URL_VARIABLE} instead.",
    ),
]
Endpoints: TypeAlias = Annotated[
    Path | None,
    typer.Option("--endpoints", metavar="FILE", help="The store: an endpoints.yml."),
]


def run(work: Coroutine[object, object, T]) -> T:
    """Run a command to its end."""
    with quiet_end():
        return asyncio.run(work)


@contextmanager
def quiet_end() -> Iterator[None]:
    """End at Ctrl-C or a broken pipe; typer would do it in its own way.

    Raises:
        Exit: One of them has happened.
    """
    try:
        yield
        sys.stdout.flush()
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    except BrokenPipeError:
        abandon_stdout()
        raise typer.Exit(READER_GONE) from None
