"""Server fixtures, the `backend` marker, and the line per backend in the summary.

`@pytest.mark.backend("postgresql")` on a test, or on a parameter, starts that server
before the test, skips the test where there is none and counts it in the summary. A test
that asks for a fixture such as `postgresql_server` gets the marker by itself.
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import hypothesis
import pytest

from tests import canaries
from tests.servers import MANAGERS, ServerMissingError, Servers, required_keys
from tests.servers.summary import Summary

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.servers import Server

# what a machine is busy with is no property of the code
hypothesis.settings.register_profile("no-deadline", deadline=None)
hypothesis.settings.load_profile("no-deadline")

SERVERS = pytest.StashKey[Servers]()
REQUIRED = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker; refuse a `TRACKER_STORE_REQUIRE` that names nothing."""
    config.addinivalue_line(
        "markers", f"backend(key): runs on a backend, one of {', '.join(MANAGERS)}"
    )
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A shell starts background jobs so, and what they start inherits it: then no
        # command could be tested with Ctrl-C.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    canaries.WATCHER.install()
    config.stash[SERVERS] = Servers(MANAGERS)
    try:
        required = required_keys(os.environ.get("TRACKER_STORE_REQUIRE", ""))
    except ValueError as error:
        raise pytest.UsageError(str(error)) from error
    config.stash[REQUIRED] = required


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the run if something gave a planted text away."""
    canaries.WATCHER.finish()
    if canaries.WATCHER.findings:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop what was started."""
    config.stash[SERVERS].close()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that ask for a server by its fixture."""
    for item in items:
        for name in getattr(item, "fixturenames", ()):
            key = name.removesuffix("_server")
            if key != name and key in MANAGERS:
                item.add_marker(pytest.mark.backend(key))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Stop here, and fail, if a required server is missing."""
    if session.config.option.collectonly:
        return
    servers, required = session.config.stash[SERVERS], session.config.stash[REQUIRED]
    found = [servers.find(key) for key in required]
    missing = [server for server in found if isinstance(server, ServerMissingError)]
    if missing:
        reasons = "; ".join(f"{error.name} is required: {error}" for error in missing)
        pytest.exit(reasons, returncode=1)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Start the servers of a test, or skip it."""
    for marker in item.iter_markers("backend"):
        key = marker.args[0]
        server = item.config.stash[SERVERS].find(key)
        if isinstance(server, ServerMissingError):
            item.user_properties.append(("missing", [key, server.name, str(server)]))
            if server.asked_for:
                pytest.fail(f"{server.name}: {server}", pytrace=False)
            pytest.skip(f"{server.name}: {server}")
        item.user_properties.append(("backend", [key, str(server)]))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print one line per backend, and what had no server."""
    summary = Summary()
    for outcome, reports in terminalreporter.stats.items():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                summary.add(outcome, report.user_properties)
    findings = canaries.WATCHER.findings
    seen = ", ".join(f"{n} {kind}" for kind, n in canaries.WATCHER.seen.items())
    terminalreporter.write_line(f"looked for planted texts: {seen}")
    if findings:
        terminalreporter.section("planted texts that got out", red=True)
        for finding in findings[: canaries.MAX_FINDINGS]:
            terminalreporter.write_line(finding)
    lines = summary.lines(list(MANAGERS)) + summary.storm_lines()
    if lines:
        terminalreporter.section("backends")
        for line in lines:
            terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def servers(pytestconfig: pytest.Config) -> Servers:
    """Every server: `servers.get("postgresql")`. Mark the test with its backend."""
    return pytestconfig.stash[SERVERS]


def _server_fixture(key: str) -> Callable[[Servers], Server]:
    @pytest.fixture(scope="session", name=f"{key}_server")
    def server(servers: Servers) -> Server:
        return servers.get(key)

    server.__doc__ = f"Give the {key} server of this run."
    return server


# one fixture for each entry, so that a new backend is a new entry and nothing else
for _key in MANAGERS:
    globals()[f"{_key}_server"] = _server_fixture(_key)
