"""What the command line does to move data; `cli_moving.py` has the options."""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.text import Text

from tracker_store_async.broker_factory import create_event_broker
from tracker_store_async.config import EVENT_BROKER, read_endpoint_config
from tracker_store_async.errors import (
    ConfigurationError,
    InvalidInputError,
)
from tracker_store_async.inspection.opening import (
    NotFoundError,
    check_it_exists,
    check_it_has_tables,
)
from tracker_store_async.inspection.targets import Target, find_target
from tracker_store_async.inspection.terminal import one_line, printable
from tracker_store_async.moving.backup import Selection, backup, selected
from tracker_store_async.moving.exporting import export_events
from tracker_store_async.moving.last_backup import LastBackup
from tracker_store_async.moving.migration import migrate
from tracker_store_async.moving.mirroring import missing_in
from tracker_store_async.moving.opening import source_store, target_store
from tracker_store_async.moving.progress import shown_progress
from tracker_store_async.moving.restoring import restore
from tracker_store_async.moving.transcripts import transcript
from tracker_store_async.moving.verification import verify
from tracker_store_async.redaction import Redactor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from rich.console import Console

    from tracker_store_async.config import EndpointConfig
    from tracker_store_async.moving.reports import BackupReport, MoveReport, Progress
    from tracker_store_async.store import TrackerStore


def named_store(name: str) -> Target:
    """Return the store that an option such as `--from` names.

    Args:
        name: An endpoints file (.yml or .yaml), a URL, or a SQLite file.

    Raises:
        ConfigurationError: It names no store.
    """
    if "://" in name:
        return find_target(url=name)
    if name.lower().endswith((".yml", ".yaml")):
        return find_target(endpoints=Path(name))
    return find_target(db=name)


@asynccontextmanager
async def opened_source(source: Target) -> AsyncIterator[TrackerStore]:
    """Open a store to read from.

    Raises:
        NotFoundError: It is a SQLite file that does not exist, or has no tables.
        TrackerStoreError: It cannot be used.
    """
    store = source_store(source.config)
    check_it_exists(store, source)
    await check_it_has_tables(store, source)
    async with store:
        yield store


# -- migrate ---------------------------------------------------------------------------


async def migrate_stores(
    console: Console,
    source: Target,
    target: Target,
    *,
    concurrency: int,
    check: bool,
    only_check: bool,
    state_path: Path | None,
    delete_missing: bool = False,
) -> bool:
    """Migrate, and say what was done; return whether everything arrived.

    Raises:
        ConfigurationError: The two are one store.
    """
    _check_they_are_two(source, target)
    async with opened_source(source) as ours:
        theirs = target_store(target.config)
        if state_path is None:
            state_path = _state_path("migrate", repr(ours), repr(theirs))
        async with theirs:
            report = await _moved(
                console,
                ours,
                theirs,
                concurrency=concurrency,
                only_check=only_check,
                state_path=state_path,
                delete_missing=delete_missing,
            )
            if check and not only_check:
                with _told_how_to_continue(console):
                    async with _counted(console, "comparing", ours) as progress:
                        found = await verify(ours, theirs, progress=progress)
                known = {problem.sender_id for problem in report.problems}
                for problem in found.problems:
                    if problem.sender_id not in known:
                        report.add_problem(problem)
                report.verified = True
    _tell(console, report, source, target)
    return report.is_complete


def _check_they_are_two(source: Target, target: Target) -> None:
    if source.config.as_dict() == target.config.as_dict():
        raise ConfigurationError("--from and --to name the same store")


async def _moved(
    console: Console,
    source: TrackerStore,
    target: TrackerStore,
    *,
    concurrency: int,
    only_check: bool,
    state_path: Path,
    delete_missing: bool,
) -> MoveReport:
    doing = "comparing" if only_check else "migrating"
    with _told_how_to_continue(console):
        async with _counted(console, doing, source) as progress:
            if only_check:
                return await verify(source, target, progress=progress)
            return await migrate(
                source,
                target,
                concurrency=concurrency,
                state_path=state_path,
                delete_missing=delete_missing,
                progress=progress,
            )


