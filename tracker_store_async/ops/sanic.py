"""The endpoints as a blueprint: Sanic, which Rasa runs on, mounts no ASGI app.

::

    app.blueprint(create_blueprint(store, token=token), url_prefix="/tracker-store")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sanic import Blueprint
from sanic.response import raw

from tracker_store_async.ops.endpoints import PATHS, Endpoints
from tracker_store_async.ops.inspector.app import (
    MAX_FORM_BYTES,
    METHODS,
    Asked,
    Inspector,
)
from tracker_store_async.ops.inspector.options import check_options

if TYPE_CHECKING:
    from tracker_store_async.ops.endpoints import MetricsText
    from tracker_store_async.ops.inspector.options import InspectorOptions
    from tracker_store_async.store import TrackerStore


def create_blueprint(
    store: TrackerStore,
    *,
    token: str | None = None,
    metrics: MetricsText | None = None,
    timeout_seconds: float = 5.0,
    inspector: bool | InspectorOptions | None = None,
) -> Any:
    """Return the blueprint.

    Args:
        store: The store, on the loop of the app.
        token: What `Authorization: Bearer` must bring; None lets everybody in.
        metrics: Where `/metrics` comes from, such as `PrometheusMetrics`.
        timeout_seconds: Longest time that the storage may take to say how it is.
        inspector: Whether `/inspector/` shows conversations; see `asgi.create_app`.

    Raises:
        ConfigurationError: The token is too short.
    """
    endpoints = Endpoints(
        store, token=token, metrics=metrics, timeout_seconds=timeout_seconds
    )
    blueprint: Any = Blueprint("tracker_store")
    for number, path in enumerate(PATHS):
        blueprint.add_route(
            _handler(endpoints, path), path, methods=["GET"], name=f"path{number}"
        )
    options = check_options(token, inspector)
    if options is not None:
        respond = _inspector_handler(Inspector(store, endpoints.gate, options))
        for number, path in enumerate(("/inspector", "/inspector/<page:path>")):
            blueprint.add_route(
                respond, path, methods=list(METHODS), name=f"inspector{number}"
            )
    return blueprint


def _handler(endpoints: Endpoints, path: str) -> Any:
    async def respond(request: Any) -> Any:
        answer = await endpoints.answer(path, request.headers.get("authorization"))
        return raw(answer.body, answer.status, answer.all_headers)

    return respond


def _inspector_handler(inspector: Inspector) -> Any:
    async def respond(request: Any, page: str = "") -> Any:
        if not page and not request.path.endswith("/"):
            # relative: what a proxy has cut off is not known here
            return raw(b"", 303, {"location": "inspector/"})
        asked = Asked(
            method=request.method,
            page=page,
            query=request.query_string,
            headers=request.headers,
            body=request.body[: MAX_FORM_BYTES + 1],
            is_https=request.scheme == "https",
        )
        answer = await inspector.answer(asked)
        return raw(answer.body, answer.status, answer.all_headers)

    return respond
