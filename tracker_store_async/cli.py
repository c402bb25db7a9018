"""The `tracker-store` command: options and exit codes; what it does is elsewhere."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from tracker_store_async import __version__, cli_moving, errors
from tracker_store_async.inspection.invocation import (
    FAILED,
    INTERRUPTED,
    WRONG_USAGE,
    Db,
    Endpoints,
    Url,
    command,
    run,
)
from tracker_store_async.inspection.targets import (
    DEFAULT_ENDPOINTS,
    URL_VARIABLE,
    find_target,
)
from tracker_store_async.inspection.terminal import (
    log_warnings,
    make_console,
    one_line,
    prepare_streams,
)
from tracker_store_async.keeping.cli import add_commands
from tracker_store_async.ops import command_line as operating

UsageError: type[Exception] = typer.BadParameter.__mro__[1]
"""typer brings click with it, in some versions as a private module."""

app = typer.Typer(
    help=f"""Look at, check, upgrade, move, back up and keep stores of conversations.

    Looking changes nothing: no table and no file is created. `prune`, `delete`,
    `anonymise` and `optimize` change what is stored, and have --dry-run.

    \b
    The store is --db FILE, --url URL or --endpoints FILE. Without one of them
    it is the URL in {URL_VARIABLE}, or else ./{DEFAULT_ENDPOINTS}.
    `audit` and `encryption reseal` want an endpoints file.

    \b
    Exit codes:
      0    it worked
      1    it failed, was not found or cannot be reached
      2    the command line or the configuration is wrong
      130  interrupted by Ctrl-C
      141  the reader of the output, such as head, went away

    \b
    Examples:
      tracker-store demo
      tracker-store show alice --db conversations.db
      tracker-store list --limit 20 --endpoints endpoints.yml
      TRACKER_STORE_URL=postgresql://user@localhost/rasa tracker-store check
    """,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
schema_app = typer.Typer(
    help="Show or upgrade the layout of what is stored.",
    rich_markup_mode=None,
    no_args_is_help=True,
)
app.add_typer(schema_app, name="schema")
add_commands(app)
app.add_typer(operating.encryption_app, name="encryption")
app.add_typer(operating.audit_app, name="audit")
app.command()(operating.serve)


@app.callback(invoke_without_command=True)
def options(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.")
    ] = False,
) -> None:
    if version:
        typer.echo(f"tracker-store {__version__}")
        raise typer.Exit


@app.command()
def demo(
    db: Annotated[
        Path, typer.Option("--db", metavar="FILE", help="The SQLite file to use.")
    ] = Path("tracker-store-demo.db"),
    users: Annotated[
        int,
        typer.Option(
            "--users", metavar="N", min=1, max=500, help="How many book at once."
        ),
    ] = 3,
) -> None:
    """See a small restaurant assistant being killed and resumed, on a SQLite file.

    Several users book a table at the same time. The process that answers them is
    killed in the middle, a second one goes on from the file. Conversations that
    Rasa wrote are stored beside them, and one is resumed.

    What the file holds already stays: run it as often as you like.
    """
    from tracker_store_async.demo.story import Demo

    run(Demo(make_console(), db, users).run())


@app.command()
def show(
    sender_id: Annotated[
        str, typer.Argument(metavar="SENDER_ID", help="The conversation.")
    ],
    db: Db = None,
    url: Url = None,
    endpoints: Endpoints = None,
    all_sessions: Annotated[
        bool, typer.Option("--all-sessions", help="Not only the latest session.")
    ] = False,
    last: Annotated[
        int | None,
        typer.Option("--last", metavar="N", min=1, help="Only the last N events."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print Rasa's JSON of the tracker, exactly.")
    ] = False,
    domain: Annotated[
        Path | None,
        typer.Option(
            "--domain",
            metavar="PATH",
            help="Domain whose slots to show, with their initial values.",
        ),
    ] = None,
    verbose: Annotated[
        bool,
        typer.Option("--verbose", "-v", help="Every event, and values at any length."),
    ] = False,
) -> None:
    """Show a conversation as a timeline, or as JSON.

    Each line is an event: its position in the log, its time and what it says.

    \b
    Examples:
      tracker-store show alice --db conversations.db
      tracker-store show alice --all-sessions --verbose
      tracker-store show alice --last 10
      tracker-store show alice --json | jq .slots
      tracker-store show -- -an-id-that-begins-with-a-dash
    """
    from tracker_store_async.inspection.commands import (
        load_conversation,
        print_conversation,
    )

    target = find_target(db, url, endpoints)
    with command("export" if as_json else "read"):
        tracker = asyncio.run(
            load_conversation(
                target,
                sender_id,
                all_sessions=all_sessions,
                last=last,
                domain_path=domain,
            )
        )
        # Not within the event loop, so that Ctrl-C stops a long output at once.
        print_conversation(
            make_console(), tracker, last=last, as_json=as_json, complete=verbose
        )


@app.command("list")
def list_conversations(
    db: Db = None,
    url: Url = None,
    endpoints: Endpoints = None,
    limit: Annotated[
        int, typer.Option("--limit", metavar="N", min=0, help="At most N; 0 for all.")
    ] = 100,
    user: Annotated[
        str | None,
        typer.Option("--user", metavar="ID", help="Only those of this user."),
    ] = None,
    after: Annotated[
        str | None,
        typer.Option("--after", metavar="CURSOR", help="Go on after this one."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object a line, with its cursor.")
    ] = False,
) -> None:
    """List conversations: events stored, when created and updated, whose.

    Long ids are cut off in the table; --json and `keys` have them whole.

    \b
    Examples:
      tracker-store list --db conversations.db
      tracker-store list --limit 0 --json | jq -r .sender_id
    """
    from tracker_store_async.inspection.commands import list_store

    target = find_target(db, url, endpoints)
    run(
        list_store(
            make_console(),
            target,
            limit=limit,
            user_id=user,
            cursor=after,
            as_json=as_json,
        )
    )


@app.command()
def keys(db: Db = None, url: Url = None, endpoints: Endpoints = None) -> None:
    """Print the sender id of every conversation, one a line.

    Control characters in an id are printed as escapes such as \\n, so that one line is
    one id; `list --json` has them exactly.
    """
    from tracker_store_async.inspection.commands import print_keys

    run(print_keys(find_target(db, url, endpoints)))


@app.command()
def check(db: Db = None, url: Url = None, endpoints: Endpoints = None) -> None:
    """Connect and report versions, layout and latency.

    The exit code is 1 if the store cannot be used as it is.

    \b
    Examples:
      tracker-store check --endpoints endpoints.yml
      tracker-store check --url postgresql://me@localhost/rasa && ./start.sh
    """
    from tracker_store_async.inspection.layout_commands import check_store

    usable = run(check_store(make_console(), find_target(db, url, endpoints)))
    raise typer.Exit(0 if usable else FAILED)


@schema_app.command()
def status(db: Db = None, url: Url = None, endpoints: Endpoints = None) -> None:
    """Show what layout the store holds.

    The exit code is 1 if it cannot be used, such as Rasa's before its upgrade.
    """
    from tracker_store_async.inspection.layout_commands import show_schema

    usable = run(show_schema(make_console(), find_target(db, url, endpoints)))
    raise typer.Exit(0 if usable else FAILED)


@schema_app.command()
def upgrade(
    db: Db = None,
    url: Url = None,
    endpoints: Endpoints = None,
    as_sql: Annotated[
        bool,
        typer.Option("--sql", help="Only print the statements that create the tables."),
    ] = False,
) -> None:
    """Create the layout, or upgrade an older one or Rasa's SQL tables.

    The tables of an outbox, an audit trail and data keys are created as well.

    Stop what writes to the database, and make a backup, first. An upgrade that is cut
    off leaves the data readable and can be run again.

    A SQLite file that --db or --url names has to be there already: it may be a typo.
    A new one is created where --endpoints names an endpoints.yml with its `db`, or by
    the first use of the store.

    \b
    Examples:
      tracker-store schema upgrade --db rasa.db
      tracker-store schema upgrade --endpoints endpoints.yml
      tracker-store schema upgrade --sql --endpoints endpoints.yml > tables.sql
    """
    from tracker_store_async.inspection.layout_commands import (
        print_schema_sql,
        upgrade_schema,
    )

    target = find_target(db, url, endpoints)
    if as_sql:
        run(print_schema_sql(target))
    else:
        run(upgrade_schema(make_console(), target))


cli_moving.add_commands(app)


def main() -> NoReturn:
    """Run the command line and exit with its code."""
    prepare_streams()
    log_warnings()
    try:
        code = app(prog_name="tracker-store", standalone_mode=False) or 0
    except UsageError as error:
        code = _explain(error)
    except (errors.ConfigurationError, errors.InvalidInputError) as error:
        code = _fail(error, WRONG_USAGE)
    except (errors.TrackerStoreError, OSError) as error:
        code = _fail(error, FAILED)
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    sys.exit(code)


def _explain(error: Exception) -> int:
    # What typer raises for `no_args_is_help`: the text of this error is the help.
    if type(error).__name__ == "NoArgsIsHelpError":
        sys.stderr.write(f"{_text(error)}\n")
        return WRONG_USAGE
    context = getattr(error, "ctx", None)
    command = "tracker-store" if context is None else context.command_path
    return _fail(error, WRONG_USAGE, f" ({command} --help shows how)")


def _fail(error: Exception, code: int, hint: str = "") -> int:
    sys.stderr.write(f"error: {one_line(_text(error))}{hint}\n")
    return code


def _text(error: Exception) -> str:
    format_message = getattr(error, "format_message", None)
    return str(error if format_message is None else format_message())
