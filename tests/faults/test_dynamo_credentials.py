"""AWS credentials that change while a store is open."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("aioboto3", reason="the extra dynamo is not installed")

from tests.dynamo_tables import Tables, append, fresh_tables, ids, read
from tracker_store_async import DynamoTrackerStore, create_tracker_store, errors
from tracker_store_async.backends.dynamo import credentials as module

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.servers import DynamoServer

SECRET = "s3cret"
LIFE_SECONDS = 1.5


@pytest.fixture
async def tables(dynamo_server: DynamoServer) -> AsyncIterator[Tables]:
    async with fresh_tables(dynamo_server) as found:
        yield found


def keys(name: str, *, life_seconds: float | None = None) -> dict[str, Any]:
    """Return credentials as STS answers; the emulator takes any."""
    found: dict[str, Any] = {"AccessKeyId": name, "SecretAccessKey": SECRET}
    if life_seconds is not None:
        ends = datetime.now(UTC) + timedelta(seconds=life_seconds)
        found |= {"SessionToken": f"token{name}", "Expiration": ends}
    return found


def without_keys(tables: Tables) -> dict[str, Any]:
    """Return the arguments of a store without its keys."""
    return {
        "endpoint_url": f"http://{tables.server.host}:{tables.server.port}",
        "table_name": tables.rasas,
    }


def signers(store: DynamoTrackerStore) -> list[tuple[str, str | None]]:
    """Return a list that each request adds its access key and token to."""
    seen: list[tuple[str, str | None]] = []

    def note(request: Any, **_: Any) -> None:
        said = request.headers["Authorization"]
        said = said.decode() if isinstance(said, bytes) else said
        token = request.headers.get("X-Amz-Security-Token")
        token = token.decode() if isinstance(token, bytes) else token
        found = re.search(r"Credential=([^/]+)/", said)
        assert found is not None
        seen.append((found.group(1), token))

    operations = store._operations
    assert operations is not None
    operations.client._client.meta.events.register("before-send.dynamodb", note)
    return seen


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_temporary_keys_are_renewed(tables: Tables, kind: str) -> None:
    asked: list[str] = []

    def source() -> dict[str, Any]:
        asked.append(f"key{len(asked)}")
        is_first = len(asked) == 1
        return keys(asked[-1], life_seconds=LIFE_SECONDS if is_first else 3600)

    async def source_async() -> dict[str, Any]:
        await asyncio.sleep(0)
        return source()

    given = source if kind == "sync" else source_async
    async with DynamoTrackerStore(**without_keys(tables), credentials=given) as store:
        assert asked[0] == "key0"
        await asyncio.sleep(LIFE_SECONDS)
        seen = signers(store)
        await asyncio.gather(*(store._read(read()) for _ in range(5)))
        assert await store._append(append(0))
        assert set(seen) == {("key1", "tokenkey1")}
        assert asked == ["key0", "key1"]  # once for all of them, and not again


async def test_a_file_is_read_again(
    tables: Tables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RECHECK_SECONDS", 0.3)
    file = tmp_path / "keys.json"
    file.write_text(json.dumps(keys("first")))
    section = {
        "type": "dynamo",
        **without_keys(tables),
        "credentials_file": str(file),
    }
    store = create_tracker_store(section)
    assert isinstance(store, DynamoTrackerStore)
    async with store:
        seen = signers(store)
        assert await store._append(append(0))
        file.write_text(json.dumps(keys("second")))
        await asyncio.sleep(0.4)
        assert len(ids(await store._read(read()))) == 3
        assert seen[-1] == ("second", None)


@pytest.mark.parametrize(
    ("held", "problem"),
    [
        (None, "does not exist"),
        ("", "is empty"),
        (f"[{json.dumps(SECRET)}]", "JSON object"),
        (f"AKIA {SECRET}", "JSON object"),
        (json.dumps({"SecretAccessKey": SECRET}), "lack AccessKeyId"),
        (json.dumps({**keys("a"), "Expiration": "soon"}), "time with its zone"),
        (json.dumps({**keys("a"), "Expiration": "2020-01-31T12:00:00Z"}), "expired"),
    ],
)
async def test_a_file_that_is_wrong_is_named_without_what_it_holds(
    tmp_path: Path, held: str | None, problem: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    file = tmp_path / "keys.json"
    if held is not None:
        file.write_text(held)
    store = DynamoTrackerStore(
        endpoint_url="http://127.0.0.1:9", credentials_file=str(file)
    )
    with pytest.raises(errors.StoreAccessError, match=problem) as caught:
        await store.open()
    error: BaseException | None = caught.value
    while error is not None:
        assert SECRET not in f"{error} {error!r}"
        error = error.__cause__ or error.__context__
    assert SECRET not in caplog.text + repr(store) + repr(store._options)


async def test_a_source_that_fails_later_tells_no_secret(
    tables: Tables, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "tracker_store_async")
    caplog.set_level(logging.WARNING)
    asked: list[int] = []

    def source() -> dict[str, Any]:
        asked.append(1)
        if len(asked) > 1:
            raise ConnectionError(SECRET)
        return keys("first", life_seconds=LIFE_SECONDS)

    async with DynamoTrackerStore(**without_keys(tables), credentials=source) as store:
        await asyncio.sleep(LIFE_SECONDS)
        with pytest.raises(errors.StoreUnavailableError, match="ConnectionError"):
            await store._read(read())
    assert SECRET not in caplog.text


def test_credentials_are_given_once() -> None:
    given: dict[str, Any]
    for given in (
        {"credentials": dict, "credentials_file": "/f"},
        {"credentials_file": "/f", "profile": "p"},
        {"credentials": dict, "aws_access_key_id": "a", "aws_secret_access_key": "b"},
    ):
        with pytest.raises(errors.ConfigurationError, match="keep one"):
            DynamoTrackerStore(**given)
    with pytest.raises(errors.ConfigurationError, match="a function"):
        DynamoTrackerStore(credentials={})  # type: ignore[arg-type]
    with pytest.raises(errors.ConfigurationError, match="bring their own"):
        DynamoTrackerStore(credentials=dict, session=object())
    section = {"type": "dynamo", "credentials_file": "/f", "profile": "p"}
    with pytest.raises(errors.ConfigurationError, match="keep one"):
        create_tracker_store(section)
