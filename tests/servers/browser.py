"""Find a Chromium, and start the program through which it is driven (WebDriver).

`chromedriver` is the server: each test asks it for a browser of its own, with an empty
profile. Nothing is needed to speak with it but HTTP.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from tests.servers.base import Server, ServerMissingError, ignore_running
from tests.servers.process import (
    ServerProcess,
    find_program,
    free_port,
    work_directory,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.servers.base import Servers

NAME = "Chromium"
VARIABLE = "TRACKER_STORE_TEST_BROWSER"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
HINT = (
    "install it (apt install chromium chromium-driver), or name a Chromium in "
    f"{VARIABLE} and have its chromedriver on the PATH"
)
ANSWER_SECONDS = 60


@dataclass(frozen=True, slots=True)
class BrowserServer(Server):
    """A chromedriver that runs.

    Attributes:
        binary: Path of the browser that it starts.
    """

    binary: str = field(default="")

    @property
    def address(self) -> str:
        """Where it speaks WebDriver."""
        return f"http://{self.host}:{self.port}"


@contextmanager
def find_or_start(servers: Servers) -> Iterator[BrowserServer]:
    """Yield a chromedriver for a Chromium that is named or installed."""
    if find_spec("httpx") is None:
        raise ServerMissingError(NAME, "httpx is not installed: pip install httpx")
    named = os.environ.get(VARIABLE)
    binary = named or (None if ignore_running() else find_program(*BROWSERS))
    driver = None if ignore_running() and not named else find_program("chromedriver")
    if binary is None or driver is None:
        lacking = "it is not" if binary is None else "its chromedriver is not"
        asked_for = named is not None
        raise ServerMissingError(
            NAME, f"{lacking} installed: {HINT}", asked_for=asked_for
        )
    port = free_port()
    with work_directory(None) as directory:
        command = [driver, f"--port={port}", "--log-level=WARNING"]
        process = ServerProcess(command, directory, None, lambda: _status(port))
        process.start()
        try:
            version = str(_status(port)["build"]["version"]).partition(" ")[0]
            yield BrowserServer(
                name=NAME,
                version=version,
                host="127.0.0.1",
                port=port,
                origin=f"headless, {binary}",
                binary=binary,
            )
        finally:
            process.stop()


def _status(port: int) -> dict[str, Any]:
    import httpx

    answer = httpx.get(f"http://127.0.0.1:{port}/status", timeout=ANSWER_SECONDS)
    value: dict[str, Any] = answer.json()["value"]
    if not value["ready"]:
        raise ConnectionError("not ready")
    return value
