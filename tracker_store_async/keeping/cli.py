"""The commands that keep data: their options; the work is elsewhere."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003  typer reads the annotations
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from tracker_store_async.inspection.invocation import Db, Endpoints, Url, run
from tracker_store_async.inspection.targets import find_target
from tracker_store_async.inspection.terminal import make_console

if TYPE_CHECKING:
    from collections.abc import Callable

DryRun: TypeAlias = Annotated[
    bool, typer.Option("--dry-run", help="Change nothing; say what would be done.")
]
After: TypeAlias = Annotated[
    str | None,
    typer.Option("--after", metavar="CURSOR", help="Go on where it was stopped."),
]
OlderThan: TypeAlias = Annotated[
    str | None,
    typer.Option("--older-than", metavar="AGE", help="Such as 90d, 12h or 8w."),
]
User: TypeAlias = Annotated[
    str | None,
    typer.Option("--user", metavar="ID", help="The conversations of this user."),
]


def prune(
    db: Db = None,
    url: Url = None,
    endpoints: Endpoints = None,
    older_than: OlderThan = None,
    keep_last_sessions: Annotated[
        int | None, typer.Option("--keep-last-sessions", metavar="N", min=1)
    ] = None,
    keep_last_events: Annotated[
        int | None, typer.Option("--keep-last-events", metavar="N", min=1)
    ] = None,
    dry_run: DryRun = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object a conversation that is cut.")
    ] = False,
    after: After = None,
) -> None:
    """Erase what is old, or more than is to be kept.

    --older-than erases conversations without a newer save, and the old beginning of
    others. --keep-last-sessions and --keep-last-events keep so many of each
    conversation, however old. The latest session stays whole, or goes with its
    conversation; only --keep-last-events cuts it, and keeps what its state rests on.

    \b
    Examples:
      tracker-store prune --older-than 90d --dry-run
      tracker-store prune --older-than 90d --endpoints endpoints.yml
      tracker-store prune --older-than 30d --keep-last-sessions 2
      tracker-store prune --keep-last-events 1000
    """
    from tracker_store_async.keeping.commands import prune_store

    run(
        prune_store(
            make_console(),
            find_target(db, url, endpoints),
            older_than=older_than,
            keep_last_sessions=keep_last_sessions,
            keep_last_events=keep_last_events,
            dry_run=dry_run,
            as_json=as_json,
            after=after,
        ),
        "prune",
    )


def delete(
    sender_id: Annotated[
        str | None, typer.Argument(metavar="SENDER_ID", help="The conversation.")
    ] = None,
    db: Db = None,
    url: Url = None,
    endpoints: Endpoints = None,
    user: User = None,
    dry_run: DryRun = False,
) -> None:
    """Erase a conversation, or all conversations of a user.

    \b
    Examples:
      tracker-store delete alice --db conversations.db
      tracker-store delete --user account-17 --dry-run
    """
    from tracker_store_async.keeping.commands import delete_conversations

    run(
        delete_conversations(
            make_console(),
            find_target(db, url, endpoints),
            sender_id=sender_id,
            user_id=user,
            dry_run=dry_run,
        )
    )


def anonymise(
    rules: Annotated[
        Path, typer.Argument(metavar="RULES", help="A YAML file; docs/keeping.md.")
    ],
    db: Db = None,
    url: Url = None,
    endpoints: Endpoints = None,
    user: User = None,
    older_than: OlderThan = None,
    dry_run: DryRun = False,
    after: After = None,
) -> None:
    """Hide, hash or replace what is stored, by rules.

    Each conversation is rewritten as a whole or not at all. It may be run again.

    \b
    Examples:
      tracker-store anonymise rules.yml --older-than 30d --dry-run
      tracker-store anonymise rules.yml --user account-17
    """
    from tracker_store_async.keeping.commands import anonymise_store

    run(
        anonymise_store(
            make_console(),
            find_target(db, url, endpoints),
            rules,
            user_id=user,
            older_than=older_than,
            dry_run=dry_run,
            after=after,
        ),
        "anonymise",
    )


def optimize(
    db: Db = None,
    url: Url = None,
    endpoints: Endpoints = None,
    dry_run: DryRun = False,
) -> None:
    """Have the storage take less room and answer faster.

    It says what it will do, does it, and says what that gained.
    """
    from tracker_store_async.keeping.upkeep_commands import optimize_store

    target = find_target(db, url, endpoints)
    run(optimize_store(make_console(), target, dry_run=dry_run))


def stats(
    db: Db = None,
    url: Url = None,
    endpoints: Endpoints = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object.")
    ] = False,
    picture: Annotated[
        Path | None,
        typer.Option(
            "--plot", metavar="FILE", help="Draw it, too: a .png, .svg or .pdf."
        ),
    ] = None,
) -> None:
    """Count conversations, events and bytes; show growth and the longest.

    \b
    Examples:
      tracker-store stats --db conversations.db
      tracker-store stats --plot growth.png
    """
    from tracker_store_async.keeping.upkeep_commands import show_statistics

    target = find_target(db, url, endpoints)
    counting = show_statistics(make_console(), target, as_json=as_json, picture=picture)
    run(counting, "statistics")


COMMANDS: tuple[Callable[..., None], ...] = (
    prune,
    delete,
    anonymise,
    optimize,
    stats,
)


def add_commands(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    for command in COMMANDS:
        app.command()(command)
