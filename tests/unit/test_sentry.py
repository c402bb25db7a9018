"""What a report to Sentry holds, seen by a transport that sends nothing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("sentry_sdk")

import sentry_sdk

from tests.canaries import SECRET, TEXT
from tracker_store_async import errors
from tracker_store_async.ops.sentry import before_send, chained
from tracker_store_async.redaction import MASK, get_logger

if TYPE_CHECKING:
    from collections.abc import Iterator

LOGGER = get_logger("tracker_store_async.test_sentry")


class LocalTransport(sentry_sdk.transport.Transport):  # type: ignore[misc]
    """Keeps what would be sent."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.reports: list[Any] = []

    def capture_envelope(self, envelope: Any) -> None:
        """Keep the report in an envelope."""
        event = envelope.get_event()
        if event is not None:
            self.reports.append(event)


@pytest.fixture
def reports() -> Iterator[list[Any]]:
    transport = LocalTransport({"dsn": None})
    sentry_sdk.init(
        dsn="http://public@127.0.0.1:1/1",
        transport=transport,
        before_send=before_send,
        default_integrations=True,
        auto_enabling_integrations=False,
    )
    yield transport.reports
    sentry_sdk.get_client().close()
    sentry_sdk.get_global_scope().set_client(None)


def fail() -> None:
    """Fail as a store does: with the driver's error, which quotes, as the cause."""
    said = TEXT
    try:
        raise RuntimeError(f"INSERT failed: ({said!r}, {SECRET!r})")
    except RuntimeError as error:
        raise errors.StoreDataError("the server refused an event") from error


def test_a_report_holds_no_text_and_still_says_what_failed(reports: list[Any]) -> None:
    try:
        fail()
    except errors.StoreDataError as error:
        sentry_sdk.capture_exception(error)
    (report,) = reports
    values = {v["type"]: v["value"] for v in report["exception"]["values"]}
    assert values == {
        "StoreDataError": "the server refused an event",
        "RuntimeError": MASK,
    }
    shown = json.dumps(report, default=str)
    assert "test_sentry.py" in shown
    frames = [
        frame
        for v in report["exception"]["values"]
        for frame in v["stacktrace"]["frames"]
    ]
    assert all("vars" not in frame for frame in frames)


def test_the_request_of_a_channel_loses_its_body(reports: list[Any]) -> None:
    """Sentry's integrations of web frameworks add the request that failed."""
    request = {
        "url": "http://bot/webhooks/rest/webhook",
        "data": {"sender": "alice", "message": TEXT},
        "headers": {"Authorization": SECRET, "Accept": "*/*"},
    }

    def add_request(event: Any, hint: Any) -> Any:
        return {**event, "request": request}

    with sentry_sdk.isolation_scope() as scope:
        scope.add_event_processor(add_request)
        try:
            fail()
        except errors.StoreDataError as error:
            sentry_sdk.capture_exception(error)
    (report,) = reports
    assert report["request"] == {
        "url": "http://bot/webhooks/rest/webhook",
        "data": MASK,
        "headers": {"Authorization": MASK, "Accept": "*/*"},
    }


def test_log_lines_and_breadcrumbs_are_masked(reports: list[Any]) -> None:
    sentry_sdk.add_breadcrumb(message=f"redis://me:{SECRET}@h", data={"text": TEXT})
    try:
        raise RuntimeError(TEXT)
    except RuntimeError:
        LOGGER.exception("failed for %s", ValueError(TEXT), extra={"text": TEXT})
    (report,) = reports
    shown = json.dumps(report, default=str)
    assert TEXT not in shown
    assert SECRET not in shown
    assert "failed for" in shown


def test_what_is_not_ours_is_left_alone(reports: list[Any]) -> None:
    try:
        raise RuntimeError("somebody else's")
    except RuntimeError as error:
        sentry_sdk.capture_exception(error)
    (report,) = reports
    assert report["exception"]["values"][0]["value"] == "somebody else's"


def test_every_report_loses_passwords(reports: list[Any]) -> None:
    sentry_sdk.capture_message(f"connecting to redis://me:{SECRET}@h")
    try:
        raise RuntimeError(f"no answer from redis://me:{SECRET}@h")
    except RuntimeError as error:
        sentry_sdk.capture_exception(error)
    message, report = reports
    assert message["message"] == f"connecting to redis://{MASK}@h"
    shown = report["exception"]["values"][0]["value"]
    assert shown == f"no answer from redis://{MASK}@h"


def test_it_follows_a_hook_of_ones_own() -> None:
    event = {"extra": {"password": SECRET}}
    assert chained(lambda event, hint: None)(event, {}) is None
    assert chained(lambda event, hint: event)(event, {}) == {
        "extra": {"password": MASK}
    }
