"""The ASGI app with health and metrics, on Starlette; it can be mounted in others.

::

    app.mount("/tracker-store", create_app(store, token=token))    # FastAPI, Starlette
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

from tracker_store_async.ops.endpoints import PATHS, Endpoints

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request

    from tracker_store_async.ops.endpoints import MetricsText
    from tracker_store_async.store import TrackerStore


def create_app(
    store: TrackerStore,
    *,
    token: str | None = None,
    metrics: MetricsText | None = None,
    timeout_seconds: float = 5.0,
    owns_store: bool = False,
) -> Starlette:
    """Return the app.

    Args:
        store: The store. It is opened by the first question about it, on the loop that
            asks: that has to be the loop of whoever else uses it.
        token: What `Authorization: Bearer` must bring; None lets everybody in.
        metrics: Where `/metrics` comes from, such as `PrometheusMetrics`.
        timeout_seconds: Longest time that the storage may take to say how it is.
        owns_store: Whether the end of the app closes the store. A mounted app has no
            end of its own.

    Raises:
        ConfigurationError: The token is too short.
    """
    endpoints = Endpoints(
        store, token=token, metrics=metrics, timeout_seconds=timeout_seconds
    )

    def endpoint(path: str) -> Route:
        async def respond(request: Request) -> Response:
            answer = await endpoints.answer(path, request.headers.get("authorization"))
            return Response(answer.body, answer.status, answer.all_headers)

        return Route(path, respond, methods=["GET"])

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        if owns_store:
            await store.close()

    return Starlette(routes=[endpoint(path) for path in PATHS], lifespan=lifespan)
