"""What is answered over HTTP, for any framework: health and metrics."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol

from tracker_store_async.errors import TrackerStoreError
from tracker_store_async.ops.access import Gate
from tracker_store_async.options import check_seconds
from tracker_store_async.redaction import REDACTOR
from tracker_store_async.rows import Health

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tracker_store_async.store import TrackerStore

JSON = "application/json"
PATHS = ("/health/live", "/health/ready", "/metrics")


class MetricsText(Protocol):
    """Gives metrics as text, as `PrometheusMetrics` does."""

    content_type: str

    def text(self) -> bytes:
        """Return the metrics as they are now."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP response.

    Attributes:
        status: Its code.
        body: Its body.
        content_type: Type of the body.
        headers: Further headers.
    """

    status: int
    body: bytes
    content_type: str = JSON
    headers: tuple[tuple[str, str], ...] = ()

    @property
    def all_headers(self) -> dict[str, str]:
        """The headers with the type of the body; nothing may keep an answer."""
        return {
            "content-type": self.content_type,
            "cache-control": "no-store",
            **dict(self.headers),
        }


class Endpoints:
    """Answers for one store.

    Args:
        store: The store; it is opened by the first question about it.
        token: What `Authorization: Bearer` must bring, at least 16 characters; None
            lets everybody in. `/health/live` is open in any case: it says nothing.
        metrics: Where the metrics come from; None has none.
        timeout_seconds: Longest time that the storage may take to say how it is.

    Raises:
        ConfigurationError: The token is too short.
    """

    def __init__(
        self,
        store: TrackerStore,
        *,
        token: str | None = None,
        metrics: MetricsText | None = None,
        timeout_seconds: float = 5.0,
    ) -> None:
        self.store = store
        self.gate = Gate(token)
        self._metrics = metrics
        self._timeout_seconds = check_seconds("timeout_seconds", timeout_seconds)
        self._asking: set[asyncio.Task[Health]] = set()

    async def answer(self, path: str, authorization: str | None) -> Answer:
        """Return the answer to a GET.

        Args:
            path: One of `PATHS`.
            authorization: The header of that name, or None.
        """
        if path == "/health/live":
            return _json(200, {"status": "alive"})
        if not self.gate.lets_in(authorization):
            challenge = (("www-authenticate", "Bearer"),)
            return _json(401, {"error": "a token is needed"}, challenge)
        if path == "/health/ready":
            return await self._ready()
        if path == "/metrics" and self._metrics is not None:
            return Answer(200, self._metrics.text(), self._metrics.content_type)
        return _json(404, {"error": "there is nothing here"})

    async def _ready(self) -> Answer:
        try:
            health = await self._health()
        except TrackerStoreError as error:
            health = self._silent(str(error))
        status = readiness(health)
        shown = {"status": status, **asdict(health)}
        return _json(503 if status == "unavailable" else 200, shown)

    async def _health(self) -> Health:
        """Return what the store says, or after the time is over that it says nothing.

        A store may take seconds to give up what it has begun. That is not waited for.
        """
        asking = asyncio.ensure_future(self.store.health())
        self._asking.add(asking)
        asking.add_done_callback(self._forget)
        try:
            await asyncio.wait({asking}, timeout=self._timeout_seconds)
            if asking.done():
                return await asking
            return self._silent(f"no answer within {self._timeout_seconds:g} s")
        finally:
            asking.cancel()

    def _forget(self, asking: asyncio.Task[Health]) -> None:
        self._asking.discard(asking)
        if not asking.cancelled():
            asking.exception()  # told already, or nobody waits for it any more

    def _silent(self, reason: str) -> Health:
        name, longest = self.store.backend_name, self._timeout_seconds
        return Health(name, False, longest, error=reason)


def readiness(health: Health) -> str:
    """Return `ready`, `degraded` (a fail-safe stands in) or `unavailable`."""
    fail_safe = health.details.get("fail_safe")
    if health.reachable:
        is_closed = fail_safe is None or fail_safe.get("state") == "closed"
        return "ready" if is_closed else "degraded"
    return "unavailable" if fail_safe is None else "degraded"


def _json(
    status: int, value: Mapping[str, Any], headers: tuple[tuple[str, str], ...] = ()
) -> Answer:
    shown = {k: REDACTOR.text(v) if k == "error" and v else v for k, v in value.items()}
    return Answer(status, json.dumps(shown, default=str).encode(), headers=headers)
