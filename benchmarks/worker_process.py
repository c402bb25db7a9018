"""Workers as seen from the script that asks them: start, ask, end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import tempfile
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from benchmarks.contestant import Place
from benchmarks.environments import NotInstallableError, built

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from benchmarks.catalog import Entry

ROOT = Path(__file__).parents[1]
REPLY_LIMIT_BYTES = 64 << 20
REPLY_TIMEOUT_SECONDS = 1800
END_TIMEOUT_SECONDS = 10


class WorkerError(Exception):
    """A worker could not do what it was asked; the message says why."""


class Worker:
    """One contestant in a process of its own.

    Attributes:
        entry: Who it is.
        place: Where it stores things; names of conversations begin with its namespace.
        versions: Versions of its Python and packages, once it is open.
    """

    def __init__(
        self, entry: Entry, place: Place, process: asyncio.subprocess.Process
    ) -> None:
        self.entry, self.place = entry, place
        self.versions: dict[str, str] = {}
        self._process = process

    @classmethod
    async def start(cls, entry: Entry, place: Place, python: Path | str) -> Worker:
        """Start the process of an entry."""
        inherited = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "0"}
        process = await asyncio.create_subprocess_exec(
            *(str(python), "-m", "benchmarks.workers"),
            *(entry.module, entry.variants[place.backend]),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env=inherited,
            limit=REPLY_LIMIT_BYTES,
        )
        return cls(entry, place, process)

    async def open(self) -> None:
        """Have it connect and create what it needs.

        Raises:
            WorkerError: It cannot.
        """
        packages = list(self.entry.packages)
        reply = await self.ask("open", place=asdict(self.place), packages=packages)
        self.versions = reply["versions"]

    async def ask(self, request: str, **arguments: Any) -> dict[str, Any]:
        """Send a request of `workers.protocol` and return the reply.

        Raises:
            WorkerError: The request failed, or the process is gone or silent.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            line = json.dumps({"do": request, **arguments}) + "\n"
            self._process.stdin.write(line.encode())
            await self._process.stdin.drain()
            reading = self._process.stdout.readline()
            answer = await asyncio.wait_for(reading, REPLY_TIMEOUT_SECONDS)
        except ConnectionError:
            answer = b""
        except TimeoutError:
            self._process.kill()  # a late reply would be taken for the next one
            raise WorkerError(
                f"no reply in {REPLY_TIMEOUT_SECONDS} s when asked to {request}"
            ) from None
        if not answer:
            raise WorkerError(f"its process ended while it was asked to {request}")
        reply: dict[str, Any] = json.loads(answer)
        if "error" in reply:
            raise WorkerError(reply["error"].strip().splitlines()[0])
        return reply

    def ids(self, kind: str, count: int) -> list[str]:
        """Return the names of some conversations, the same ones for the same kind."""
        return [f"{self.place.namespace}-{kind}-{number}" for number in range(count)]

    async def end(self) -> None:
        """Have it disconnect, and end its process."""
        assert self._process.stdin is not None
        # if it fails: whoever made the place removes what is left in it
        with contextlib.suppress(TimeoutError, WorkerError):
            await asyncio.wait_for(self.ask("close"), END_TIMEOUT_SECONDS)
        self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), END_TIMEOUT_SECONDS)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()


@dataclass
class Team:
    """The workers that are ready, and why the others are not.

    Attributes:
        workers: Name of the entry -> worker.
        absent: Name of the entry -> reason.
        place: The namespaces of all of them begin with its namespace.
    """

    workers: dict[str, Worker]
    absent: dict[str, str]
    place: Place

    def drop(self, worker: Worker, error: WorkerError) -> None:
        """Take a worker out that failed, and remember why."""
        self.workers.pop(worker.entry.name, None)
        self.absent[worker.entry.name] = str(error)

    def versions(self) -> dict[str, dict[str, str]]:
        """Return the versions that each worker reported."""
        return {name: worker.versions for name, worker in self.workers.items()}


@asynccontextmanager
async def team(
    entries: Sequence[Entry], backend: str, url: str, envs: Path, folder: str | None
) -> AsyncIterator[Team]:
    """Start a worker for each entry; remove afterwards all that they have stored.

    Args:
        entries: Who is to be there. One that is not for the backend, or cannot be
            installed, is in `Team.absent` with the reason.
        backend: Key of `Entry.variants`.
        url: URL of the server; empty for SQLite.
        envs: Where the environments of the peers are kept.
        folder: Where SQLite files go; None for a temporary folder.
    """
    async with AsyncExitStack() as stack:
        name = stack.enter_context(tempfile.TemporaryDirectory(dir=folder))
        place = Place(backend, url, f"benchmark{uuid4().hex[:8]}", name)
        result = Team({}, {}, place)
        stack.push_async_callback(_remove, place, [entry.name for entry in entries])
        for entry in entries:
            try:
                worker = await _ready(entry, place, envs, stack)
            except (NotInstallableError, WorkerError) as error:
                result.absent[entry.name] = str(error)
            else:
                result.workers[entry.name] = worker
        yield result


def place_of(place: Place, name: str) -> Place:
    """Return the place of one entry within the place of a team.

    None is named as another begins: hence the letter at the end.
    """
    namespace = f"{place.namespace}{name.replace('_', '')}x"
    folder = Path(place.folder) / name
    folder.mkdir(exist_ok=True)
    return replace(place, namespace=namespace, folder=str(folder))


async def _ready(
    entry: Entry, place: Place, envs: Path, stack: AsyncExitStack
) -> Worker:
    if place.backend not in entry.variants:
        raise NotInstallableError(entry.missing)
    python: Path | str = sys.executable
    if entry.environment:
        python = await asyncio.to_thread(built, entry.environment, envs)
    own = place_of(place, entry.name)
    if place.backend == "postgresql":
        from benchmarks.contestants import run_on_postgres

        await run_on_postgres(place.url, f"CREATE SCHEMA {own.namespace}")
    worker = await Worker.start(entry, own, python)
    stack.push_async_callback(worker.end)
    await worker.open()
    return worker


async def _remove(place: Place, names: list[str]) -> None:
    if place.backend == "redis":
        from benchmarks.redis_contestants import remove

        await remove(place.url, place.namespace)
    if place.backend == "postgresql":
        from benchmarks.contestants import run_on_postgres

        for name in names:
            schema = place_of(place, name).namespace
            await run_on_postgres(place.url, f"DROP SCHEMA IF EXISTS {schema} CASCADE")
