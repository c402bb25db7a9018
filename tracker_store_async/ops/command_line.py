"""The parts of the `tracker-store` command that operate a store."""

from __future__ import annotations

import os
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from tracker_store_async.auditing import acting_as
from tracker_store_async.errors import ConfigurationError, EncryptionKeyError
from tracker_store_async.inspection.invocation import Db, Endpoints, Url, command, run
from tracker_store_async.inspection.targets import find_section, find_target
from tracker_store_async.registry import PACKAGE, load_part

if TYPE_CHECKING:
    from tracker_store_async.ops.resealing import Resealed

encryption_app = typer.Typer(
    help="Make and rotate the keys of encryption at rest.",
    rich_markup_mode=None,
    no_args_is_help=True,
)


def serve(
    db: Db = None,
    url: Url = None,
    endpoints: Endpoints = None,
    host: Annotated[
        str, typer.Option("--host", metavar="ADDRESS", help="Address to listen at.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", metavar="N", min=0, max=65535, help="Port.")
    ] = 8060,
    no_inspector: Annotated[
        bool,
        typer.Option("--no-inspector", help="Leave the conversation inspector out."),
    ] = False,
    mask_slot: Annotated[
        list[str] | None,
        typer.Option(
            "--mask-slot",
            metavar="NAME",
            help="A slot whose values nobody is shown. May be given more than once.",
        ),
    ] = None,
    unmasked: Annotated[
        bool,
        typer.Option(
            "--unmasked", help="Show passwords and the like in conversations as well."
        ),
    ] = False,
) -> None:
    """Serve health, metrics and a conversation inspector over HTTP, until Ctrl-C.

    The paths are /health/live, /health/ready, /inspector/ and, with the extra
    `prometheus`, /metrics. With TRACKER_STORE_TOKEN set, callers need it as
    `Authorization: Bearer`, and people sign in with it. Any other address than the
    loopback wants a token.

    It looks at the storage and changes nothing. What an assistant's own process does
    is told by the app mounted there: see docs/operating.md and docs/inspector.md.
    """
    from tracker_store_async import redaction
    from tracker_store_async.inspection.opening import existing_store
    from tracker_store_async.ops import serving
    from tracker_store_async.ops.inspector.options import InspectorOptions

    if unmasked and mask_slot:
        raise ConfigurationError("give either --mask-slot or --unmasked")
    token = os.environ.get("TRACKER_STORE_TOKEN") or None
    store = existing_store(find_target(db, url, endpoints))
    if mask_slot:
        redaction.configure(slots=mask_slot)
    options = InspectorOptions(unmasked=unmasked, loopback_only=token is None)
    # who has the token is not who has started this
    behind_token = acting_as("tracker-store serve") if token else nullcontext()
    with command("health"), behind_token:
        serving.serve(
            store, host, port, token, typer.echo, None if no_inspector else options
        )


audit_app = typer.Typer(
    help="Check the audit trail that the key `audit` of a store names.",
    rich_markup_mode=None,
    no_args_is_help=True,
)

TrailFile: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--file",
        metavar="FILE",
        help="A file of records. The key of its chain is in TRACKER_STORE_AUDIT_KEY.",
    ),
]


@audit_app.command("verify")
def verify_trail(
    file: TrailFile = None,
    endpoints: Endpoints = None,
    head: Annotated[
        str | None,
        typer.Option(
            "--head",
            metavar="NUMBER:HASH",
            help="What `audit head` printed before: shows what was cut off since.",
        ),
    ] = None,
    after: Annotated[
        str | None,
        typer.Option(
            "--after",
            metavar="NUMBER:HASH",
            help="The last record before the first one that is still here.",
        ),
    ] = None,
) -> None:
    """Find what was edited, removed, added or reordered in the trail.

    What was cut off at the end is found with --head alone. The exit code is 1 if
    anything is wrong.
    """
    from tracker_store_async.ops import trails

    found = trails.verify_trail(trails.find_trail(file, endpoints), head, after)
    for problem in found.problems:
        typer.echo(problem)
    typer.echo(f"{found.records} records, the last is {found.head}")
    raise typer.Exit(0 if found.is_intact else 1)


@audit_app.command("head")
def print_head(file: TrailFile = None, endpoints: Endpoints = None) -> None:
    """Print number and hash of the last record: keep it where nobody else writes."""
    from tracker_store_async.ops import trails

    typer.echo(str(trails.verify_trail(trails.find_trail(file, endpoints)).head))


@encryption_app.command("new-key")
def new_key() -> None:
    """Print a new master key: 32 random bytes in base64. Keep it secret."""
    generate_key = _with_cryptography("encryption.keyring:generate_key")
    typer.echo(generate_key())


@encryption_app.command()
def reseal(endpoints: Endpoints = None) -> None:
    """Wrap the data key of every conversation with the active master key.

    The keys are those of the endpoints file. Do it after every process has the new
    key. It can be run again at any time, and others may read and save meanwhile.
    """
    from tracker_store_async.factory import create_tracker_store

    reseal_all = _with_cryptography("ops.resealing:reseal_all")
    target = find_section(endpoints)

    async def work() -> Resealed:
        async with create_tracker_store(target.config) as store:
            done: Resealed = await reseal_all(store)
            return done

    done = run(work(), "reseal")
    typer.echo(f"{done.resealed} of {done.conversations} conversations resealed")
    if done.unreadable:
        raise EncryptionKeyError(
            f"{len(done.unreadable)} conversations have a key that is not configured "
            "or was erased, or a state that is damaged, the first: "
            f"{done.unreadable[0]!r}"
        )


def _with_cryptography(path: str) -> Any:
    """Return what a command needs and only the extra `encryption` can import."""
    return load_part(f"{PACKAGE}.{path}", "encryption", "tracker-store encryption")
