"""Find a RabbitMQ, or start a private one."""

from __future__ import annotations

import base64
import hashlib
import json
import signal
import ssl
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import quote

import psutil

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

NAME = "RabbitMQ"

READER = "reader"
"""User of a private node who may declare everything, and write to no exchange but the
default one; to bind a queue named `events_` takes writing to that. The password is the
name."""


@dataclass(frozen=True, slots=True)
class RabbitMQServer(Server):
    """A RabbitMQ.

    Attributes:
        ca: The certificate authority to check it with, if it wants TLS.
    """

    ca: Path | None = None

    driver: ClassVar[str] = "aio_pika"
    extra: ClassVar[str] = "pika"

    def amqp_url(self) -> str:
        """Return the URL with the login in it."""
        scheme = "amqp" if self.ca is None else "amqps"
        login = f"{quote(self.username, safe='')}:{quote(self.password, safe='')}"
        return f"{scheme}://{login}@{self.host}:{self.port or 5672}/"

    async def connect(self) -> Any:
        """Return an aio-pika connection of the test's own."""
        import aio_pika

        context = (
            None if self.ca is None else ssl.create_default_context(cafile=self.ca)
        )
        return await aio_pika.connect(
            self.amqp_url(), ssl_context=context, timeout=CONNECT_TIMEOUT_SECONDS
        )

    def identified(self) -> RabbitMQServer:
        """Connect; return the server with its version."""
        return replace(self, version=run_now(self._version()), port=self.port or 5672)

    async def _version(self) -> str:
        import logging

        logging.getLogger("aiormq.connection").setLevel(logging.CRITICAL)
        connection = await self.connect()
        async with connection:
            properties = connection.transport.connection.server_properties
        return str(properties["version"])


@contextmanager
def find_or_start(servers: Servers) -> Iterator[RabbitMQServer]:
    """Yield a RabbitMQ: named, running, installed, or from Docker."""
    need_driver(RabbitMQServer, NAME)
    server = from_environment(
        RabbitMQServer, NAME, "TRACKER_STORE_TEST_RABBITMQ_URL"
    ) or running_locally(RabbitMQServer, NAME, 5672, [("guest", "guest")])
    if server is not None:
        yield server
    elif not ignore_running() and find_program("rabbitmq-server"):
        with private_rabbitmq() as private:
            yield private.server
    else:
        with docker_container("rabbitmq", 5672, NAME) as port:
            yield RabbitMQServer(
                name=NAME,
                host="127.0.0.1",
                port=port,
                username="guest",
                password="guest",
                origin="private, from compose.yaml",
            ).identified()


@dataclass(frozen=True, slots=True)
class PrivateRabbitMQ:
    """A RabbitMQ of our own: its process may be killed and started again.

    Attributes:
        server: The node, at the port that takes no TLS.
        tls_server: The same node, at the port that takes nothing else, or None.
        process: The process.
        certificates: What its TLS is made of, or None.
    """

    server: RabbitMQServer
    tls_server: RabbitMQServer | None
    process: ServerProcess
    certificates: Certificates | None


@contextmanager
def private_rabbitmq(
    *, tls: bool = False, more_settings: str = ""
) -> Iterator[PrivateRabbitMQ]:
    """Start a RabbitMQ and remove it at the end.

    Args:
        tls: Have another port for TLS, with a certificate of `certificates`.
        more_settings: Further lines of its `rabbitmq.conf`.

    Raises:
        ServerMissingError: RabbitMQ is not installed.
    """
    need_driver(RabbitMQServer, NAME)
    daemon = _daemon()
    account = account_for("rabbitmq")
    with work_directory(account) as directory:
        certificates = Certificates.write(directory) if tls else None
        if certificates is not None:
            give_to(account, certificates.server_key, certificates.server_certificate)
        port, distribution = free_port(), free_port()
        tls_port = free_port() if tls else None
        settings = _settings(port, tls_port, certificates)
        settings += f"load_definitions = {directory / 'users.json'}\n{more_settings}"
        (directory / "rabbitmq.conf").write_text(settings)
        (directory / "enabled_plugins").write_text("[].")
        (directory / "users.json").write_text(json.dumps(_users()))
        names = ("rabbitmq.conf", "enabled_plugins", "users.json")
        give_to(account, *(directory / name for name in names))
        server = RabbitMQServer(
            name=NAME,
            host="localhost",
            port=port,
            username="guest",
            password="guest",
            origin=f"private, from {daemon}",
        )
        environment = _environment(directory, port, distribution)
        command = ["/usr/bin/env", *environment, daemon]
        process = ServerProcess(
            command, directory, account, server.identified, signal.SIGTERM
        )
        process.start()
        try:
            encrypted = None
            if certificates is not None and tls_port is not None:
                encrypted = replace(server, port=tls_port, ca=certificates.ca)
            yield PrivateRabbitMQ(server.identified(), encrypted, process, certificates)
        finally:
            with suppress(psutil.Error):  # an orderly end takes seconds, for nothing
                process.kill()
            process.stop()


