"""The test servers: found, started, killed, missed and counted."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import textwrap
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.servers import (
    MANAGERS,
    MySQLServer,
    PostgreSQLServer,
    Server,
    ServerMissingError,
    Servers,
    fresh_database,
    private_mariadb,
    private_postgresql,
    required_keys,
)
from tests.servers.base import StartError
from tests.servers.process import ServerProcess, free_port, work_directory
from tests.servers.summary import Summary

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.servers.base import Server as AnyServer

ROOT = Path(__file__).parents[2]
VARIABLES = ("TRACKER_STORE_REQUIRE", "TRACKER_STORE_TEST_IGNORE_RUNNING")


def test_url_quotes_what_a_url_must() -> None:
    server = Server("S", host="h", port=1, username="a@b", password="p@ss: w/ord%")
    assert server.url("x", "d") == "x://a%40b:p%40ss%3A%20w%2Ford%25@h:1/d"


def test_a_password_is_not_shown() -> None:
    server = PostgreSQLServer("S", password="hidden")
    assert "hidden" not in f"{server!r} {server}"


def test_fresh_databases_differ_and_are_dropped(
    postgresql_server: PostgreSQLServer,
) -> None:
    query = "SELECT count(*) FROM pg_database WHERE datname = '{}'"
    with (
        fresh_database(postgresql_server) as one,
        fresh_database(postgresql_server) as other,
    ):
        assert one != other
        assert postgresql_server.fetch_value(query.format(one)) == 1
    assert postgresql_server.fetch_value(query.format(one)) == 0


def test_a_fresh_database_on_mysql(mysql_server: MySQLServer) -> None:
    with fresh_database(mysql_server) as name:
        assert mysql_server.fetch_value("SELECT database()", name) == name


def test_a_fresh_database_through_pgbouncer(
    pgbouncer_server: PostgreSQLServer,
) -> None:
    query = "SELECT current_database()"
    with fresh_database(pgbouncer_server) as name:
        assert pgbouncer_server.fetch_value(query, name) == name


@pytest.mark.backend("postgresql")
def test_private_postgresql_survives_kill() -> None:
    with private_postgresql() as private, fresh_database(private.server) as name:
        private.server.execute("CREATE TABLE t AS SELECT 7 AS a", name)
        private.process.kill()
        with pytest.raises(OSError):
            private.server.fetch_value("SELECT 1")
        private.process.start()
        assert private.server.fetch_value("SELECT a FROM t", name) == 7


@pytest.mark.backend("mysql")
def test_private_mariadb_survives_kill() -> None:
    try:
        with private_mariadb(tls=True) as private:
            private.process.kill()
            private.process.start()
            assert private.server.fetch_value("SELECT 7") == 7
    except ServerMissingError as error:
        pytest.skip(str(error))


def test_a_server_that_ends_at_once_says_why() -> None:
    def check() -> None:
        raise ConnectionRefusedError

    with work_directory(None) as directory:
        command = [sys.executable, "-c", "raise SystemExit('no disk')"]
        process = ServerProcess(command, directory, None, check)
        with pytest.raises(StartError, match="no disk"):
            process.start()


def test_a_private_server_dies_with_its_owner(tmp_path: Path) -> None:
    """The guard ends a server when the process that started it is killed."""
    port = free_port()
    program = f"import http.server as h; h.test(port={port}, bind='127.0.0.1')"
    owner = textwrap.dedent(
        f"""
        import os, pathlib, signal, socket
        from tests.servers.process import ServerProcess
        def check():
            socket.create_connection(("127.0.0.1", {port})).close()
        command = [{sys.executable!r}, "-c", {program!r}]
        ServerProcess(command, pathlib.Path({str(tmp_path)!r}), None, check).start()
        print("up", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    result = run([sys.executable, "-c", owner])
    assert "up" in result.stdout
    assert wait_until_gone(tmp_path)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


def test_each_server_is_looked_for_once() -> None:
    calls = []

    @contextmanager
    def broken(servers: Servers) -> Iterator[AnyServer]:
        calls.append(servers)
        raise ServerMissingError("It", "not here")
        yield Server("It")

    servers = Servers({"it": broken})
    for _ in range(2):
        with pytest.raises(ServerMissingError, match="not here"):
            servers.get("it")
    assert len(calls) == 1


def test_required_keys() -> None:
    assert required_keys("") == []
    assert required_keys("all") == list(MANAGERS)
    assert required_keys("mariadb, postgresql") == ["mysql", "postgresql"]
    with pytest.raises(ValueError, match="'postgrsql'"):
        required_keys("postgrsql")


def test_summary_names_what_ran_and_what_did_not() -> None:
    summary = Summary()
    summary.add("passed", [("backend", ["a", "A 1.0 (here)"])])
    summary.add("failed", [("backend", ["a", "A 1.0 (here)"])])
    summary.add("", [("backend", ["a", "A 1.0 (here)"])])  # a phase, not a test
    summary.add("skipped", [("missing", ["b", "B", "not installed"])])
    summary.add("passed", [])
    assert summary.lines(["a", "b"]) == [
        "A 1.0 (here): 1 passed, 1 failed",
        "no backend: 1 passed",
        "not run: B (not installed): 1 skipped",
    ]


class TestRequiredServers:
    """A run of its own against a server that is not there."""

    # a test that exists everywhere and asks for PgBouncer alone
    ONE_TEST = "tests/unit/test_servers.py::test_a_fresh_database_through_pgbouncer"

    def run_tests(self, **variables: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
        return run([*command, self.ONE_TEST], **variables)

    def test_missing_is_a_skip_that_is_named(self) -> None:
        result = self.run_tests(TRACKER_STORE_TEST_IGNORE_RUNNING="1")
        assert result.returncode == 0, result.stdout
        assert "not run: PgBouncer (" in result.stdout
        assert "1 skipped" in result.stdout

    def test_required_and_missing_is_a_failure(self) -> None:
        result = self.run_tests(
            TRACKER_STORE_TEST_IGNORE_RUNNING="1", TRACKER_STORE_REQUIRE="pgbouncer"
        )
        assert result.returncode == 1
        assert "PgBouncer is required: " in result.stdout

    @pytest.mark.backend("postgresql")  # or its driver would be what is missing
    def test_a_url_that_does_not_answer_is_a_failure(self) -> None:
        url = f"postgresql://me:hidden@127.0.0.1:{free_port()}/x"
        result = self.run_tests(TRACKER_STORE_TEST_PGBOUNCER_URL=url)
        assert result.returncode == 1
        assert "TRACKER_STORE_TEST_PGBOUNCER_URL does not answer" in result.stdout
        assert "hidden" not in result.stdout

    def test_an_unknown_name_is_refused(self) -> None:
        result = self.run_tests(TRACKER_STORE_REQUIRE="pgbuncer")
        assert result.returncode == pytest.ExitCode.USAGE_ERROR
        assert "names 'pgbuncer'" in result.stderr


def run(command: list[str], **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a program in the repository, with its own idea of which servers to use."""
    inherited = {k: v for k, v in os.environ.items() if k not in VARIABLES}
    return subprocess.run(
        command,
        cwd=ROOT,
        env={**inherited, "PYTHONPATH": str(ROOT), **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def wait_until_gone(path: Path, timeout_seconds: float = 10) -> bool:
    """Wait until a directory has been removed."""
    deadline = time.monotonic() + timeout_seconds
    while path.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    return not path.exists()