async def list_missing(console: Console, source: Target, target: Target) -> None:
    """Say what `--delete-missing` would erase in the target, and change nothing.

    Raises:
        NotFoundError: One of them is not there.
        ConfigurationError: The source has nothing.
    """
    _check_they_are_two(source, target)
    count = 0
    async with (
        opened_source(source) as ours,
        opened_source(target) as theirs,
    ):
        async for summary in missing_in(ours, theirs):
            count += 1
            name = printable(summary.sender_id)
            line = f"would erase conversation '{name}' ({summary.version:,} events)"
            console.print(Text(line), soft_wrap=True)
    line = f"would erase {count:,} conversations that the source has not"
    console.print(Text(f"{line}; nothing was changed"), soft_wrap=True)


def _state_path(kind: str, *names: str) -> Path:
    digest = hashlib.sha256("\n".join(names).encode()).hexdigest()
    return Path(f"tracker-store-{kind}-{digest[:8]}.state")


@asynccontextmanager
async def _counted(
    console: Console,
    doing: str,
    source: TrackerStore,
    selection: Selection | None = None,
) -> AsyncIterator[Progress]:
    """Show progress, and find out meanwhile how much there is to do in all."""
    with shown_progress(console, doing) as progress:
        counting = asyncio.create_task(
            _count(source, selection or Selection(), progress)
        )
        try:
            yield progress
        finally:
            counting.cancel()
            await asyncio.gather(counting, return_exceptions=True)


async def _count(
    source: TrackerStore, selection: Selection, progress: Progress
) -> None:
    conversations = events = 0
    async for summary in selected(source, selection, None):
        conversations += 1
        events += summary.version
    progress.expect(conversations, events)


@contextmanager
def _told_how_to_continue(console: Console) -> Iterator[None]:
    """Say how to go on, where it is stopped."""
    try:
        yield
    except asyncio.CancelledError:
        _warn("stopped: what was done is whole. Run the same command again to go on.")
        raise


def _warn(text: str) -> None:
    sys.stderr.write(f"{one_line(text)}\n")


def _tell(console: Console, report: MoveReport, source: Target, target: Target) -> None:
    seconds = max(report.seconds, 1e-9)
    if report.copied or report.continued or not report.verified:
        console.print(
            Text(
                f"{report.conversations:,} conversations: {report.copied:,} copied, "
                f"{report.continued:,} continued, {report.unchanged:,} there already; "
                f"{report.events:,} events in {seconds:.1f} s "
                f"({report.events / seconds:,.0f} events/s)"
            ),
            soft_wrap=True,
        )
    if report.deleted:
        line = f"erased {report.deleted:,} conversations that the source has not"
        console.print(Text(line), soft_wrap=True)
    if report.verified:
        same = "everything is the same" if report.is_complete else "they differ"
        line = f"compared {printable(source.label)} with {printable(target.label)}: "
        console.print(Text(line + same), soft_wrap=True)
    _tell_problems(report)


def _tell_problems(report: MoveReport) -> None:
    for problem in report.problems:
        _warn(f"problem: {problem}")
    more = report.problem_count - len(report.problems)
    if more:
        _warn(f"problem: {more:,} more conversations")


# -- backup and restore ----------------------------------------------------------------


async def back_up(
    console: Console,
    source: Target,
    path: Path,
    selection: Selection,
    since_last: Path | None,
) -> None:
    """Write a backup, and say what is in it."""
    async with opened_source(source) as store:
        if since_last is not None:
            selection = _since(since_last, store, selection)
        try:
            report = await _backed_up(console, store, path, selection)
        finally:
            if selection.last is not None:
                selection.last.close()
    line = (
        f"{printable(report.path)}: {report.conversations:,} conversations, "
        f"{report.events:,} events, {report.size_bytes:,} bytes in "
        f"{report.seconds:.1f} s, SHA-256 of its content {report.checksum}"
    )
    console.print(Text(line), soft_wrap=True)


async def _backed_up(
    console: Console, store: TrackerStore, path: Path, selection: Selection
) -> BackupReport:
    with _told_how_to_continue(console):
        async with _counted(console, "backing up", store, selection) as progress:
            return await backup(
                store,
                path,
                conversations=selection.conversations,
                updated_from=selection.updated_from,
                updated_before=selection.updated_before,
                last=selection.last,
                progress=progress,
            )


