"""Find a PgBouncer, or start a private one in front of the PostgreSQL."""

from __future__ import annotations

import subprocess
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from tests.servers.base import (
    COMPOSE_PASSWORD,
    ServerMissingError,
    from_environment,
    ignore_running,
    need_driver,
    running_locally,
)
from tests.servers.postgresql import PostgreSQLServer
from tests.servers.process import (
    ServerProcess,
    account_for,
    find_program,
    free_port,
    work_directory,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.servers.base import Servers

NAME = "PgBouncer"


@contextmanager
def find_or_start(servers: Servers) -> Iterator[PostgreSQLServer]:
    """Yield a PgBouncer that pools by transaction: named, running or installed."""
    need_driver(PostgreSQLServer, NAME)
    logins = (("postgres", COMPOSE_PASSWORD),)
    server = from_environment(
        PostgreSQLServer, NAME, "TRACKER_STORE_TEST_PGBOUNCER_URL"
    ) or running_locally(PostgreSQLServer, NAME, 6432, logins)
    if server is not None:
        # what answers is the PostgreSQL behind it; its own console has another protocol
        yield replace(server, version=f"in front of PostgreSQL {server.version}")
        return
    program = None if ignore_running() else find_program("pgbouncer")
    if program is None:
        raise ServerMissingError(
            NAME,
            "not running on 127.0.0.1:6432 and not installed: install pgbouncer, or "
            "run `docker compose up -d --wait pgbouncer`",
        )
    behind = servers.get("postgresql")
    assert isinstance(behind, PostgreSQLServer)
    with private_pgbouncer(program, behind) as private:
        yield private


@contextmanager
def private_pgbouncer(
    program: str, behind: PostgreSQLServer
) -> Iterator[PostgreSQLServer]:
    """Start a PgBouncer in front of a PostgreSQL and remove it at the end."""
    account = account_for("postgres")
    with work_directory(account) as directory:
        port = free_port()
        settings = _write_settings(directory, behind, port)
        server = replace(
            behind,
            name=NAME,
            host="127.0.0.1",
            port=port,
            origin=f"private, in front of PostgreSQL {behind.version}",
        )
        process = ServerProcess(
            [program, str(settings)], directory, account, server.identified
        )
        process.start()
        try:
            yield replace(server, version=_version(program))
        finally:
            process.stop()


def _version(program: str) -> str:
    """Return what `pgbouncer --version` says, without the name."""
    output = subprocess.run(
        [program, "--version"], capture_output=True, text=True, check=True
    ).stdout
    return output.split()[1]


def _write_settings(directory: Path, behind: PostgreSQLServer, port: int) -> Path:
    """Write `pgbouncer.ini`: the defaults, but for transaction pooling."""
    users = directory / "users.txt"
    users.write_text(f'"{behind.username}" "{behind.password}"\n')
    settings = directory / "pgbouncer.ini"
    settings.write_text(
        "[databases]\n"
        f"* = host={behind.host} port={behind.port}\n"
        "[pgbouncer]\n"
        "listen_addr = 127.0.0.1\n"
        f"listen_port = {port}\n"
        "unix_socket_dir =\n"
        f"auth_type = {'scram-sha-256' if behind.password else 'trust'}\n"
        f"auth_file = {users}\n"
        "pool_mode = transaction\n"
        # few, so that clients meet each other's server connections
        "default_pool_size = 3\n"
        "max_client_conn = 500\n"
    )
    return settings
