"""What the command line does to keep data: prune, delete and anonymise.

Each says what it has done so far if it is stopped, and how to go on.
"""

from __future__ import annotations

import shlex
from contextlib import aclosing, contextmanager
from typing import TYPE_CHECKING, Any, cast

from rich.text import Text

from tracker_store_async.errors import InvalidInputError
from tracker_store_async.inspection.opening import NotFoundError, opened
from tracker_store_async.inspection.terminal import json_text, printable
from tracker_store_async.keeping.anonymising import anonymise
from tracker_store_async.keeping.deleting import delete_user
from tracker_store_async.keeping.durations import seconds_of
from tracker_store_async.keeping.progress import Report
from tracker_store_async.keeping.pruning import Retention, prune
from tracker_store_async.keeping.rules import load_rules

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator
    from pathlib import Path

    from rich.console import Console

    from tracker_store_async.inspection.targets import Target


class _Totals:
    """Counts what was done, and where it is."""

    def __init__(self, verb: tuple[str, str], *, dry_run: bool) -> None:
        self._verb = f"would {verb[0]}" if dry_run else verb[1]
        self.conversations = 0
        self.whole = 0
        self.events = 0
        self.cursor: str | None = None

    def __str__(self) -> str:
        """Read as `erased 3 whole conversations and 120 events in all`."""
        whole = f" ({self.whole} of them whole)" if self.whole else ""
        return (
            f"{self._verb} {self.events} events in {self.conversations} "
            f"conversations{whole}"
        )


@contextmanager
def _told(console: Console, report: Report, totals: _Totals) -> Iterator[None]:
    """Show the progress, and at the end or on Ctrl-C what was done."""
    try:
        with report.shown():
            yield
    except BaseException:
        line = f"stopped after {report.done} conversations: {totals}"
        if totals.cursor is not None:
            line += f"; go on with --after {shlex.quote(printable(totals.cursor))}"
        console.print(Text(line), soft_wrap=True)
        raise
    line = f"looked at {report.done} conversations: {totals}"
    console.print(Text(line), soft_wrap=True)


async def prune_store(
    console: Console,
    target: Target,
    *,
    older_than: str | None,
    keep_last_sessions: int | None,
    keep_last_events: int | None,
    dry_run: bool,
    as_json: bool,
    after: str | None,
) -> None:
    """Erase what need not be kept, and print how much that was.

    Args:
        console: Where to print.
        target: The store.
        older_than: An age such as `90d`, or None.
        keep_last_sessions: Sessions of each conversation that stay, or None.
        keep_last_events: Events of each conversation that stay, or None.
        dry_run: Whether nothing is erased.
        as_json: Whether to print a JSON object for each conversation that is cut.
        after: Go on after this cursor.

    Raises:
        InvalidInputError: There is no limit, or one cannot be read.
        TrackerStoreError: The store cannot be used.
    """
    seconds = None if older_than is None else seconds_of(older_than)
    retention = Retention(seconds, keep_last_sessions, keep_last_events)
    report = Report(console, "looked at")
    totals = _Totals(("erase", "erased"), dry_run=dry_run)
    totals.cursor = after
    async with opened(target) as store:
        cuts = prune(store, retention, dry_run=dry_run, after=after)
        async with aclosing(cast("AsyncGenerator[Any]", cuts)) as found:
            with _told(console, report, totals):
                async for cut in found:
                    if cut is not None:
                        totals.conversations += 1
                        totals.whole += cut.before is None
                        totals.events += cut.events
                        totals.cursor = cut.cursor
                        if as_json:
                            console.out(json_text(_cut_json(cut)), highlight=False)
                    report.step(str(totals))


def _cut_json(cut: Any) -> dict[str, Any]:
    names = ("sender_id", "before", "events", "cursor")
    return {name: getattr(cut, name) for name in names}


async def delete_conversations(
    console: Console,
    target: Target,
    *,
    sender_id: str | None,
    user_id: str | None,
    dry_run: bool,
) -> None:
    """Erase one conversation, or all of a user, and print what was.

    Args:
        console: Where to print.
        target: The store.
        sender_id: The conversation, or None.
        user_id: The user, or None.
        dry_run: Whether nothing is erased.

    Raises:
        InvalidInputError: Neither is given, or both.
        NotFoundError: Nothing is stored of it.
        TrackerStoreError: The store cannot be used.
    """
    if (sender_id is None) == (user_id is None):
        raise InvalidInputError("name one conversation, or a user with --user")
    verb = "would erase" if dry_run else "erased"
    async with opened(target) as store:
        if sender_id is not None:
            there = store.exists if dry_run else store.delete
            if not await there(sender_id):
                raise NotFoundError(
                    f"there is no conversation {sender_id!r} in {target.label}"
                )
            console.print(Text(f"{verb} conversation {sender_id!r}"), soft_wrap=True)
            return
        count = 0
        async for found, _ in delete_user(store, user_id or "", dry_run=dry_run):
            console.print(Text(f"{verb} conversation {found!r}"), soft_wrap=True)
            count += 1
        if not count:
            raise NotFoundError(
                f"there is no conversation of user {user_id!r} in {target.label}"
            )


async def anonymise_store(
    console: Console,
    target: Target,
    rules_path: Path,
    *,
    user_id: str | None,
    older_than: str | None,
    dry_run: bool,
    after: str | None,
) -> None:
    """Rewrite what is stored by the rules of a file, and print how much that was.

    Args:
        console: Where to print.
        target: The store.
        rules_path: The file.
        user_id: Only the conversations of this user.
        older_than: Only those without a save for so long, such as `90d`.
        dry_run: Whether nothing is changed.
        after: Go on after this cursor.

    Raises:
        ConfigurationError: The rules are wrong; nothing was changed.
        TrackerStoreError: The store cannot be used.
    """
    rules = load_rules(rules_path)
    seconds = None if older_than is None else seconds_of(older_than)
    report = Report(console, "looked at")
    totals = _Totals(("change", "changed"), dry_run=dry_run)
    totals.cursor = after
    async with opened(target) as store:
        changes = anonymise(
            store,
            rules,
            user_id=user_id,
            updated_before=None if seconds is None else store._now() - seconds,
            dry_run=dry_run,
            after=after,
        )
        async with aclosing(cast("AsyncGenerator[Any]", changes)) as found:
            with _told(console, report, totals):
                async for done in found:
                    totals.conversations += done.is_changed
                    totals.events += done.events
                    totals.cursor = done.cursor
                    report.step(str(totals))