def _since(path: Path, store: TrackerStore, selection: Selection) -> Selection:
    """Return the selection of what is not as the last backup has it."""
    if selection.updated_from is not None:
        raise InvalidInputError("give only one of --from-time and --since-last")
    return replace(selection, last=LastBackup(path, repr(store)))


async def restore_file(console: Console, path: Path, target: Target) -> bool:
    """Restore a backup; return whether everything arrived.

    Raises:
        NotFoundError: There is no such file.
    """
    if not path.is_file():  # noqa: ASYNC240  before anything else begins
        raise NotFoundError(f"there is no file {str(path)!r}")
    store = target_store(target.config)
    with _told_how_to_continue(console), shown_progress(console, "restoring") as shown:
        # The store is opened, and so its tables made, only once the file is checked.
        try:
            report = await restore(path, store, progress=shown)
        finally:
            await store.close()
    seconds = max(report.seconds, 1e-9)
    line = (
        f"{report.conversations:,} conversations: {report.copied:,} restored, "
        f"{report.continued:,} continued, {report.unchanged:,} there already; "
        f"{report.events:,} events in {seconds:.1f} s"
    )
    console.print(Text(line), soft_wrap=True)
    if report.deleted:
        line = f"{report.deleted:,} of them in place of what an earlier backup has"
        console.print(Text(line), soft_wrap=True)
    _tell_problems(report)
    return report.is_complete


# -- export ----------------------------------------------------------------------------


def destination_of(section: EndpointConfig) -> str:
    """Return what tells the broker of a section from others, but for its login."""
    settings = Redactor().value(section.as_dict())
    text = json.dumps(settings, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


async def export_store(
    console: Console,
    source: Target,
    endpoints: Path,
    *,
    conversation_ids: Sequence[str] | None,
    state_path: Path | None,
    **bounds: Any,
) -> None:
    """Publish stored events to the event broker of an endpoints file.

    Raises:
        ConfigurationError: The file names no event broker.
    """
    section = read_endpoint_config(endpoints, EVENT_BROKER)
    broker = create_event_broker(section)
    if section is None or broker is None:
        raise ConfigurationError(
            f"{endpoints}: has no {EVENT_BROKER} section, so there is nothing to "
            "export to"
        )
    selection, destination = Selection(conversation_ids), destination_of(section)
    async with opened_source(source) as store:
        if state_path is None:
            job = json.dumps([conversation_ids, bounds], sort_keys=True)
            state_path = _state_path("export", repr(store), destination, job)
        await broker.open()
        try:
            with _told_how_to_continue(console):
                async with _counted(console, "exporting", store, selection) as progress:
                    report = await export_events(
                        store,
                        broker,
                        conversation_ids=conversation_ids,
                        state_path=state_path,
                        destination=destination,
                        progress=progress,
                        **bounds,
                    )
        finally:
            await broker.close()
    if report.missing:
        _warn(f"warning: not found: {', '.join(map(repr, report.missing))}")
    if report.erased:
        more = report.erased_count - len(report.erased)
        names = ", ".join(map(repr, report.erased)) + (
            f" and {more:,} more" * (more > 0)
        )
        _warn(f"warning: not exported, since their data key was erased: {names}")
    line = (
        f"{report.events:,} events of {report.conversations:,} conversations were "
        f"confirmed by {type(broker).__name__} in {report.seconds:.1f} s"
    )
    console.print(Text(line), soft_wrap=True)


# -- transcript ------------------------------------------------------------------------


async def write_transcript(
    source: Target, sender_id: str, format_name: str, *, complete: bool
) -> None:
    """Print the transcript of a conversation.

    Raises:
        NotFoundError: There is no such conversation.
    """
    is_there = False
    async with opened_source(source) as store:
        async for piece in transcript(store, sender_id, format_name, complete=complete):
            is_there = True
            sys.stdout.write(piece)
    if not is_there:
        raise NotFoundError(f"there is no conversation {sender_id!r}")
