"""Find a MariaDB or MySQL, or start a private MariaDB."""

from __future__ import annotations

import signal
import ssl
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from tests.canaries import SECRET
from tests.servers.base import (
    COMPOSE_PASSWORD,
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
    run_as,
    work_directory,
)
from tests.servers.tls import Certificates

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tests.servers.base import Servers
    from tests.servers.process import Account

NAME = "MariaDB or MySQL"
USERNAME = "tester"
PASSWORD = f"p@ss: w/ord%{SECRET}"  # what a URL must quote


@dataclass(frozen=True, slots=True)
class MySQLServer(Server):
    """A MariaDB or a MySQL.

    Attributes:
        ca: The certificate authority to check it with, if it wants TLS.
    """

    ca: Path | None = None

    driver: ClassVar[str] = "asyncmy"
    extra: ClassVar[str] = "mysql"

    def execute(self, statement: str, database: str = "") -> None:
        """Run one statement."""
        run_now(self._run(statement, database))

    def fetch_value(self, query: str, database: str = "") -> Any:
        """Return the first column of the first row."""
        row = run_now(self._run(query, database))
        return row[0] if row else None

    async def _run(self, statement: str, database: str) -> Any:
        import asyncmy

        context = (
            None if self.ca is None else ssl.create_default_context(cafile=self.ca)
        )
        connection = await asyncmy.connect(
            host=self.host,
            port=self.port or 3306,
            user=self.username,
            password=self.password,
            database=database or self.database or None,
            connect_timeout=CONNECT_TIMEOUT_SECONDS,
            autocommit=True,
            ssl=context,
        )
        try:
            async with connection.cursor() as cursor:
                await cursor.execute(statement)
                return await cursor.fetchone()
        finally:
            await connection.ensure_closed()

    def identified(self) -> MySQLServer:
        """Connect; return the server with the product's name and its version."""
        text = str(self.fetch_value("SELECT version()"))
        name = "MariaDB" if "mariadb" in text.lower() else "MySQL"
        version = text.split("-")[0]
        return replace(self, name=name, version=version, port=self.port or 3306)

    def create_database(self, name: str) -> None:
        """Create an empty database with whatever the server's defaults are."""
        self.execute(f"CREATE DATABASE `{name}`")

    def drop_database(self, name: str) -> None:
        """Drop a database."""
        self.execute(f"DROP DATABASE `{name}`")


@contextmanager
def find_or_start(servers: Servers) -> Iterator[MySQLServer]:
    """Yield a MariaDB or MySQL: named, running, installed, or from Docker."""
    need_driver(MySQLServer, NAME)
    logins = (("root", ""), ("root", COMPOSE_PASSWORD))
    server = from_environment(
        MySQLServer, NAME, "TRACKER_STORE_TEST_MYSQL_URL"
    ) or running_locally(MySQLServer, NAME, 3306, logins)
    if server is not None:
        yield server
    elif is_installed():
        with private_mariadb() as private:
            yield private.server
    else:
        with docker_container("mariadb", 3306, NAME) as port:
            yield MySQLServer(
                name=NAME,
                host="127.0.0.1",
                port=port,
                username="root",
                password=COMPOSE_PASSWORD,
                origin="private, from compose.yaml",
            ).identified()


def is_installed() -> bool:
    """Whether the programs of a MariaDB server are here."""
    needed = (find_program("mariadbd"), find_program("mariadb-install-db"))
    return not ignore_running() and all(needed)


@dataclass(frozen=True, slots=True)
class PrivateMariaDB:
    """A MariaDB of our own: its process may be stopped, killed and restarted."""

    server: MySQLServer
    process: ServerProcess
    certificates: Certificates | None


@contextmanager
def private_mariadb(
    *, tls: bool = False, settings: Mapping[str, str] | None = None
) -> Iterator[PrivateMariaDB]:
    """Start a MariaDB with a password and remove it at the end.

    Args:
        tls: Accept only TLS connections, with a certificate of `certificates`.
        settings: More options of the server, without the leading dashes.

    Raises:
        ServerMissingError: MariaDB is not installed.
    """
    need_driver(MySQLServer, NAME)
    daemon, installer = find_program("mariadbd"), find_program("mariadb-install-db")
    if daemon is None or installer is None:
        raise ServerMissingError(NAME, "MariaDB is not installed: mariadb-server")
    account = account_for("mysql")
    with work_directory(account) as directory:
        _initialise(installer, account, directory)
        certificates = Certificates.write(directory) if tls else None
        if certificates is not None:
            give_to(account, certificates.server_key, certificates.server_certificate)
        options = _options(directory, certificates, settings)
        server = MySQLServer(
            name="MariaDB",
            host="127.0.0.1",
            port=int(options["port"]),
            username=USERNAME,
            password=PASSWORD,
            origin=f"private, from {daemon}",
            ca=None if certificates is None else certificates.ca,
        )
        command = [daemon, "--no-defaults"]
        command += [f"--{name}={value}" for name, value in options.items()]
        process = ServerProcess(
            command, directory, account, server.identified, signal.SIGKILL
        )
        process.start()
        try:
            yield PrivateMariaDB(server.identified(), process, certificates)
        finally:
            process.stop()


def _initialise(installer: str, account: Account | None, directory: Path) -> None:
    """Create the data directory, and the statements that create our user."""
    command = [installer, "--no-defaults", f"--datadir={directory / 'data'}"]
    command += ["--auth-root-authentication-method=normal", "--skip-test-db"]
    run_as(account, command, directory)
    (directory / "init.sql").write_text(
        f"CREATE USER IF NOT EXISTS '{USERNAME}'@'%' IDENTIFIED BY '{PASSWORD}';\n"
        f"GRANT ALL ON *.* TO '{USERNAME}'@'%' WITH GRANT OPTION;\n"
    )


def _options(
    directory: Path,
    certificates: Certificates | None,
    settings: Mapping[str, str] | None,
) -> dict[str, str]:
    """Put the options of the server together."""
    options = {
        "datadir": str(directory / "data"),
        "socket": str(directory / "server.sock"),
        "pid-file": str(directory / "server.pid"),
        "init-file": str(directory / "init.sql"),
        "bind-address": "127.0.0.1",
        "port": str(free_port()),
        "skip-name-resolve": "ON",
        "innodb-buffer-pool-size": "64M",
        "innodb-log-file-size": "32M",
        # thrown away soon; survives kill -9 of the server all the same
        "innodb-flush-log-at-trx-commit": "2",
    }
    if certificates is not None:
        options["ssl-ca"] = str(certificates.ca)
        options["ssl-cert"] = str(certificates.server_certificate)
        options["ssl-key"] = str(certificates.server_key)
        options["require-secure-transport"] = "ON"
    return {**options, **(settings or {})}
