"""Running the work of a command to its end, to Ctrl-C or to a broken pipe."""

from __future__ import annotations

import asyncio
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from tracker_store_async.inspection.terminal import abandon_stdout

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator

FAILED, WRONG_USAGE, INTERRUPTED, READER_GONE = 1, 2, 130, 141


def run(work: Coroutine[object, object, bool | None]) -> bool | None:
    """Run a command's coroutine and return what it returns."""
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
