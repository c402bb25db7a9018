"""Find a NATS with JetStream, or start a private one."""

from __future__ import annotations

import signal
import ssl
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from tests.servers.base import (
    CONNECT_TIMEOUT_SECONDS,
    Server,
    ServerMissingError,
    from_environment,
    ignore_running,
    need_driver,
    run_now,
    running_locally,
)
from tests.servers.docker import docker_container
from tests.servers.process import (
    ServerProcess,
    account_for,
    find_program,
    free_port,
    give_to,
    work_directory,
)
from tests.servers.tls import Certificates

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.servers.base import Servers

NAME = "NATS"


@dataclass(frozen=True, slots=True)
class NatsServer(Server):
    """A NATS server.

    Attributes:
        certificates: What its TLS is made of, if it wants TLS.
    """

    certificates: Certificates | None = None

    driver: ClassVar[str] = "nats"
    extra: ClassVar[str] = "nats"

    def _tls(self) -> ssl.SSLContext | None:
        files = self.certificates
        if files is None:
            return None
        context = ssl.create_default_context(cafile=files.ca)
        context.load_cert_chain(files.client_certificate, files.client_key)
        return context

    async def connect(self) -> Any:
        """Return a client of the test's own."""
        import nats

        async def ignore(error: Exception) -> None:
            """Keep quiet while the server starts."""

        login = (
            {"user": self.username, "password": self.password} if self.password else {}
        )
        return await nats.connect(
            f"nats://{self.host}:{self.port or 4222}",
            error_cb=ignore,
            allow_reconnect=False,
            max_reconnect_attempts=1,
            reconnect_time_wait=0,
            connect_timeout=CONNECT_TIMEOUT_SECONDS,
            tls=self._tls(),
            **login,
        )

    def identified(self) -> NatsServer:
        """Connect; return the server with its version, if it has JetStream."""
        return replace(self, version=run_now(self._version()), port=self.port or 4222)

    async def _version(self) -> str:
        client = await self.connect()
        try:
            await client.jetstream().account_info()
            return str(client._server_info["version"])
        finally:
            await client.close()


@contextmanager
def find_or_start(servers: Servers) -> Iterator[NatsServer]:
    """Yield a NATS: named, running, installed, or from Docker."""
    need_driver(NatsServer, NAME)
    server = from_environment(
        NatsServer, NAME, "TRACKER_STORE_TEST_NATS_URL"
    ) or running_locally(NatsServer, NAME, 4222, [("", "")])
    if server is not None:
        yield server
    elif not ignore_running() and find_program("nats-server"):
        with private_nats() as private:
            yield private.server
    else:
        with docker_container("nats", 4222, NAME) as port:
            yield NatsServer(
                name=NAME,
                host="127.0.0.1",
                port=port,
                origin="private, from compose.yaml",
            ).identified()


@dataclass(frozen=True, slots=True)
class PrivateNats:
    """A NATS of our own: its process may be killed and started again."""

    server: NatsServer
    process: ServerProcess
    certificates: Certificates | None


@contextmanager
def private_nats(
    *,
    tls: bool = False,
    username: str = "",
    password: str = "",
    token: str = "",
    settings: str = "",
) -> Iterator[PrivateNats]:
    """Start a NATS with JetStream and remove it at the end.

    Args:
        tls: Accept only TLS, with a certificate of `certificates` on both sides.
        username: The one user; nobody else is let in.
        password: Its password.
        token: A token, in place of user and password.
        settings: Text of a configuration file, such as what users may do.

    Raises:
        ServerMissingError: NATS is not installed.
    """
    need_driver(NatsServer, NAME)
    daemon = find_program("nats-server")
    if daemon is None:
        raise ServerMissingError(NAME, "NATS is not installed: nats-server")
    account = account_for("nats")
    with work_directory(account) as directory:
        certificates = Certificates.write(directory) if tls else None
        if certificates is not None:
            give_to(account, certificates.server_key, certificates.server_certificate)
        server = NatsServer(
            name=NAME,
            host="localhost",
            port=free_port(),
            username=username,
            password=password,
            origin=f"private, from {daemon}",
            certificates=certificates,
        )
        options = [daemon, "-a", "127.0.0.1", "-p", str(server.port), "-js"]
        options += ["-sd", str(directory / "data")]
        options += ["--user", username, "--pass", password] if password else []
        options += ["--auth", token] if token else []
        if certificates is not None:
            options += ["--tls", "--tlscert", str(certificates.server_certificate)]
            options += ["--tlskey", str(certificates.server_key)]
            options += ["--tlsverify", "--tlscacert", str(certificates.ca)]
        if settings:
            (directory / "settings.conf").write_text(settings)
            give_to(account, directory / "settings.conf")
            options += ["-c", str(directory / "settings.conf")]
        closed = token or settings
        check = server.identified if not closed else lambda: _accepts(server)
        process = ServerProcess(options, directory, account, check, signal.SIGTERM)
        process.start()
        try:
            yield PrivateNats(server, process, certificates)
        finally:
            process.stop()


def _accepts(server: NatsServer) -> None:
    import socket

    with socket.create_connection((server.host, server.port), 1):
        pass
