"""The commands of `tracker-store` that move data: their options and exit codes."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from tracker_store_async.errors import ConfigurationError, InvalidInputError
from tracker_store_async.inspection.invocation import (
    FAILED,
    Db,
    Endpoints,
    Url,
    run,
)
from tracker_store_async.inspection.targets import (
    DEFAULT_ENDPOINTS,
    Target,
    find_target,
)
from tracker_store_async.inspection.terminal import make_console

From: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="STORE",
        help="Where from: an endpoints.yml, a URL or a SQLite file; the same as one of "
        "--endpoints, --url and --db. It is only read.",
    ),
]
To: TypeAlias = Annotated[
    str,
    typer.Option(
        "--to",
        metavar="STORE",
        help="Where to: an endpoints.yml, a URL, a SQLite file.",
    ),
]
State: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--state",
        metavar="FILE",
        help="Remembers how far it is; by default a file here, named after the move.",
    ),
]
Conversations: TypeAlias = Annotated[
    str | None,
    typer.Option("--conversations", metavar="IDS", help="Only these, with commas."),
]


class Format(StrEnum):
    """How a transcript is written."""

    TEXT = "text"
    MARKDOWN = "markdown"
    HTML = "html"


def migrate(
    target: To,
    source: From = None,
    db: Db = None,
    url: Url = None,
    endpoints: Endpoints = None,
    concurrency: Annotated[
        int,
        typer.Option(
            "--concurrency", metavar="N", min=1, help="Conversations in flight."
        ),
    ] = 800,
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare everything afterwards.")
    ] = False,
    only_verify: Annotated[
        bool, typer.Option("--only-verify", help="Compare, and copy nothing.")
    ] = False,
    state: State = None,
    delete_missing: Annotated[
        bool,
        typer.Option(
            "--delete-missing", help="Erase in the target what the source has not."
        ),
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Only say what --delete-missing would erase; copy nothing.",
        ),
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="Do erase it: --delete-missing needs this.")
    ] = False,
) -> None:
    """Copy every conversation of a store into another one, exactly.

    Event rows, ids, positions, times, users, expiry and states are the same to the
    byte. What Rasa wrote (SQL, Redis, MongoDB, DynamoDB) is read where it lies.

    Stop it with Ctrl-C at any moment and run it again: it goes on. Run it again
    while the source is still written to: it brings the rest. What the target has
    and is not the same is reported (exit code 1) and never overwritten, unless
    --delete-missing is given: then what was erased in the source, or begun anew
    there, is erased in the target too. The source is --from, or as with any command.

    \b
    Examples:
      tracker-store migrate --from old.yml --to new.yml --verify
      tracker-store migrate --from rasa.db --to postgresql://me@localhost/rasa
    """
    from tracker_store_async.moving.commands import (
        list_missing,
        migrate_stores,
        named_store,
    )

    ours = _store("--from", source, db, url, endpoints)
    theirs = named_store(target)
    if problem := _wrong_deletion(delete_missing, dry_run, yes, only_verify):
        raise InvalidInputError(problem)
    if dry_run:
        run(list_missing(make_console(), ours, theirs), "export")
        return
    is_complete = run(
        migrate_stores(
            make_console(),
            ours,
            theirs,
            concurrency=concurrency,
            check=verify,
            only_check=only_verify,
            state_path=state,
            delete_missing=delete_missing,
        ),
        "export",
    )
    raise typer.Exit(0 if is_complete else FAILED)


def _wrong_deletion(delete: bool, dry_run: bool, yes: bool, only_verify: bool) -> str:
    """Return what is wrong with options that erase in the target, or nothing."""
    if not delete:
        what = "--dry-run" if dry_run else "--yes" if yes else ""
        return f"{what} goes with --delete-missing" if what else ""
    if only_verify:
        return "--only-verify changes nothing: leave --delete-missing out"
    if dry_run == yes:
        return (
            "--delete-missing erases in the target: look first with --dry-run, then "
            "say --yes"
        )
    return ""


def backup(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A new .jsonl.gz or .jsonl.zst.")
    ],
    source: From = None,
    db: Db = None,
    url: Url = None,
    endpoints: Endpoints = None,
    conversations: Conversations = None,
    from_time: Annotated[
        str | None,
        typer.Option("--from-time", metavar="TIME", help="Updated then or later."),
    ] = None,
    to_time: Annotated[
        str | None,
        typer.Option("--to-time", metavar="TIME", help="Updated before then."),
    ] = None,
    since_last: Annotated[
        Path | None,
        typer.Option(
            "--since-last",
            metavar="FILE",
            help="Those that are not what the backup that wrote this file has.",
        ),
    ] = None,
) -> None:
    """Write conversations into one compressed file that a human can read.

    The file appears whole or not at all. After Ctrl-C the same command goes on.
    A TIME is such as 2026-03-14, 2026-03-14T18:02:11+01:00 or seconds since 1970.

    \b
    Examples:
      tracker-store backup --from endpoints.yml monday.jsonl.zst
      tracker-store backup --from endpoints.yml --since-last last.state tue.jsonl.gz
    """
    from tracker_store_async.moving.backup import Selection
    from tracker_store_async.moving.commands import back_up

    selection = Selection(_ids(conversations), _moment(from_time), _moment(to_time))
    if since_last is not None and since_last.absolute() == file.absolute():
        raise InvalidInputError("--since-last names another file than the backup")
    store = _store("--from", source, db, url, endpoints)
    run(back_up(make_console(), store, file, selection, since_last), "export")


def restore(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The backup.")],
    target: Annotated[
        str | None,
        typer.Option(
            "--to",
            metavar="STORE",
            help="Where to: an endpoints.yml, a URL or a SQLite file; the same as one "
            "of --endpoints, --url and --db.",
        ),
    ] = None,
    db: Db = None,
    url: Url = None,
    endpoints: Endpoints = None,
) -> None:
    """Bring the conversations of a backup into a store, exactly.

    The whole file is checked first, and a damaged one refused before anything is
    written. What the store has already is treated as `migrate` does. Backups made
    with --since-last are restored in their order, the newest last.
    """
    from tracker_store_async.moving.commands import restore_file

    store = _store("--to", target, db, url, endpoints)
    restoring = restore_file(make_console(), file, store)
    is_complete = run(restoring, "restore")
    raise typer.Exit(0 if is_complete else FAILED)


def export(
    db: Db = None,
    url: Url = None,
    endpoints: Annotated[
        Path | None,
        typer.Option(
            "--endpoints",
            metavar="FILE",
            help="Names the event broker, and the store where nothing else does.",
        ),
    ] = None,
    minimum_timestamp: Annotated[
        str | None,
        typer.Option(
            "--minimum-timestamp", metavar="TIME", help="Only events then or later."
        ),
    ] = None,
    maximum_timestamp: Annotated[
        str | None,
        typer.Option(
            "--maximum-timestamp", metavar="TIME", help="Only events before then."
        ),
    ] = None,
    conversation_ids: Annotated[
        str | None,
        typer.Option(
            "--conversation-ids", metavar="IDS", help="Only these, with commas."
        ),
    ] = None,
    offset: Annotated[
        int | None,
        typer.Option(
            "--offset-timestamps-by-seconds",
            metavar="N",
            help="Add so much to every timestamp.",
        ),
    ] = None,
    state: State = None,
) -> None:
    """Publish stored events to the event broker, as `rasa export` does.

    The events of a conversation come in order, each confirmed by the broker, with
    the id that they are stored under. After Ctrl-C the same command goes on.
    A TIME is seconds since 1970, or such as 2026-03-14 or 2026-03-14T18:02:11+01:00.
    """
    from tracker_store_async.moving.commands import export_store

    # of the store: with --db and --url the file is for the broker alone
    section = endpoints if db is None and url is None else None
    run(
        export_store(
            make_console(),
            find_target(db, url, section),
            endpoints or Path(DEFAULT_ENDPOINTS),
            conversation_ids=_ids(conversation_ids),
            state_path=state,
            minimum_timestamp=_moment(minimum_timestamp),
            maximum_timestamp=_moment(maximum_timestamp),
            offset_timestamps_by_seconds=offset,
        ),
        "export",
    )


def transcript(
    sender_id: Annotated[
        str, typer.Argument(metavar="SENDER_ID", help="The conversation.")
    ],
    source: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="STORE",
            help="An endpoints.yml, a URL or a SQLite file; the same as one of "
            "--endpoints, --url and --db.",
        ),
    ] = None,
    db: Db = None,
    url: Url = None,
    endpoints: Endpoints = None,
    format_name: Annotated[
        Format, typer.Option("--format", help="How it is written.")
    ] = Format.TEXT,
    verbose: Annotated[
        bool,
        typer.Option("--verbose", "-v", help="Also what the assistant did."),
    ] = False,
) -> None:
    """Write a conversation as a person likes to read it.

    \b
    Examples:
      tracker-store transcript alice --db conversations.db
      tracker-store transcript alice --format html > alice.html
    """
    from tracker_store_async.moving.commands import write_transcript

    store = _store("--from", source, db, url, endpoints)
    writing = write_transcript(store, sender_id, format_name.value, complete=verbose)
    run(writing, "export")


def _store(
    option: str, name: str | None, db: str | None, url: str | None, file: Path | None
) -> Target:
    """Return the store that an option such as `--from` names, or that others name."""
    from tracker_store_async.moving.commands import named_store

    if name is None:
        return find_target(db, url, file)
    if any(each is not None for each in (db, url, file)):
        raise ConfigurationError(
            f"give only one of {option}, --db, --url and --endpoints"
        )
    return named_store(name)


def _moment(text: str | None) -> float | None:
    """Return a time that was given, in seconds since the epoch."""
    from tracker_store_async.moving.moments import moment_of

    return None if text is None else moment_of(text)


def _ids(text: str | None) -> list[str] | None:
    """Return ids that were given with commas between them."""
    if text is None:
        return None
    return [each for each in (part.strip() for part in text.split(",")) if each]


def add_commands(app: typer.Typer) -> None:
    """Add the commands to the application."""
    for command in (migrate, backup, restore, export, transcript):
        app.command()(command)
