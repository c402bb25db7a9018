"""A browser to be driven in a test: WebDriver's commands, over plain HTTP."""

from __future__ import annotations

import base64
import json
import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.servers.browser import BrowserServer

TIMEOUT_SECONDS = 30
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
"""The key under which WebDriver tells an element's id."""


class Browser:
    """One window with an empty profile.

    Args:
        client: Speaks with the driver, below the session's own path.
    """

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def call(self, method: str, path: str, **body: Any) -> Any:
        """Return what the driver answers; raise `AssertionError` if it refuses."""
        sent = {"json": body} if method == "POST" else {}
        answer = self._client.request(method, path, **sent)
        told = answer.json()["value"]
        assert answer.is_success, (path, told)
        return told

    def open(self, url: str) -> None:
        """Go to a page and wait until it is loaded."""
        self.call("POST", "url", url=url)

    def run(self, script: str, *arguments: Any) -> Any:
        """Return what a script returns."""
        return self.call("POST", "execute/sync", script=script, args=list(arguments))

    def wait(self, script: str) -> Any:
        """Return what an expression gives once that is true."""
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while not (value := self.run(f"return {script}")):
            assert time.monotonic() < deadline, f"it never came true: {script}"
            time.sleep(0.02)
        return value

    def click(self, selector: str) -> None:
        """Click as a person does: it has to be visible, and nothing may lie on it."""
        # else a bar that stays at the top may lie on it
        centre = (
            "document.querySelector(arguments[0]).scrollIntoView({block: 'center'})"
        )
        self.run(centre, selector)
        self.call("POST", f"{self._find(selector)}/click")

    def type(self, selector: str, text: str) -> None:
        """Type into a field."""
        self.call("POST", f"{self._find(selector)}/value", text=text)

    def _find(self, selector: str) -> str:
        found = self.call("POST", "element", using="css selector", value=selector)
        return f"element/{found[ELEMENT]}"

    def text(self, selector: str = "body") -> str:
        """Return the visible text of an element."""
        return str(self.call("GET", f"{self._find(selector)}/text"))

    def prefer(self, scheme: str) -> None:
        """Have the system prefer `light` or `dark`."""
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.tools("Emulation.setEmulatedMedia", features=[feature])

    def tools(self, command: str, **parameters: Any) -> Any:
        """Return what a command of Chromium's developer tools answers."""
        return self.call("POST", "goog/cdp/execute", cmd=command, params=parameters)

    def picture(self) -> bytes:
        """Return what is seen, as PNG."""
        return base64.b64decode(self.call("GET", "screenshot"))

    def complaints(self) -> list[str]:
        """Return the warnings and errors of the console since the last call."""
        entries = self.call("POST", "se/log", type="browser")
        return [f"{entry['level']}: {entry['message']}" for entry in entries]

    def requests(self) -> list[str]:
        """Return the URLs that pages have asked for since the last call."""
        entries = self.call("POST", "se/log", type="performance")
        events = [json.loads(entry["message"])["message"] for entry in entries]
        return [
            event["params"]["request"]["url"]
            for event in events
            if event["method"] == "Network.requestWillBeSent"
        ]


def origins(urls: list[str]) -> set[str]:
    """Return where URLs lead, without what stands behind the host."""
    parts = map(urlsplit, urls)
    return {f"{part.scheme}://{part.netloc}" for part in parts}


@contextmanager
def browsing(
    server: BrowserServer, *, width: int = 1280, height: int = 800
) -> Iterator[Browser]:
    """Open a browser, and close it at the end.

    Args:
        server: Starts it.
        width: Of its window, in pixels.
        height: Of its window, in pixels.
    """
    arguments = [
        *("--headless=new", f"--window-size={width},{height}", "--hide-scrollbars"),
        *("--disable-dev-shm-usage", "--disable-gpu", "--no-first-run", "--lang=en"),
    ]
    if os.geteuid() == 0:
        arguments.append("--no-sandbox")  # Chromium's sandbox refuses root
    wanted = {
        "goog:chromeOptions": {"args": arguments, "binary": server.binary},
        "goog:loggingPrefs": {"browser": "WARNING", "performance": "ALL"},
    }
    with httpx.Client(base_url=server.address, timeout=TIMEOUT_SECONDS) as client:
        body = {"capabilities": {"alwaysMatch": wanted}}
        answer = client.post("/session", json=body)
        told = answer.json()["value"]
        assert answer.is_success, told
        client.base_url = f"{server.address}/session/{told['sessionId']}"
        try:
            yield Browser(client)
        finally:
            client.delete("")
