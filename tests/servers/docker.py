"""Start a service of `compose.yaml` where a Docker engine answers."""

from __future__ import annotations

import subprocess
import uuid
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tests.servers.base import ServerMissingError
from tests.servers.process import find_program

if TYPE_CHECKING:
    from collections.abc import Iterator

COMPOSE_FILE = Path(__file__).parents[2] / "compose.yaml"
ENGINE_TIMEOUT_SECONDS = 10
PULL_TIMEOUT_SECONDS = 280


@contextmanager
def docker_container(service: str, port: int, name: str) -> Iterator[int]:
    """Yield the local port of a container of our own, removed at the end.

    It is not the container of `docker compose up`: runs beside each other do not meet.

    Args:
        service: The service in `compose.yaml`.
        port: The port that it listens on inside.
        name: What people call the server, for the message.

    Raises:
        ServerMissingError: No engine answers, or the container does not come up.
    """
    if not _engine_answers():
        raise ServerMissingError(
            name,
            f"not running on 127.0.0.1:{port}, not installed, and no Docker engine "
            f"answers: install it, or run `docker compose up -d --wait {service}`",
        )
    container = f"tracker-store-test-{service}-{uuid.uuid4().hex[:8]}"
    try:
        try:
            _docker(
                *("compose", "--file", str(COMPOSE_FILE), "run", "--detach", "--rm"),
                *("--no-deps", "--name", container),
                *("--publish", f"127.0.0.1::{port}", service),
            )
            address = _docker("port", container, f"{port}/tcp").split()[0]
        except (subprocess.SubprocessError, IndexError) as error:
            reason = f"Docker could not start it: {error}"
            raise ServerMissingError(name, reason) from error
        yield int(address.rpartition(":")[2])
    finally:
        subprocess.run(
            ["docker", "rm", "--force", "--volumes", container],
            capture_output=True,
            check=False,
        )


def _engine_answers() -> bool:
    if find_program("docker") is None:
        return False
    try:
        result = subprocess.run(
            ["docker", "info"],
            capture_output=True,
            check=False,
            timeout=ENGINE_TIMEOUT_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return result.returncode == 0


def _docker(*arguments: str) -> str:
    """Run a command that must succeed, and return what it prints."""
    return subprocess.run(
        ["docker", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
        timeout=PULL_TIMEOUT_SECONDS,
    ).stdout
