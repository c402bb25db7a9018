"""A small HTTP server that speaks the part of Vault's API that we use.

It stands in for Vault, what it answers is what Vault's API
documentation says: key-value engines of both versions, the database engine's leases,
transit, and tokens that expire and are renewed.
"""

from __future__ import annotations

import base64
import json
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator


@dataclass
class FakeVault:
    """What it holds, and what it was asked.

    Attributes:
        url: Where it is.
        secrets: Path (with the mount point) to values of a key-value engine, which is
            of version 1 at the mount point `kv-1`, and of version 2 elsewhere.
        leased: Path to what makes a login of a lease.
        lease_seconds: How long such a lease lasts.
        tokens: Tokens that it knows, to seconds that they live; 0 is for ever.
        renewable: Whether they can be renewed.
        is_sealed: Whether it answers nothing.
        namespace: The namespace that requests must name, or None.
        asked: Paths that were asked for, in order.
        leads_to: URL that every request is sent on to, or None.
        renewed: Set at each renewal of a token.
    """

    url: str = ""
    secrets: dict[str, dict[str, Any]] = field(default_factory=dict)
    leased: dict[str, Callable[[], dict[str, Any]]] = field(default_factory=dict)
    lease_seconds: int = 3600
    tokens: dict[str, float] = field(default_factory=lambda: {"root": 0})
    renewable: bool = True
    is_sealed: bool = False
    namespace: str | None = None
    asked: list[str] = field(default_factory=list)
    leads_to: str | None = None
    renewed: threading.Event = field(default_factory=threading.Event)
    before_answer: Callable[[], None] = lambda: None

    def answer(self, path: str, headers: Any, body: Any) -> tuple[int, Any]:
        """Return status and body."""
        self.asked.append(path)
        self.before_answer()
        token = headers.get("X-Vault-Token")
        if self.is_sealed:
            return 503, {"errors": ["Vault is sealed"]}
        if token not in self.tokens or (
            self.namespace != headers.get("X-Vault-Namespace")
        ):
            return 403, {"errors": ["permission denied"]}
        if path == "auth/token/lookup-self":
            ttl = self.tokens[token]
            return 200, {"data": {"ttl": ttl, "renewable": self.renewable and ttl > 0}}
        if path == "auth/token/renew-self":
            self.renewed.set()
            ttl = self.tokens[token]
            return 200, {"auth": {"lease_duration": ttl, "renewable": True}}
        if path.startswith("transit/decrypt/"):
            sealed = body["ciphertext"].removeprefix("vault:v1:")
            return 200, {"data": {"plaintext": sealed}}
        return self._read(path)

    def _read(self, path: str) -> tuple[int, Any]:
        if path in self.leased:
            lease = f"{path}/{len(self.asked)}"
            return 200, {
                "lease_id": lease,
                "lease_duration": self.lease_seconds,
                "data": self.leased[path](),
            }
        mount, _, rest = path.partition("/")
        if rest.startswith("data/"):
            values = self.secrets.get(f"{mount}/{rest.removeprefix('data/')}")
            if values is not None:
                return 200, {"data": {"data": values, "metadata": {"version": 1}}}
        elif mount == "kv-1" and path in self.secrets:
            values = self.secrets[path]
            return 200, {"lease_id": "", "lease_duration": 2764800, "data": values}
        return 404, {"errors": []}


def sealed_by_transit(text: str) -> str:
    """Return a text as the transit engine here seals it."""
    return f"vault:v1:{base64.b64encode(text.encode()).decode()}"


@contextmanager
def fake_vault(
    context: ssl.SSLContext | None = None, host: str = "127.0.0.1"
) -> Iterator[FakeVault]:
    """Run one on a free port.

    Args:
        context: TLS of the server, or None.
        host: Where it listens.
    """
    vault = FakeVault()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            size = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(size)) if size else None
            path = self.path.removeprefix("/v1/")
            status, answer = vault.answer(path, self.headers, body)
            data = json.dumps(answer).encode()
            if vault.leads_to is not None:
                self.send_response(307)
                self.send_header("Location", vault.leads_to + self.path)
            else:
                self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_POST = do_GET  # noqa: N815 - the name that http.server looks for

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: Any) -> None:
            """Say nothing of clients that go away."""

    server = Server((host, 0), Handler)
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    scheme = "http" if context is None else "https"
    vault.url = f"{scheme}://localhost:{server.server_address[1]}"
    try:
        yield vault
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
