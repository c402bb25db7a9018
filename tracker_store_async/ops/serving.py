"""`tracker-store serve`: the app on a server of its own, at the loopback by default."""

from __future__ import annotations

import logging
import socket
from typing import TYPE_CHECKING

from tracker_store_async.errors import ConfigurationError, MissingExtraError
from tracker_store_async.ops.access import is_loopback, names_loopback
from tracker_store_async.redaction import RedactionFilter
from tracker_store_async.registry import missing_extra

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import ASGIApp, Receive, Scope, Send

    from tracker_store_async.ops.endpoints import MetricsText
    from tracker_store_async.ops.inspector.options import InspectorOptions
    from tracker_store_async.store import TrackerStore

WHERE = "tracker-store serve"


def check_binding(host: str, token: str | None) -> None:
    """Check that what others can reach has a token.

    Raises:
        ConfigurationError: It has none.
    """
    if token is None and not is_loopback(host):
        raise ConfigurationError(
            f"{host} can be reached from other machines: set a token in the "
            "environment variable TRACKER_STORE_TOKEN, or serve on 127.0.0.1"
        )


def make_metrics(store: TrackerStore) -> MetricsText | None:
    """Return the metrics of a store; None if the extra is not installed."""
    try:
        from tracker_store_async.ops.prometheus import PrometheusMetrics
        from tracker_store_async.ops.telemetry import instrument
    except ModuleNotFoundError:
        return None
    metrics = PrometheusMetrics()
    instrument(store, meter_provider=metrics.meter_provider)
    return metrics


def serve(
    store: TrackerStore,
    host: str,
    port: int,
    token: str | None,
    tell: Callable[[str], None],
    inspector: InspectorOptions | None = None,
) -> None:
    """Serve until a signal ends it; then the store is closed.

    Args:
        store: The store.
        host: Address to listen at.
        port: Port to listen at; 0 takes a free one.
        token: What callers must bring, or None.
        tell: Is given a line that says where it listens, and one about the inspector.
        inspector: How the inspector behaves; None leaves it out.

    Raises:
        ConfigurationError: Others could reach it and there is no token, or the address
            cannot be listened at.
        MissingExtraError: The extra `ops` is not installed.
    """
    check_binding(host, token)
    uvicorn_app = _app(store, token, inspector)
    try:
        import uvicorn
    except ModuleNotFoundError as error:
        raise _missing("uvicorn") from error
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.create_server((host, port), family=family)
    except OSError as error:
        raise ConfigurationError(
            f"{host}:{port} cannot be listened at: {error.strerror}"
        ) from error
    with listening:
        shown = f"[{host}]" if ":" in host else host
        url = f"http://{shown}:{listening.getsockname()[1]}"
        tell(f"listening on {url}")
        if inspector is not None:
            tell(f"conversations: {url}/inspector/")
        # What goes wrong in a request is told by uvicorn, in a driver's own words.
        logging.getLogger("uvicorn.error").addFilter(RedactionFilter())
        config = uvicorn.Config(uvicorn_app, log_level="warning", access_log=False)
        uvicorn.Server(config).run(sockets=[listening])


def _app(
    store: TrackerStore, token: str | None, inspector: InspectorOptions | None
) -> ASGIApp:
    try:
        from tracker_store_async.ops.asgi import create_app
    except ModuleNotFoundError as error:
        raise _missing(error.name or "starlette") from error
    app = create_app(
        store,
        token=token,
        metrics=make_metrics(store),
        owns_store=True,
        inspector=inspector or False,
    )
    return for_loopback(app) if token is None else app


def for_loopback(app: ASGIApp) -> ASGIApp:
    """Return an app that answers to names of the loopback alone.

    Without a token that is what keeps the pages of strangers out.
    """
    from starlette.responses import JSONResponse

    async def respond(scope: Scope, receive: Receive, send: Send) -> None:
        host = dict(scope.get("headers", ())).get(b"host", b"")
        if scope["type"] == "http" and not names_loopback(host.decode("latin-1")):
            error = {"error": "without a token, ask 127.0.0.1 or localhost"}
            await JSONResponse(error, 403)(scope, receive, send)
        else:
            await app(scope, receive, send)

    return respond


def _missing(module: str) -> MissingExtraError:
    return missing_extra(WHERE, module.partition(".")[0], "ops")
