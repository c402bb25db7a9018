"""The ASGI app with health, metrics and inspector, on Starlette; others may mount it.

::

    app.mount("/tracker-store", create_app(store, token=token))    # FastAPI, Starlette
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from tracker_store_async.ops.endpoints import PATHS, Endpoints
from tracker_store_async.ops.inspector.app import (
    MAX_FORM_BYTES,
    METHODS,
    Asked,
    Inspector,
)
from tracker_store_async.ops.inspector.options import check_options

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request

    from tracker_store_async.ops.endpoints import MetricsText
    from tracker_store_async.ops.inspector.options import InspectorOptions
    from tracker_store_async.store import TrackerStore


def create_app(
    store: TrackerStore,
    *,
    token: str | None = None,
    metrics: MetricsText | None = None,
    timeout_seconds: float = 5.0,
    owns_store: bool = False,
    inspector: bool | InspectorOptions | None = None,
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
        inspector: Whether `/inspector/` shows conversations: True or options, or False.
            None says yes where there is a token. Without one, True lets whoever
            reaches the app read everything: ask for a login before it.

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

    routes = [endpoint(path) for path in PATHS]
    options = check_options(token, inspector)
    if options is not None:
        routes += _inspector_routes(Inspector(store, endpoints.gate, options))
    return Starlette(routes=routes, lifespan=lifespan)


def _inspector_routes(inspector: Inspector) -> list[Route]:
    async def respond(request: Request) -> Response:
        asked = Asked(
            method=request.method,
            page=request.path_params["page"],
            query=request.url.query,
            headers=request.headers,
            body=await _body(request),
            is_https=request.url.scheme == "https",
        )
        answer = await inspector.answer(asked)
        return Response(answer.body, answer.status, answer.all_headers)

    async def lead(request: Request) -> Response:
        # relative: what a proxy or a mount has cut off is not known here
        return RedirectResponse("inspector/", 303)

    return [
        Route("/", lead),
        Route("/inspector", lead),
        Route("/inspector/{page:path}", respond, methods=list(METHODS)),
    ]


async def _body(request: Request) -> bytes:
    """Return the body of a form, or a byte more than it may have."""
    body = b""
    if request.method == "POST":
        async for piece in request.stream():
            body += piece
            if len(body) > MAX_FORM_BYTES:
                break
    return body[: MAX_FORM_BYTES + 1]
