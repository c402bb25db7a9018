"""What the commands share: how a store is named, and how a command ends."""

from __future__ import annotations

import asyncio
import getpass
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias, TypeVar

import typer

from tracker_store_async.auditing import MAX_LENGTH, acting_as
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


def run(work: Coroutine[object, object, T], purpose: str = "read") -> T:
    """Run a command to its end.

    Args:
        work: The command.
        purpose: What an audit trail says of what it reads.
    """
    with command(purpose):
        return asyncio.run(work)


def person() -> str:
    """Return who runs the command, for an audit trail."""
    try:
        return f"command line: {getpass.getuser()}"[:MAX_LENGTH]
    except (KeyError, OSError):  # a container may have no name for its user
        return "command line"


@contextmanager
def command(purpose: str = "read") -> Iterator[None]:
    """Act as the person at the terminal, and end at Ctrl-C or a broken pipe.

    typer would end it in its own way.

    Args:
        purpose: What an audit trail says of what is read.

    Raises:
        Exit: One of them has happened.
    """
    try:
        with acting_as(person(), purpose):
            yield
        sys.stdout.flush()
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    except BrokenPipeError:
        abandon_stdout()
        raise typer.Exit(READER_GONE) from None
