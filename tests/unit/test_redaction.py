"""Nothing that is logged or reported holds a password or what somebody said."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.canaries import SECRET, SWITCH, TEXT, Watcher
from tests.conformance.kit import SENDER, add, turn, user
from tracker_store_async import (
    FailSafeTrackerStore,
    InMemoryTrackerStore,
    TrackerStore,
    errors,
    redaction,
)
from tracker_store_async.events import SlotSet
from tracker_store_async.ops.logging import JSONFormatter, configure_logging
from tracker_store_async.redaction import MASK, REDACTOR, get_logger

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
LOGGER = get_logger("tracker_store_async.test")


@pytest.fixture
def lines() -> Iterator[list[Any]]:
    """Give the JSON of what is logged."""
    stream = io.StringIO()
    logger = logging.getLogger("tracker_store_async")
    level, propagate = logger.level, logger.propagate
    handler = configure_logging("DEBUG", stream=stream)
    found: list[Any] = []

    class Lines(list[Any]):
        def __iter__(self) -> Iterator[Any]:
            return map(json.loads, stream.getvalue().splitlines())

    found = Lines()
    yield found
    logger.removeHandler(handler)
    logger.setLevel(level)
    logger.propagate = propagate
    redaction.configure()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("redis://me:pw@host:1/0 and more", f"redis://{MASK}@host:1/0 and more"),
        (
            "postgresql://host/db?password=pw&x=1",
            "postgresql://host/db?password=***&x=1",
        ),
        ("api_key: 'a b', n=1", "api_key: ***, n=1"),
        ('{"client_secret": "s"}', '{"client_secret": ***}'),
        ("nothing to hide: 3 of 4", "nothing to hide: 3 of 4"),
        ("Authorization: Bearer ey.J, n=1", f"Authorization: {MASK}, n=1"),
        ("authorization=basic YQ==", f"authorization={MASK}"),
        ("amqp://me:p@w@host/v", f"amqp://{MASK}@host/v"),
        ("amqp://me:p/w@host/v", f"amqp://{MASK}@host/v"),
        ("http://host:80/a@b", "http://host:80/a@b"),
        (r'password="a\"b", n=1', "password=***, n=1"),
        ("X-Api-Key: k1", f"X-Api-Key: {MASK}"),
        ("passphrase=p", f"passphrase={MASK}"),
        (
            r'"{\"password\": \"a b\", \"n\": 1}"',
            rf'"{{\"password\": {MASK}, \"n\": 1}}"',
        ),
    ],
)
def test_texts_lose_logins_and_passwords(text: str, shown: str) -> None:
    assert REDACTOR.text(text) == shown


@pytest.mark.parametrize(
    "part",
    [
        "password",
        "-.",
        "://x",
        "secret   ",
        "token='",
        "://a:b",
        "pwd=\\",
        "pwd=Bearer ",
        r"pwd\=\"a",
    ],
)
def test_a_text_of_any_kind_is_searched_in_linear_time(part: str) -> None:
    """What was quadratic took minutes for these."""
    assert REDACTOR.text(part * 20_000)


def test_only_the_kind_of_other_things_is_shown(lines: list[Any]) -> None:
    LOGGER.warning("%s in %s at %d", user(TEXT), [user(TEXT)], 3)
    LOGGER.warning("failed: %s", RuntimeError(TEXT))
    LOGGER.warning("refused: %s", errors.InvalidInputError("too long"))
    assert [line["message"] for line in lines] == [
        "<UserUttered> in ['<UserUttered>'] at 3",
        f"failed: RuntimeError ({MASK})",
        "refused: too long",
    ]


def test_what_is_secret_is_found_once_the_arguments_are_in_the_message(
    lines: list[Any], capfd: pytest.CaptureFixture[str]
) -> None:
    LOGGER.warning("the token: %s, of %s", SECRET, "me")
    LOGGER.warning("%s=%s", "password", SECRET)
    LOGGER.warning("%(password)d", {"password": 1})
    LOGGER.warning("took %.1f s", Decimal("1.5"))
    LOGGER.warning("of %s", SECRET, SECRET)  # the arguments do not fit
    assert [line["message"] for line in lines] == [
        f"the token: {MASK}, of me",
        f"password={MASK}",
        "%(password)d",
        "took 1.5 s",
        "of %s",
    ]
    assert capfd.readouterr().err == ""  # else logging prints arguments there


def test_a_message_without_secrets_stays_apart_from_its_arguments() -> None:
    record = logging.LogRecord("x", 20, "x", 1, "%d of %s", (1, "a"), None)
    assert redaction.RedactionFilter().filter(record)
    assert (record.msg, record.args) == ("%d of %s", (1, "a"))


def test_fields_are_masked_by_their_names(lines: list[Any]) -> None:
    extra = {
        "event": "tested",
        "text": TEXT,
        "db_password": SECRET,
        "url": f"redis://me:{SECRET}@h",
        "state": {"slots": {"a": TEXT}, "version": 3},
    }
    LOGGER.info("x", extra=extra)
    (line,) = lines
    assert line["event"] == "tested"
    assert (line["text"], line["db_password"]) == (MASK, MASK)
    assert line["url"] == f"redis://{MASK}@h"
    assert line["state"] == {"slots": MASK, "version": 3}


def test_slots_and_secrets_that_one_names(lines: list[Any]) -> None:
    redaction.configure(slots=["phone"], secrets=["hunter2"])
    LOGGER.info("it is hunter2", extra={"phone": "123", "size": "4"})
    (line,) = lines
    assert (line["message"], line["phone"], line["size"]) == (
        f"it is {MASK}",
        MASK,
        "4",
    )
    LOGGER.info("%(phone)s, %(size)s", {"phone": "123", "size": 4})
    assert [*lines][-1]["message"] == f"{MASK}, 4"
    assert REDACTOR.slot("phone", 1) == MASK
    assert REDACTOR.slot("size", 1) == 1


def test_logging_that_is_configured_later_forgets_no_slot(lines: list[Any]) -> None:
    redaction.configure(slots=["phone"], secrets=["hunter2"])
    logger = logging.getLogger("tracker_store_async")
    logger.removeHandler(configure_logging("DEBUG", stream=io.StringIO()))
    assert REDACTOR.slot("phone", 1) == MASK
    assert REDACTOR.text("hunter2") == MASK


@pytest.mark.parametrize("given", [{"slots": "phone"}, {"secrets": "hunter2"}])
def test_one_text_is_no_list_of_them(given: Any) -> None:
    with pytest.raises(errors.ConfigurationError, match="lists"):
        redaction.configure(**given)


def test_what_is_within_itself_is_logged_like_anything(lines: list[Any]) -> None:
    endless: dict[str, Any] = {"size": 1}
    endless["more"] = [endless]
    deep: Any = SECRET
    for _ in range(5000):
        deep = [deep]
    LOGGER.info("%s", deep, extra={"state": endless})
    (line,) = lines
    assert line["state"]["more"][0]["size"] == 1
    assert SECRET not in json.dumps(line)


def test_a_secret_that_is_part_of_another_leaves_nothing_of_it() -> None:
    try:
        redaction.configure(secrets=["abc", "abcd", "abcdefg", "ab"])
        assert REDACTOR.text("abcdefg abc") == f"{MASK} {MASK}"
        assert REDACTOR.value({"abcd": 1}) == {MASK: 1}
    finally:
        redaction.configure()


def test_an_error_of_several_saves_quotes_no_foreign_error() -> None:
    foreign = errors.SaveManyError({SENDER: RuntimeError(TEXT)}, 2)
    assert TEXT not in str(foreign)
    assert "RuntimeError" in str(foreign)
    ours = errors.SaveManyError({SENDER: errors.StoreDataError("too long")}, 2)
    assert "too long" in str(ours)


def test_a_traceback_keeps_its_places_and_loses_its_texts(lines: list[Any]) -> None:
    try:
        try:
            raise RuntimeError(TEXT)
        except RuntimeError as error:
            raise errors.StoreDataError("refused") from error
    except errors.StoreDataError:
        LOGGER.exception("it failed")
    (line,) = lines
    assert "StoreDataError: refused" in line["traceback"]
    assert f"builtins.RuntimeError: RuntimeError ({MASK})" in line["traceback"]
    assert "test_redaction.py" in line["traceback"]
    assert TEXT not in json.dumps(line)


def test_a_handler_that_formats_for_itself_sees_no_text() -> None:
    record = logging.LogRecord("x", 30, "f", 1, "m", (), None)
    try:
        raise RuntimeError(TEXT)
    except RuntimeError:
        record.exc_info = sys.exc_info()  # type: ignore[assignment]
    assert redaction.RedactionFilter().filter(record)
    record.exc_text = None
    assert TEXT not in logging.Formatter().format(record)
    assert TEXT not in JSONFormatter().format(record)


def test_nor_the_text_of_what_an_error_of_ours_was_raised_after() -> None:
    record = logging.LogRecord("x", 30, "f", 1, "m", (), None)
    try:
        try:
            raise RuntimeError(TEXT)
        except RuntimeError:
            raise errors.StoreDataError("refused")  # noqa: B904
    except errors.StoreDataError:
        record.exc_info = sys.exc_info()  # type: ignore[assignment]
    assert redaction.RedactionFilter().filter(record)
    record.exc_text = None
    shown = logging.Formatter().format(record)
    assert "refused" in shown
    assert TEXT not in shown


def test_every_logger_of_ours_is_filtered() -> None:
    sources = sorted((ROOT / "tracker_store_async").rglob("*.py"))
    assert len(sources) > 100
    unfiltered = [s for s in sources if "getLogger(__name__)" in s.read_text()]
    assert unfiltered == []


# -- what the suite watches ------------------------------------------------------------


class Down(InMemoryTrackerStore):
    """A store whose driver quotes what it was given when it fails."""

    is_down = False

    async def _append(self, append: Any) -> bool:
        if self.is_down:
            try:
                raise RuntimeError(f"INSERT failed: {[r.data for r in append.rows]}")
            except RuntimeError as error:
                raise errors.StoreUnavailableError("away") from error
        return await super()._append(append)


def quotes_what_it_got(error: Exception) -> None:
    """Fail as a callback of somebody else does, with everything in its text."""
    raise ValueError(f"{error} while saving {TEXT} with {SECRET}")


async def test_a_callback_that_fails_gives_nothing_away() -> None:
    primary = Down()
    store = FailSafeTrackerStore(primary, on_tracker_store_error=quotes_what_it_got)
    await add(store, SENDER, *turn(TEXT))
    primary.is_down = True
    tracker = await store.retrieve(SENDER)
    assert tracker is not None
    tracker.update(SlotSet("a", TEXT))
    await store.save(tracker)
    primary.is_down = False
    await asyncio.sleep(0.05)
    await store.close()


def test_the_suite_goes_red_when_redaction_is_off() -> None:
    this = f"{__file__}::test_a_callback_that_fails_gives_nothing_away"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", this]
    outputs = {}
    for switch in ("on", "off"):
        env = {**os.environ, SWITCH: switch, "PYTHONPATH": str(ROOT)}
        result = subprocess.run(
            command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=120
        )
        outputs[switch] = result.stdout
        assert "1 passed" in result.stdout
        assert result.returncode == (1 if switch == "off" else 0)
    assert "planted texts that got out" not in outputs["on"]
    assert "planted texts that got out" in outputs["off"]
    assert "logged in tests/unit/test_redaction.py" in outputs["off"]


def test_the_watcher_looks_at_errors_too() -> None:
    watcher = Watcher()
    watcher.look("raised", f"InvalidInputError: {TEXT}")
    watcher.look("raised", "InvalidInputError: fine")
    assert len(watcher.findings) == 1
    assert watcher.seen["raised"] == 2


async def test_the_watcher_looks_at_traces_and_metrics_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("opentelemetry.sdk")
    pytest.importorskip("opentelemetry.exporter.prometheus")
    monkeypatch.setattr(TrackerStore, "_observer", None)  # put back at the end
    watcher = Watcher()
    watcher._watch_telemetry()
    store = InMemoryTrackerStore()
    await add(store, SENDER, *turn(TEXT))
    watcher.finish()
    assert watcher.findings == []
    monkeypatch.setattr(InMemoryTrackerStore, "backend_name", TEXT)  # a label gives it
    await add(store, SENDER, *turn(TEXT))
    traced = len(watcher.findings)
    assert traced
    assert all(finding.startswith("traced") for finding in watcher.findings)
    watcher.finish()
    assert watcher.findings[traced].startswith("measured")
    watcher.metrics.close()
