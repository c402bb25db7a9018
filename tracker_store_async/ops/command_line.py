"""The parts of the `tracker-store` command that operate a store."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from tracker_store_async.errors import EncryptionKeyError
from tracker_store_async.inspection.targets import find_target

Db: TypeAlias = Annotated[
    str | None, typer.Option("--db", metavar="FILE", help="The store: a SQLite file.")
]
Endpoints: TypeAlias = Annotated[
    Path | None,
    typer.Option("--endpoints", metavar="FILE", help="The store: an endpoints.yml."),
]

encryption_app = typer.Typer(
    help="Make and rotate the keys of encryption at rest.",
    rich_markup_mode=None,
    no_args_is_help=True,
)


@encryption_app.command("new-key")
def new_key() -> None:
    """Print a new master key: 32 random bytes in base64. Keep it secret."""
    from tracker_store_async.encryption.keyring import generate_key

    typer.echo(generate_key())


@encryption_app.command()
def reseal(endpoints: Endpoints = None) -> None:
    """Wrap the data key of every conversation with the active master key.

    Do it after every process has the new key. It can be run again at any time, and
    others may read and save meanwhile.
    """
    from tracker_store_async.factory import create_tracker_store
    from tracker_store_async.ops.resealing import Resealed, reseal_all

    target = find_target(None, None, endpoints)

    async def work() -> Resealed:
        async with create_tracker_store(target.config) as store:
            return await reseal_all(store)

    done = asyncio.run(work())
    typer.echo(f"{done.resealed} of {done.conversations} conversations resealed")
    if done.unreadable:
        raise EncryptionKeyError(
            f"{len(done.unreadable)} conversations have a key that is not configured "
            f"or was erased, the first: {done.unreadable[0]!r}"
        )
