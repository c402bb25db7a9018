"""The one fixture of the suite: a storage of every backend in turn."""

from __future__ import annotations

from contextlib import ExitStack
from fnmatch import fnmatchcase
from itertools import chain
from typing import TYPE_CHECKING

import pytest

from tests.conformance.backends import BACKENDS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from tests.conformance.backends import Storage
    from tests.servers import Servers
    from tracker_store_async import TrackerStore


def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Leave out what a wrapper says that it cannot give."""
    left_out = [item for item in items if is_beyond(item)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in set(left_out)]


def is_beyond(item: pytest.Item) -> bool:
    """Whether a test is not for the backend that it is to run on."""
    callspec = getattr(item, "callspec", None)
    params = {} if callspec is None else callspec.params
    if not isinstance(item, pytest.Function) or item.module.__package__ != __package__:
        return False
    names = [params[key] for key in ("storage", "sync_store", "name") if key in params]
    backend = BACKENDS.get(names[0]) if names else None
    if backend is None:
        return False
    test = f"{item.module.__name__.rpartition('.')[2]}::{item.originalname}"
    patterns = chain.from_iterable(backend.beyond.values())
    return any(fnmatchcase(test, pattern) for pattern in patterns)


@pytest.fixture(scope="session")
def storage_of(
    servers: Servers, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], Storage]]:
    """Give the storage of a backend, made at its first use."""
    made: dict[str, Storage] = {}
    with ExitStack() as stack:

        def get(name: str) -> Storage:
            if name not in made:
                directory = tmp_path_factory.mktemp(name)
                storage = BACKENDS[name].storage(servers, directory)
                made[name] = stack.enter_context(storage)
            return made[name]

        yield get


def backend_params() -> list[object]:
    """Return a parameter for each backend, marked with the server that it needs."""
    return [
        pytest.param(name, marks=pytest.mark.backend(backend.server), id=name)
        for name, backend in BACKENDS.items()
    ]


@pytest.fixture(params=backend_params())
async def storage(
    request: pytest.FixtureRequest, storage_of: Callable[[str], Storage]
) -> AsyncIterator[Storage]:
    """Give an empty storage; its stores are closed at the end."""
    storage = storage_of(request.param)
    storage.wipe()
    yield storage
    await storage.close()


@pytest.fixture
def store(storage: Storage) -> TrackerStore:
    """Give a store with default options on an empty storage."""
    return storage.store()
