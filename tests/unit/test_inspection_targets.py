"""Which store a command line means."""

from __future__ import annotations

from pathlib import Path

import pytest

from tracker_store_async.errors import ConfigurationError
from tracker_store_async.inspection.targets import find_target


@pytest.fixture(autouse=True)
def _empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write_endpoints(text: str, name: str = "endpoints.yml") -> Path:
    path = Path(name)
    path.write_text(text, encoding="utf-8")
    return path


def test_a_file_is_a_sqlite_database() -> None:
    target = find_target(db="my chats.db", environment={})
    assert target.config.type == "sql"
    assert target.config.kwargs == {"dialect": "sqlite", "db": "my chats.db"}
    assert (target.label, target.option) == ("my chats.db", "--db 'my chats.db'")


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("postgresql://host/db", "sql"),
        ("postgres://host/db", "sql"),
        ("postgresql+asyncpg://host/db", "sql"),
        ("MySQL://host/db", "sql"),
        ("sqlite:///chats.db", "sql"),
        ("rediss://host", "redis"),
        ("mongodb+srv://host", "mongod"),
    ],
)
def test_the_scheme_of_a_url_names_the_store(url: str, kind: str) -> None:
    assert find_target(url=url, environment={}).config.type == kind


@pytest.mark.parametrize(
    ("url", "file"),
    [
        ("sqlite:///chats.db", Path("chats.db")),
        ("sqlite+aiosqlite:////x/chats.db?timeout=5", Path("/x/chats.db")),
        ("sqlite://", None),
        ("sqlite:///file:x?mode=memory&uri=true", None),
        ("sqlite://:port", None),
        ("postgresql://host/chats.db", None),
    ],
)
def test_the_file_of_a_url(url: str, file: Path | None) -> None:
    assert find_target(url=url, environment={}).file == file


@pytest.mark.parametrize("given", ["option", "variable"])
def test_a_password_is_never_shown(given: str) -> None:
    url = "postgresql://me:s3cret@host/db?password=s3cret"
    option, environment = (url, {}) if given == "option" else (None, url)
    target = find_target(
        url=option,
        environment={"TRACKER_STORE_URL": environment} if environment else {},
    )
    assert target.config.url == url
    assert "s3cret" not in repr(target)
    assert target.label == "postgresql://***@host/db?***"


@pytest.mark.parametrize(
    ("url", "hint"),
    [
        ("postgresqk://me:s3cret@host/db", "did you mean 'postgresql'?"),
        ("me:s3cret@host/db", "it must begin with one of sqlite, "),
        ("s3cret://", "it must begin with one of sqlite, "),
    ],
)
def test_a_wrong_url_is_explained_without_quoting_it(url: str, hint: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        find_target(url=url, environment={})
    assert hint in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_options_go_before_the_environment_and_that_before_the_directory() -> None:
    write_endpoints("tracker_store: {type: in_memory}")
    environment = {"TRACKER_STORE_URL": "sqlite:///env.db"}
    assert find_target(db="x.db", environment=environment).label == "x.db"
    assert find_target(environment=environment).label == "sqlite:///env.db"
    target = find_target(environment={"TRACKER_STORE_URL": ""})
    assert (target.label, target.option) == ("endpoints.yml (in_memory)", "")


def test_an_endpoints_file_is_read_with_its_variables(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = write_endpoints("tracker_store: {type: sql, db: '${MY_DB}'}", "my.yml")
    monkeypatch.setenv("MY_DB", "x.db")
    target = find_target(endpoints=path)
    assert target.config.kwargs == {"db": "x.db"}
    assert target.option == "--endpoints my.yml"
    monkeypatch.delenv("MY_DB")
    with pytest.raises(ConfigurationError, match="variable MY_DB is not set"):
        find_target(endpoints=path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "no store is named"),
        ({"db": "a", "url": "sqlite:///b"}, "give only one of"),
        ({"db": "a", "endpoints": Path("b")}, "give only one of"),
        ({"db": "postgresql://h/d"}, "use --url"),
        ({"endpoints": Path("missing.yml")}, "there is no such endpoints file"),
    ],
)
def test_what_names_no_store_is_an_error(
    options: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        find_target(**options, environment={})  # type: ignore[arg-type]


def test_a_file_without_a_tracker_store_is_no_store() -> None:
    path = write_endpoints("action_endpoint: {url: 'http://localhost'}")
    with pytest.raises(ConfigurationError, match="has no tracker_store section"):
        find_target(endpoints=path)
