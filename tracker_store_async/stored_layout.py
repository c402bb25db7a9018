"""The version of a stored layout: which can be used, and the way from an older one.

Each backend stores its version and has its steps, one from each version to the next.
The version is written after each step, and a step may be run again: so an upgrade that
is cut short goes on where it was.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from tracker_store_async.errors import SchemaTooNewError, SchemaUpgradeRequiredError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

T = TypeVar("T")

HOW_TO_UPGRADE = "`tracker-store schema upgrade`, after a backup"


def check_version(
    found: int, known: int, where: str, *, may_upgrade: bool = False
) -> None:
    """Check that a stored layout is the one that this version of the library uses.

    Args:
        found: The version that is stored.
        known: The version that the code knows.
        where: What holds it, for the error.
        may_upgrade: Whether an older one is about to be upgraded.

    Raises:
        SchemaTooNewError: A newer version of this library wrote it.
        SchemaUpgradeRequiredError: An older one did.
    """
    if found > known:
        raise SchemaTooNewError(
            f"{where} holds version {found} of the layout, this version of the library "
            f"knows {known}: upgrade tracker-store-async"
        )
    if found < known and not may_upgrade:
        raise SchemaUpgradeRequiredError(
            f"{where} holds version {found} of the layout, this version of the library "
            f"needs {known} (upgrade needed): run {HOW_TO_UPGRADE}"
        )


async def climb(
    found: int,
    known: int,
    steps: Mapping[int, Callable[[T], Awaitable[None]]],
    subject: T,
    write: Callable[[int], Awaitable[object]],
) -> None:
    """Take every step from one version to another, and note each.

    Args:
        found: The version that is stored.
        known: The version to reach.
        steps: What leads from a version to the next one.
        subject: What a step works on.
        write: Stores a version.
    """
    for version in range(found, known):
        await steps[version](subject)
        await write(version + 1)
