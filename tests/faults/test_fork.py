"""A process that forks while a store is open: the connections stay the parent's."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest

from tests.servers import fresh_database

SCRIPT = """
import asyncio, os, sys
from tracker_store_async import SQLTrackerStore, errors

store = SQLTrackerStore(host=sys.argv[1], command_timeout_seconds=5)
loop = asyncio.new_event_loop()
loop.run_until_complete(store.exists("alice"))
pid = os.fork()
if not pid:
    async def child():
        await store.close()  # as a worker does at its end
        try:
            await store.exists("alice")
        except errors.WrongLoopError:
            return 0
        return 1
    os._exit(asyncio.run(child()))
_, status = os.waitpid(pid, 0)
assert status == 0, status
assert not loop.run_until_complete(store.exists("alice"))
loop.run_until_complete(store.close())
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_closing_in_a_forked_process_leaves_the_parent_its_connections(
    postgresql_server: Any,
) -> None:
    """The server would end them, and the parent's loop would not even be told."""
    with fresh_database(postgresql_server) as database:
        url = postgresql_server.url("postgresql", database)
        script = [sys.executable, "-W", "ignore", "-c", SCRIPT, url]
        done = subprocess.run(
            script, capture_output=True, text=True, timeout=50, check=False
        )
    assert (done.returncode, done.stderr) == (0, "")
