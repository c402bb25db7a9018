"""Start private server processes, stop them, kill them and start them again."""

from __future__ import annotations

import gc
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import warnings
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from tests.servers.base import StartError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

GUARD = Path(__file__).with_name("guard.py")
START_TIMEOUT_SECONDS = 60
SYSTEM_BINARIES = ("/usr/sbin", "/usr/local/sbin")
"""Where daemons live that are not on the path of an ordinary user."""


@dataclass(frozen=True, slots=True)
class Account:
    """The unprivileged account that servers run as when the tests run as root."""

    uid: int
    gid: int


def account_for(*names: str) -> Account | None:
    """Return the first account that exists, or None unless we are root.

    PostgreSQL and PgBouncer refuse to run as root, and MariaDB warns.
    """
    if os.geteuid() != 0:
        return None
    for name in (*names, "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(entry.pw_uid, entry.pw_gid)
    raise StartError("no unprivileged account exists to run a server as")


def find_program(*names: str) -> str | None:
    """Return the path of the first program that is installed."""
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), *SYSTEM_BINARIES])
    found = (shutil.which(name, path=path) for name in names)
    return next((program for program in found if program), None)


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def is_free(port: int) -> bool:
    """Whether nobody listens on a port of 127.0.0.1."""
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


@contextmanager
def work_directory(account: Account | None) -> Iterator[Path]:
    """Yield a new directory that belongs to the account, and remove it at the end."""
    # root's own TMPDIR may lie where the account cannot go
    parent = None if account is None else "/tmp"
    path = Path(tempfile.mkdtemp(prefix="tracker-store-", dir=parent))
    try:
        give_to(account, path)
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def give_to(account: Account | None, *paths: Path) -> None:
    """Make the account the owner of files that we wrote for it."""
    if account is not None:
        for path in paths:
            os.chown(path, account.uid, account.gid)


def run_as(account: Account | None, command: Sequence[str], cwd: Path) -> None:
    """Run a program to its end; raise `StartError` with its output if it fails."""
    result = subprocess.run(
        command,
        cwd=cwd,
        env=clean_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
        user=None if account is None else account.uid,
        group=None if account is None else account.gid,
        extra_groups=None if account is None else [],
    )
    if result.returncode != 0:
        raise StartError(f"{Path(command[0]).name} failed: {result.stdout[-2000:]}")


def clean_environment() -> dict[str, str]:
    """Return our environment without what would redirect or translate a server."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PG", "LC_"))}
    return {**kept, "LANG": "C", "LC_ALL": "C"}


class ServerProcess:
    """One private server process that can be stopped, killed and started again.

    Args:
        command: Program and arguments.
        directory: Its working directory; the log is written there.
        account: Whom to run it as, or None for ourselves.
        check: Connects, and raises as long as the server is not ready.
        stop_signal: The signal that ends it at once and in order.
    """

    def __init__(
        self,
        command: Sequence[str],
        directory: Path,
        account: Account | None,
        check: Callable[[], object],
        stop_signal: signal.Signals = signal.SIGTERM,
    ) -> None:
        self.command = list(command)
        self._directory = directory
        self._account = account
        self._check = check
        self._stop_signal = stop_signal
        self._guard: subprocess.Popen[str] | None = None
        self._pid = 0
        self._log = directory / "server.log"

    def start(self) -> None:
        """Start the server and wait until it answers."""
        guard = [sys.executable, "-I", "-S", str(GUARD)]
        if self._account is None:
            guard += ["-", "-"]
        else:
            guard += [str(self._account.uid), str(self._account.gid)]
        self._log.touch(mode=0o644)
        with self._log.open("a") as log:
            self._guard = subprocess.Popen(
                [*guard, str(int(self._stop_signal)), *self.command],
                cwd=self._directory,
                env=clean_environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,  # Ctrl-C is for the tests, not for the server
            )
        assert self._guard.stdout is not None
        self._pid = int(self._guard.stdout.readline() or 0)
        try:
            self._wait_until_ready()
        except BaseException:
            self.stop()
            raise

    def _wait_until_ready(self) -> None:
        """Poll until the server answers, ends or takes too long.

        Drivers forget the socket of a connection that the server refuses once TLS has
        begun. What they forget is collected here, so that its warning hits no test.
        """
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            refused = False
            while not self._answers(deadline):
                refused = True
                time.sleep(0.02)
            if refused:
                gc.collect()

    def _answers(self, deadline: float) -> bool:
        """Ask the server once; raise `StartError` if it ended or time is up."""
        try:
            self._check()
        except Exception as error:
            ended = self._guard is None or self._guard.poll() is not None
            if ended or time.monotonic() > deadline:
                name = Path(self.command[0]).name
                log = self._log.read_text(errors="replace")[-2000:]
                raise StartError(f"{name} did not start: {log}") from error
            return False
        return True

    def stop(self) -> None:
        """End the server in order, and wait until it is gone."""
        if self._guard is None:
            return
        guard, self._guard = self._guard, None
        assert guard.stdin is not None
        assert guard.stdout is not None
        with suppress(BrokenPipeError):  # the server, and so the guard, may be gone
            guard.stdin.write(".")
            guard.stdin.close()
        guard.wait()
        guard.stdout.close()

    def kill(self) -> None:
        """End the server and its children with SIGKILL, as a crash would."""
        server = psutil.Process(self._pid)
        children = server.children(recursive=True)
        for process in (server, *children):
            with suppress(psutil.NoSuchProcess):
                process.kill()
        while any(_is_alive(child) for child in children):
            time.sleep(0.005)
        self.stop()


def _is_alive(process: psutil.Process) -> bool:
    """Whether a process still runs; a zombie that nobody reaps does not."""
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