def _daemon() -> str:
    """Return the program itself; the one on the path insists on an account."""
    directories = sorted(Path("/usr/lib/rabbitmq/lib").glob("rabbitmq_server-*"))
    for directory in directories:
        program = directory / "sbin" / "rabbitmq-server"
        if program.exists():
            return str(program)
    program_on_path = find_program("rabbitmq-server")
    if program_on_path is None:
        raise ServerMissingError(NAME, "RabbitMQ is not installed: rabbitmq-server")
    return program_on_path


def _environment(directory: Path, port: int, distribution: int) -> list[str]:
    """Return what keeps the node apart from every other one on the machine."""
    return [
        f"HOME={directory}",
        f"RABBITMQ_NODENAME=test{port}@localhost",
        f"RABBITMQ_DIST_PORT={distribution}",
        f"RABBITMQ_MNESIA_BASE={directory / 'mnesia'}",
        f"RABBITMQ_LOG_BASE={directory / 'log'}",
        f"RABBITMQ_CONFIG_FILE={directory / 'rabbitmq'}",
        f"RABBITMQ_CONF_ENV_FILE={directory / 'none.conf'}",
        f"RABBITMQ_ENABLED_PLUGINS_FILE={directory / 'enabled_plugins'}",
        f"RABBITMQ_PID_FILE={directory / 'server.pid'}",
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=+sbwt none +S 1:1",
    ]


def _settings(
    port: int, tls_port: int | None, certificates: Certificates | None
) -> str:
    lines = ["loopback_users = none", "vm_memory_high_watermark.absolute = 512MB"]
    lines += ["disk_free_limit.absolute = 10MB", f"listeners.tcp.1 = 127.0.0.1:{port}"]
    if certificates is not None:
        lines += [
            f"listeners.ssl.1 = 127.0.0.1:{tls_port}",
            f"ssl_options.cacertfile = {certificates.ca}",
            f"ssl_options.certfile = {certificates.server_certificate}",
            f"ssl_options.keyfile = {certificates.server_key}",
            "ssl_options.verify = verify_peer",
            "ssl_options.fail_if_no_peer_cert = false",
        ]
    return "\n".join(lines) + "\n"


def _users() -> dict[str, Any]:
    """Return the definitions of the users and of what they may do."""
    everything = {"configure": ".*", "write": ".*", "read": ".*"}
    no_exchange = everything | {"write": r"^events_[0-9a-f]+$|^amq\.default$"}
    return {
        "users": [
            _user("guest", "administrator"),
            _user(READER, ""),
        ],
        "vhosts": [{"name": "/"}],
        "permissions": [
            {"user": "guest", "vhost": "/", **everything},
            {"user": READER, "vhost": "/", **no_exchange},
        ],
    }


def _user(name: str, tags: str) -> dict[str, Any]:
    salt = b"salt"
    hashed = salt + hashlib.sha256(salt + name.encode()).digest()
    return {
        "name": name,
        "password_hash": base64.b64encode(hashed).decode(),
        "hashing_algorithm": "rabbit_password_hashing_sha256",
        "tags": tags,
    }
