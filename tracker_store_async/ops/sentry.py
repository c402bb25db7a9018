"""Error reports that hold no message, no slot and no password: a hook for Sentry.

::

    sentry_sdk.init(dsn=..., before_send=before_send)

Sentry's own scrubbing does not know what a conversation is: it sends local variables,
and the texts of drivers' errors, which quote the statement with its parameters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tracker_store_async.errors import TrackerStoreError
from tracker_store_async.redaction import MASK, REDACTOR

if TYPE_CHECKING:
    from collections.abc import Callable

PACKAGE = "tracker_store_async"


def before_send(event: dict[str, Any], hint: dict[str, Any]) -> dict[str, Any]:
    """Return a report of Sentry's without what must not get out.

    A report in which this library has a part loses all local variables, the texts of
    errors that are not ours, and the body of the request that was being answered; every
    report loses logins in URLs and passwords.

    Args:
        event: The report; it is changed.
        hint: What it was made of.
    """
    if not REDACTOR.enabled:
        return event
    if _is_ours(event, hint):
        _strip_exceptions(event, hint)
        for frame in _frames(event):
            frame.pop("vars", None)
        if "request" in event:  # a channel's: its body is what somebody said
            event["request"] = REDACTOR.value(event["request"])
    else:
        for shown in event.get("exception", {}).get("values", ()):
            shown["value"] = REDACTOR.value(shown.get("value"))
    if "message" in event:
        event["message"] = REDACTOR.value(event["message"])
    if "extra" in event:
        event["extra"] = REDACTOR.value(event["extra"])
    for breadcrumb in event.get("breadcrumbs", {}).get("values", ()):
        breadcrumb["data"] = REDACTOR.value(breadcrumb.get("data"))
        breadcrumb["message"] = REDACTOR.value(breadcrumb.get("message"))
    entry = event.get("logentry")
    if entry is not None:
        for name in ("message", "formatted", "params"):
            if name in entry:
                entry[name] = REDACTOR.value(entry[name])
    return event


def chained(
    first: Callable[[dict[str, Any], dict[str, Any]], dict[str, Any] | None],
) -> Callable[[dict[str, Any], dict[str, Any]], dict[str, Any] | None]:
    """Return a `before_send` that calls one of your own, and then this one.

    Args:
        first: Yours; it may return None to drop the report.
    """

    def both(event: dict[str, Any], hint: dict[str, Any]) -> dict[str, Any] | None:
        kept = first(event, hint)
        return None if kept is None else before_send(kept, hint)

    return both


def _is_ours(event: dict[str, Any], hint: dict[str, Any]) -> bool:
    if any(isinstance(error, TrackerStoreError) for error in _chain(hint)):
        return True
    modules = [str(frame.get("module", "")) for frame in _frames(event)]
    logger = str(event.get("logger", ""))
    return any(name.split(".")[0] == PACKAGE for name in (*modules, logger))


def _strip_exceptions(event: dict[str, Any], hint: dict[str, Any]) -> None:
    safe = {
        (type(error).__name__, str(error))
        for error in _chain(hint)
        if isinstance(error, TrackerStoreError)
    }
    for shown in event.get("exception", {}).get("values", ()):
        text = str(shown.get("value", ""))
        is_safe = (shown.get("type"), text) in safe
        shown["value"] = REDACTOR.text(text) if is_safe else MASK


def _frames(event: dict[str, Any]) -> list[dict[str, Any]]:
    threads = event.get("threads", {}).get("values", ())
    parts = [*event.get("exception", {}).get("values", ()), *threads]
    found = [(part.get("stacktrace") or {}).get("frames") or [] for part in parts]
    return [frame for frames in found for frame in frames]


def _chain(hint: dict[str, Any]) -> list[BaseException]:
    """Return the error of a report with its causes and contexts, each once."""
    info = hint.get("exc_info")
    todo: list[BaseException | None] = [info[1]] if info else []
    found: list[BaseException] = []
    while todo:
        error = todo.pop()
        if error is not None and error not in found:
            found.append(error)
            todo += [error.__cause__, error.__context__]
            if isinstance(error, BaseExceptionGroup):
                todo += error.exceptions
    return found
