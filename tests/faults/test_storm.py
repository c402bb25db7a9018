"""Random faults on every backend: after each storm the log is what writers were told.

`TRACKER_STORE_STORM_SEED` repeats a run, `TRACKER_STORE_STORMS` sets how many there
are for each backend. Which seed was used stands in the name of what failed.
"""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING, Any

import pytest

from tests.conformance.backends import BACKENDS
from tests.conformance.conftest import backend_params
from tests.faults.storm import FAULTS, check, storm
from tracker_store_async import saving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator

    from tests.conformance.backends import Storage

SEED = int(os.environ.get("TRACKER_STORE_STORM_SEED") or random.randrange(10**6))
STORMS = int(os.environ.get("TRACKER_STORE_STORMS") or 8)
EXPECTED_FAULTS = 20 * STORMS
"""Far fewer than strike on average, for each backend."""


def may_be_shared(param: Any) -> bool:
    """Whether the storage has conditional writes, which several writers need."""
    return not BACKENDS[param.id].beyond


@pytest.fixture(params=filter(may_be_shared, backend_params()))
async def storage(
    request: pytest.FixtureRequest, storage_of: Callable[[str], Storage]
) -> AsyncIterator[Storage]:
    """Give an empty storage of each backend."""
    storage = storage_of(request.param)
    storage.wipe()
    yield storage
    await storage.close()


async def storms(storage: Storage, seeds: Iterable[int]) -> int:
    """Go through storms, check after each of them; return how many faults struck."""
    faults = 0
    for seed in seeds:
        storage.wipe()
        weather, history = await storm(storage, seed)
        try:
            await check(storage, history)
        except AssertionError as error:
            raise AssertionError(
                f"{error}: TRACKER_STORE_STORM_SEED={seed} TRACKER_STORE_STORMS=1"
            ) from error
        finally:
            await storage.close()
        assert any(save.is_acknowledged for save in history.saves)
        faults += weather.struck.total()
    return faults


async def test_the_log_is_what_the_writers_were_told(
    storage: Storage, request: pytest.FixtureRequest
) -> None:
    faults = await storms(storage, range(SEED, SEED + STORMS))
    request.node.user_properties.append(("storm", [SEED, faults]))
    assert faults > EXPECTED_FAULTS


async def test_a_seed_is_one_run(storage_of: Callable[[str], Storage]) -> None:
    storage = storage_of("in_memory")
    runs = []
    for _ in range(2):
        storage.wipe()
        weather, history = await storm(storage, 7)
        runs.append(
            (dict(weather.struck), [save.is_acknowledged for save in history.saves])
        )
        await storage.close()
    assert runs[0] == runs[1]
    assert set(runs[0][0]) == set(FAULTS)


@pytest.fixture
def without(request: pytest.FixtureRequest) -> Iterator[None]:
    """Break what the parameter names."""
    with pytest.MonkeyPatch.context() as patch:
        request.param(patch)
        yield


def no_id_check(patch: pytest.MonkeyPatch) -> None:
    """Take what had landed for another writer's."""
    patch.setattr(saving, "landed_run", lambda mine, stored, start: (0, 0))
    patch.setattr(saving, "ids_of", lambda stored: set())


@pytest.mark.parametrize("without", [no_id_check], indirect=True)
@pytest.mark.usefixtures("without")
async def test_it_goes_red_without_the_check_of_ids(
    storage_of: Callable[[str], Storage],
) -> None:
    storage = storage_of("in_memory")
    with pytest.raises(AssertionError, match="stored twice"):
        await storms(storage, range(20))
