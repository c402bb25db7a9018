"""A private Redis that may be stopped, killed and started again."""

from __future__ import annotations

import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.canaries import SECRET
from tests.servers import ServerMissingError
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

PASSWORD = f"p@ss: w/ord%{SECRET}"  # what a URL must quote


@dataclass(frozen=True, slots=True)
class PrivateRedis:
    """A Redis of our own, which has an append-only file that is always synced."""

    port: int
    process: ServerProcess
    certificates: Certificates | None

    def raw(self) -> object:
        """Return a sync client of redis-py."""
        import redis

        ca = None if self.certificates is None else str(self.certificates.ca)
        tls = {} if ca is None else {"ssl": True, "ssl_ca_certs": ca}
        return redis.Redis(host="127.0.0.1", port=self.port, password=PASSWORD, **tls)  # type: ignore[arg-type]


@contextmanager
def private_redis(*, tls: bool = False) -> Iterator[PrivateRedis]:
    """Start a Redis with a password and remove it at the end.

    Args:
        tls: Accept only TLS connections.

    Raises:
        ServerMissingError: Redis, or its driver, is not installed.
    """
    try:
        import redis  # noqa: F401
    except ImportError:
        raise ServerMissingError(
            "Redis", "pip install 'tracker-store-async[redis]'"
        ) from None
    program = find_program("redis-server", "valkey-server")
    if program is None:
        raise ServerMissingError("Redis", "it is not installed: redis-server")
    account, port = account_for("redis"), free_port()
    with work_directory(account) as directory:
        certificates = Certificates.write(directory) if tls else None
        command = [program, "--bind", "127.0.0.1", "--requirepass", PASSWORD]
        command += ["--appendonly", "yes", "--appendfsync", "always", "--save", ""]
        if certificates is None:
            command += ["--port", str(port)]
        else:
            files = certificates.server_key, certificates.server_certificate
            give_to(account, *files)
            command += ["--port", "0", "--tls-port", str(port)]
            command += ["--tls-key-file", str(files[0])]
            command += ["--tls-cert-file", str(files[1])]
            command += ["--tls-ca-cert-file", str(certificates.ca)]
            command += ["--tls-auth-clients", "optional"]
        server: PrivateRedis

        def check() -> None:
            client = server.raw()
            try:
                client.ping()  # type: ignore[attr-defined]
            finally:
                client.close()  # type: ignore[attr-defined]

        process = ServerProcess(command, directory, account, check)
        server = PrivateRedis(port, process, certificates)
        try:
            process.start()
        except subprocess.SubprocessError as error:
            raise ServerMissingError("Redis", "it does not start") from error
        try:
            yield server
        finally:
            process.stop()
