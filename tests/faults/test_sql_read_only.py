"""SQL servers that are read-only for a while, to connections that were made then."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.servers import private_mariadb, private_postgresql
from tests.sql_databases import append, ids, read
from tracker_store_async import SQLTrackerStore, errors

if TYPE_CHECKING:
    from collections.abc import Iterator

DATABASE = "calm"
READ_ONLY = {
    "postgresql": f"ALTER DATABASE {DATABASE} SET default_transaction_read_only = ",
    "mysql": "SET GLOBAL tx_read_only = ",
}


@pytest.fixture(
    params=[
        pytest.param("postgresql", marks=pytest.mark.backend("postgresql")),
        pytest.param("mysql", marks=pytest.mark.backend("mysql")),
    ]
)
def place(request: pytest.FixtureRequest) -> Iterator[tuple[str, Any]]:
    """Give a dialect, and a server of our own."""
    is_postgresql = request.param == "postgresql"
    start = private_postgresql if is_postgresql else private_mariadb
    with start() as private:
        private.server.create_database(DATABASE)
        yield request.param, private.server


async def test_a_connection_that_can_only_read_is_not_used_again(
    place: tuple[str, Any],
) -> None:
    dialect, server = place
    other = "postgres" if dialect == "postgresql" else "mysql"
    url = server.url(dialect, DATABASE)
    async with SQLTrackerStore(host=url) as store:
        assert await store._append(append(0))
    server.execute(READ_ONLY[dialect] + "ON", other)
    async with SQLTrackerStore(host=url, pool_size=1, max_overflow=0) as store:
        assert len(ids(await store._read(read()))) == 3
        server.execute(READ_ONLY[dialect] + "OFF", other)
        with pytest.raises(errors.StoreUnavailableError, match="read-only"):
            await store._append(append(3))
        assert await store._append(append(3))
        assert len(ids(await store._read(read()))) == 6
