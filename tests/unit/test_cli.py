"""The `tracker-store` command: what it shows, and how it fails."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from rich.cells import cell_len

import tracker_store_async
from tests import golden
from tests.unit.command import environment, error_of, output_of, run, save
from tracker_store_async import (
    DialogueStateTracker,
    Domain,
    EventVerbosity,
    Health,
    InMemoryTrackerStore,
)
from tracker_store_async.events import (
    ActionExecuted,
    BotUttered,
    SessionStarted,
    SlotSet,
    UserUttered,
)

if TYPE_CHECKING:
    from pathlib import Path

VERSION = tracker_store_async.__version__
NOON = 1_773_489_600.0  # 2026-03-14 12:00:00 UTC
COMMANDS = ("demo", "show", "list", "keys", "check", "schema status", "schema upgrade")


def two_sessions(sender_id: str = "alice") -> DialogueStateTracker:
    tracker = DialogueStateTracker.from_events(
        sender_id,
        [
            SessionStarted(timestamp=NOON),
            UserUttered("first", timestamp=NOON + 1),
            ActionExecuted("action_session_start", timestamp=NOON + 7200),
            SessionStarted(timestamp=NOON + 7200),
            SlotSet("people", 4, timestamp=NOON + 7201),
            UserUttered("second", timestamp=NOON + 7202),
            BotUttered("answer", timestamp=NOON + 7203),
            ActionExecuted("action_listen", timestamp=NOON + 7203),
        ],
    )
    tracker.user_id = "u-7"
    return tracker


@pytest.fixture
def chats(tmp_path: Path) -> Path:
    """A directory with `chats.db`, which holds a few conversations."""
    others = [
        DialogueStateTracker.from_events(name, [UserUttered("hi", timestamp=NOON)])
        for name in ("bob", "食べ物", "line\nbreak", "-dash")
    ]
    save(tmp_path / "chats.db", two_sessions(), *others)
    return tmp_path


# -- show ------------------------------------------------------------------------------


def test_show_prints_the_latest_session(chats: Path) -> None:
    assert output_of("show", "alice", "--db", "chats.db", cwd=chats) == [
        "conversation  alice",
        "user          u-7",
        "events        8",
        "slots         people = 4",
        "times         UTC",
        "── session started at event 3, Sat 2026-03-14 14:00:00 ".ljust(72, "─"),
        "   4  14:00:01  slot     people = 4",
        "   5  14:00:02  user     second",
        "   6  14:00:03  bot      answer",
        "not shown: 2 earlier events (--all-sessions), 2 internal events (--verbose)",
    ]


def test_show_goes_back_to_the_beginning(chats: Path) -> None:
    lines = output_of("show", "alice", "--all-sessions", "--db", "chats.db", cwd=chats)
    assert "   1  12:00:01  user     first" in lines
    assert any("14:00:00, 1 h later" in line for line in lines)
    assert not any("earlier events" in line for line in lines)


def test_show_hides_nothing_when_told_so(chats: Path) -> None:
    lines = output_of("show", "alice", "-v", "--db", "chats.db", cwd=chats)
    assert "   7  14:00:03  action   action_listen" in lines


@pytest.mark.parametrize("option", [[], ["--all-sessions"]])
def test_show_the_last_events_with_the_state_of_all(
    chats: Path, option: list[str]
) -> None:
    lines = output_of(
        "show", "alice", "--last", "2", *option, "--db", "chats.db", cwd=chats
    )
    assert "slots         people = 4" in lines
    assert [line for line in lines if "bot      answer" in line]
    assert not any("second" in line for line in lines)


def test_show_prints_exactly_what_rasa_answers(tmp_path: Path) -> None:
    """Every golden event, written by Rasa, comes out of the command unchanged."""
    domain = Domain.load(golden.path("domain.yml"))
    conversations = golden.conversations()
    trackers = {
        each["sender_id"]: DialogueStateTracker.from_dict(
            each["sender_id"],
            [event for turn in each["turns"] for event in turn],
            domain.slots,
        )
        for each in conversations
        if each["turns"]
    }
    save(tmp_path / "rasa.db", *(tracker.copy() for tracker in trackers.values()))
    for sender_id in list(trackers)[:3]:
        shown = output_of(
            *("show", sender_id, "--json", "--all-sessions", "--db", "rasa.db"),
            *("--domain", golden.path("domain.yml")),
            cwd=tmp_path,
        )
        expected = trackers[sender_id].current_state(EventVerbosity.ALL)
        assert json.loads("\n".join(shown)) == json.loads(json.dumps(expected))


def test_show_json_of_the_last_events(chats: Path) -> None:
    for option in ([], ["--all-sessions"]):
        lines = output_of(
            *("show", "alice", "--json", "--last", "2", *option, "--db", "chats.db"),
            cwd=chats,
        )
        state = json.loads("\n".join(lines))
        assert [event["event"] for event in state["events"]] == ["bot", "action"]
        assert state["slots"] == {"people": 4}


def test_a_domain_gives_the_slots_that_were_never_set(chats: Path) -> None:
    (chats / "domain.yml").write_text(
        "slots: {people: {type: float}, vip: {type: bool, initial_value: false}}"
    )
    arguments = ("show", "alice", "--domain", "domain.yml", "--db", "chats.db")
    lines = output_of(*arguments, cwd=chats)
    assert "slots         people = 4, vip = false" in lines


def test_a_sender_id_may_begin_with_a_dash(chats: Path) -> None:
    lines = output_of("show", "--db", "chats.db", "--", "-dash", cwd=chats)
    assert lines[0] == "conversation  -dash"


# -- lists -----------------------------------------------------------------------------


def test_list_is_a_table(chats: Path) -> None:
    header, *rows = output_of("list", "--db", "chats.db", cwd=chats)
    assert header.split() == ["conversation", "events", "created", "updated", "user"]
    assert len(rows) == 5
    [alice] = [row for row in rows if row.startswith("alice ")]
    assert re.fullmatch(
        r"alice +8  \d{4}-\d\d-\d\d \d\d:\d\d:\d\d  \d{4}-.{14}  u-7", alice
    )


def test_list_in_pieces_is_the_whole_list(chats: Path) -> None:
    seen: list[str] = []
    after: list[str] = []
    while True:
        lines = output_of(
            *("list", "--json", "--limit", "2", "--db", "chats.db", *after), cwd=chats
        )
        page = [json.loads(line) for line in lines]
        seen += [each["sender_id"] for each in page]
        if len(page) < 2:
            break
        after = ["--after", page[-1]["cursor"]]
    assert sorted(seen) == sorted(["alice", "bob", "食べ物", "line\nbreak", "-dash"])


def test_list_says_that_there_is_more_only_if_there_is(chats: Path) -> None:
    lines = output_of("list", "--limit", "2", "--db", "chats.db", cwd=chats)
    assert lines[-1].startswith("there are more: --limit 0 shows all, --after ")
    for limit in ("5", "0"):
        lines = output_of("list", "--limit", limit, "--db", "chats.db", cwd=chats)
        assert len(lines) == 6


def test_a_long_id_does_not_widen_the_table(tmp_path: Path) -> None:
    names = ["short", "x" * 255, "食" * 60]
    trackers = [
        DialogueStateTracker.from_events(name, [UserUttered("hi", timestamp=NOON)])
        for name in names
    ]
    for tracker in trackers:
        tracker.user_id = "u" * 200
    save(tmp_path / "chats.db", *trackers)
    header, *rows = output_of("list", "--db", "chats.db", cwd=tmp_path)
    assert max(cell_len(row) for row in rows) < 150
    assert len({cell_len(row[: row.index(" 1  2")]) for row in rows}) == 1
    assert header.index("events") == header.index("conversation") + 42
    assert any(row.startswith(f"{'x' * 37}...  ") for row in rows)
    lines = output_of("list", "--json", "--db", "chats.db", cwd=tmp_path)
    assert {json.loads(line)["sender_id"] for line in lines} == set(names)


def test_list_of_one_user(chats: Path) -> None:
    arguments = ("list", "--user", "u-7", "--json", "--db", "chats.db")
    [line] = output_of(*arguments, cwd=chats)
    assert json.loads(line)["sender_id"] == "alice"


def test_keys_are_one_a_line(chats: Path) -> None:
    lines = output_of("keys", "--db", "chats.db", cwd=chats)
    assert sorted(lines) == sorted(["alice", "bob", "食べ物", r"line\nbreak", "-dash"])


def test_a_store_without_conversations_lists_nothing(tmp_path: Path) -> None:
    save(tmp_path / "empty.db")
    assert output_of("keys", "--db", "empty.db", cwd=tmp_path) == []
    lines = output_of("list", "--db", "empty.db", cwd=tmp_path)
    assert lines == ["no conversations in empty.db"]


# -- check and schema ------------------------------------------------------------------


def test_check_reports_versions_layout_and_latency(chats: Path) -> None:
    lines = output_of("check", "--db", "chats.db", cwd=chats)
    rows = dict(line.split(maxsplit=1) for line in lines)
    assert rows["store"] == "chats.db"
    assert rows["package"].startswith(f"tracker_store_async {VERSION}, Python 3.")
    assert re.fullmatch(r"sqlite 3\.[\d.]+", rows["server"])
    assert re.fullmatch(r"aiosqlite [\d.]+, SQLAlchemy 2\.[\d.]+", rows["driver"])
    assert rows["layout"] == "current (1)"
    assert re.fullmatch(r"[\d.]+ m?s", rows["latency"])


@pytest.mark.parametrize("written", ["false", '"false"', '"${MAY_CREATE}"', "0"])
@pytest.mark.parametrize("command", ["check", "schema status"])
def test_a_store_that_may_not_create_its_tables_cannot_be_used(
    tmp_path: Path, command: str, written: str
) -> None:
    (tmp_path / "endpoints.yml").write_text(
        f"tracker_store: {{type: sql, db: no.db, create_tables: {written}}}"
    )
    result = run(*command.split(), cwd=tmp_path, env={"MAY_CREATE": "false"})
    assert (result.returncode, result.stderr) == (1, "")
    assert "not created, and create_tables is false" in result.stdout


@pytest.mark.parametrize("command", ["check", "schema status", "list"])
def test_a_sqlite_file_without_a_folder_cannot_be_created(
    tmp_path: Path, command: str
) -> None:
    (tmp_path / "endpoints.yml").write_text(
        "tracker_store: {type: sql, db: folder/chats.db}"
    )
    text = error_of(*command.split(), cwd=tmp_path, code=1)
    assert "there is no folder 'folder'; create it first" in text
    (tmp_path / "folder").mkdir()
    assert "not created" in output_of("check", cwd=tmp_path)[-1]


def test_check_finds_that_a_journal_has_no_folder(chats: Path) -> None:
    def configure(section: str) -> None:
        (chats / "endpoints.yml").write_text(f"tracker_store: {section}")

    journal = "fail_safe: {journal: no/folder/j.db}"
    configure(f"{{type: sql, db: chats.db, cache: true, {journal}}}")
    assert error_of("check", cwd=chats, code=2) == (
        "journal: the directory 'no/folder' does not exist: create it"
    )
    configure("{type: sql, db: chats.db, fail_safe: {journal: j.db}}")
    assert any("current" in line for line in output_of("check", cwd=chats))
    assert not list(chats.glob("j.db*"))
    assert not (chats / "no").exists()


class Detailed(InMemoryTrackerStore):
    """A store that tells more about itself, in long words."""

    async def _health(self) -> Health:
        found = await super()._health()
        return replace(found, details={"replication_lag": 3, "n": 1})


def test_check_separates_every_name_from_its_value(tmp_path: Path) -> None:
    (tmp_path / "endpoints.yml").write_text(
        f"tracker_store: {{type: {__name__}.Detailed}}"
    )
    rows = dict(line.split(maxsplit=1) for line in output_of("check", cwd=tmp_path))
    assert (rows["replication_lag"], rows["n"]) == ("3", "1")
    # the values stand below each other
    lines = output_of("check", cwd=tmp_path)
    assert len({line.index(rows[line.split()[0]]) for line in lines[:2]}) == 1


def rasa_database(directory: Path) -> Path:
    copy = directory / "rasa.db"
    copy.write_bytes(golden.path("sqlite/rasa.db").read_bytes())
    return copy


@pytest.mark.parametrize("command", ["check", "schema status"])
def test_rasas_layout_is_told_with_the_way_out(tmp_path: Path, command: str) -> None:
    rasa_database(tmp_path)
    result = run(*command.split(), "--db", "rasa.db", cwd=tmp_path)
    assert (result.returncode, result.stderr) == (1, "")
    assert result.stdout.splitlines()[-1].endswith(
        "(upgrade needed): tracker-store schema upgrade --db rasa.db"
    )


@pytest.mark.parametrize("command", ["keys", "list", "show user-0001"])
def test_rasas_layout_is_not_upgraded_by_looking(tmp_path: Path, command: str) -> None:
    database = rasa_database(tmp_path)
    before = database.read_bytes()
    text = error_of(*command.split(), "--db", "rasa.db", cwd=tmp_path, code=1)
    assert "tracker-store schema upgrade" in text
    assert database.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["rasa.db"]


def test_a_database_of_rasa_is_upgraded_and_shown(tmp_path: Path) -> None:
    rasa_database(tmp_path)
    lines = output_of("schema", "upgrade", "--db", "rasa.db", cwd=tmp_path)
    assert lines[1].startswith("before     Rasa's layout")
    assert lines[2] == "now        current (1)"
    assert "user-0001" in output_of("keys", "--db", "rasa.db", cwd=tmp_path)
    assert output_of("show", "user-0001", "--db", "rasa.db", cwd=tmp_path)
    again = output_of("schema", "upgrade", "--db", "rasa.db", cwd=tmp_path)
    assert again[1:] == ["before     current (1)", "now        current (1)"]


# -- which store -----------------------------------------------------------------------


def test_any_configured_store(chats: Path) -> None:
    (chats / "endpoints.yml").write_text(
        "tracker_store: {type: sql, dialect: sqlite, db: chats.db}"
    )
    assert len(output_of("keys", cwd=chats)) == 5
    assert len(output_of("keys", "--url", "sqlite:///chats.db", cwd=chats)) == 5
    result = run("keys", cwd=chats, env={"TRACKER_STORE_URL": "sqlite:///none.db"})
    assert result.returncode == 1


def test_the_broker_of_a_configured_store_is_not_needed(chats: Path) -> None:
    (chats / "endpoints.yml").write_text(
        "tracker_store: {type: sql, dialect: sqlite, db: chats.db}\n"
        "event_broker: {type: pika, url: broker.invalid}"
    )
    assert len(output_of("keys", cwd=chats)) == 5


def test_a_store_in_memory_is_empty_and_has_no_layout(tmp_path: Path) -> None:
    (tmp_path / "endpoints.yml").write_text("tracker_store: {type: in_memory}")
    assert output_of("keys", cwd=tmp_path) == []
    first = output_of("check", cwd=tmp_path)[0]
    assert first.split(maxsplit=1) == ["store", "endpoints.yml (in_memory)"]
    text = error_of("schema", "status", cwd=tmp_path, code=1)
    assert text == "a store of type in_memory has no layout to show or upgrade"


# -- a file that is not there ----------------------------------------------------------

LOOKING = ("show alice", "keys", "list", "check", "schema status")


@pytest.mark.parametrize("command", [*LOOKING, "schema upgrade"])
@pytest.mark.parametrize("given", ["--db", "--url", "variable"])
def test_a_file_that_was_named_has_to_be_there(
    tmp_path: Path, command: str, given: str
) -> None:
    url = "sqlite:///no.db"
    options = {"--db": ["--db", "no.db"], "--url": ["--url", url], "variable": []}
    env = {"TRACKER_STORE_URL": url} if given == "variable" else None
    text = error_of(*command.split(), *options[given], cwd=tmp_path, code=1, env=env)
    assert text == "there is no SQLite file 'no.db'"
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_only_configured_may_come_later(tmp_path: Path) -> None:
    (tmp_path / "endpoints.yml").write_text("tracker_store: {type: sql, db: no.db}")
    for command in ("check", "schema status"):
        lines = output_of(*command.split(), cwd=tmp_path)
        assert "not created: the first use of the store creates it" in lines[-1]
    for command in ("show alice", "keys", "list"):
        text = error_of(*command.split(), cwd=tmp_path, code=1)
        assert text.endswith("(sql): its SQLite file does not exist yet")


def test_the_help_says_how_a_new_file_is_created(tmp_path: Path) -> None:
    told = " ".join(output_of("schema", "upgrade", "--help", cwd=tmp_path)).split()
    assert "A new one is created where --endpoints names" in " ".join(told)
    (tmp_path / "new.yml").write_text("tracker_store: {type: sql, db: new.db}")
    lines = output_of("schema", "upgrade", "--endpoints", "new.yml", cwd=tmp_path)
    assert lines[-1].split() == ["now", "current", "(1)"]
    assert output_of("keys", "--db", "new.db", cwd=tmp_path) == []


@pytest.mark.parametrize("command", LOOKING)
@pytest.mark.parametrize("option", ["--db .", "--url sqlite:///."])
def test_a_directory_is_no_file(tmp_path: Path, command: str, option: str) -> None:
    text = error_of(*command.split(), *option.split(), cwd=tmp_path, code=1)
    assert text == "'.' is a directory, not a SQLite file"


def test_a_database_in_memory_needs_no_file(tmp_path: Path) -> None:
    for url in ("sqlite://", "sqlite:///:memory:"):
        lines = output_of("check", "--url", url, cwd=tmp_path)
        assert "not created" in lines[-1]


# -- errors ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    ["show alice", "keys", "list", "check", "schema status", "schema upgrade --sql"],
)
def test_looking_creates_nothing(tmp_path: Path, command: str) -> None:
    for option in (["--db", "no.db"], ["--url", "sqlite:///no.db"]):
        error_of(*command.split(), *option, cwd=tmp_path, code=1)
    (tmp_path / "endpoints.yml").write_text(
        "tracker_store: {type: sql, db: no.db, create_tables: true, auto_upgrade: true}"
    )
    run(*command.split(), cwd=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["endpoints.yml"]
    (tmp_path / "endpoints.yml").write_text(
        "tracker_store: {type: sql, db: no.db, retry: true, cache: true}"
    )
    result = run(*command.split(), cwd=tmp_path)
    assert "there are no tables yet" not in result.stderr  # there is no file either
    assert [path.name for path in tmp_path.iterdir()] == ["endpoints.yml"]


@pytest.mark.parametrize("command", ["show alice", "keys", "list", "check"])
def test_looking_touches_no_journal(chats: Path, command: str) -> None:
    (chats / "endpoints.yml").write_text(
        "tracker_store: {type: sql, db: chats.db, retry: true, "
        "fail_safe: {journal: journal.db}}"
    )
    run(*command.split(), cwd=chats)
    assert sorted(path.name for path in chats.glob("journal*")) == []
    (chats / "endpoints.yml").write_text(
        "tracker_store: {type: sql, db: chats.db, fail_safe: {jurnal: journal.db}}"
    )
    assert "did you mean 'journal'?" in run(*command.split(), cwd=chats).stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (
            ["show", "nobody", "--db", "chats.db"],
            1,
            "there is no conversation 'nobody'",
        ),
        (["show", "x", "--db", "no.db"], 1, "there is no SQLite file 'no.db'"),
        (["keys", "--db", "text.db"], 1, "text.db is damaged or is not a database"),
        (["show", "", "--db", "chats.db"], 2, "a sender id must not be empty"),
        (["show", "x" * 256, "--db", "chats.db"], 2, "longer than 255 characters"),
        (["show"], 2, "SENDER_ID"),
        (["keys"], 2, "no store is named"),
        (["keys", "--db", "a", "--url", "b"], 2, "give only one of"),
        (["keys", "--endpoints", "no.yml"], 2, "there is no such endpoints file"),
        (["keys", "--endpoints", "typo.yml"], 2, "did you mean 'dialect'?"),
        (["list", "--limit", "-1", "--db", "chats.db"], 2, "--limit"),
        (["show", "x", "--last", "0", "--db", "chats.db"], 2, "--last"),
        (["show", "x", "--domain", "no.yml", "--db", "chats.db"], 2, "does not exist"),
        (
            ["show", "x", "--domain", "d", "--db", "chats.db"],
            2,
            "directory 'd' holds no domain",
        ),
        (["lists"], 2, "No such command 'lists'"),
        (["keys", "--bogus"], 2, "(tracker-store keys --help shows how)"),
        (["audit", "head", "--x"], 2, "(tracker-store audit head --help shows how)"),
        (["--bogus"], 2, "(tracker-store --help shows how)"),
        (
            ["audit", "verify"],
            2,
            "nothing is named: use --file FILE or --endpoints FILE (there is no "
            "endpoints.yml here)",
        ),
        (["audit", "head"], 2, "use --file FILE or --endpoints FILE (there"),
    ],
)
def test_an_error_is_one_clear_line(
    chats: Path, arguments: list[str], code: int, message: str
) -> None:
    (chats / "typo.yml").write_text("tracker_store: {type: sql, dialekt: sqlite}")
    (chats / "d").mkdir()
    (chats / "d" / "nlu.yml").write_text("nlu: []")
    (chats / "text.db").write_text("this is no database at all" * 100)
    assert message in error_of(*arguments, cwd=chats, code=code)


@pytest.mark.parametrize(
    ("command", "module", "extra"),
    [
        ("encryption new-key", "cryptography", "encryption"),
        ("encryption reseal --endpoints sealed.yml", "cryptography", "encryption"),
        ("serve --db chats.db", "starlette", "ops"),
        ("keys --endpoints sealed.yml", "cryptography", "encryption"),
    ],
)
def test_a_missing_extra_is_told_in_one_sentence(
    chats: Path, command: str, module: str, extra: str
) -> None:
    (chats / "sealed.yml").write_text(
        "tracker_store: {type: sql, db: chats.db, encryption: {keys_env: KEYS}}"
    )
    hidden = f"import sys; sys.modules[{module!r}] = None"  # as if not installed
    result = subprocess.run(
        [
            *(sys.executable, "-c"),
            f"{hidden}; from tracker_store_async.cli import main; main()",
            *command.split(),
        ],
        cwd=chats,
        env=environment(PYTHONPATH=os.pathsep.join(sys.path)),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (result.returncode, result.stdout) == (2, "")
    what = f"tracker-store {command.split()[0]}"
    if command.startswith("keys"):
        what = "tracker_store.encryption"
    assert result.stderr == (
        f"error: {what} needs the package '{module}': "
        f"pip install 'tracker-store-async[{extra}]'\n"
    )


def test_an_error_shows_no_password(tmp_path: Path) -> None:
    pytest.importorskip("asyncpg", reason="the extra postgresql is not installed")
    url = "postgresql://x:pw@127.0.0.1:1/d"
    text = error_of("check", "--url", url, cwd=tmp_path, code=1)
    assert "cannot be reached: check host and port" in text
    assert "pw" not in text


def test_a_redis_that_is_away_says_what_to_check(tmp_path: Path) -> None:
    pytest.importorskip("redis", reason="the extra redis is not installed")
    url = "redis://x:pw@127.0.0.1:1"
    text = error_of("check", "--url", url, cwd=tmp_path, code=1)
    assert "cannot be reached: check host and port, and that the server runs (" in text
    assert "pw" not in text


# -- help ------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["", *COMMANDS])
@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_fits_a_terminal(tmp_path: Path, command: str, option: str) -> None:
    lines = output_of(*command.split(), option, cwd=tmp_path)
    assert max(map(len, lines)) <= 80
    assert lines[0].startswith(f"Usage: tracker-store {command}".strip())


@pytest.mark.parametrize("command", ["", "schema"])
def test_without_arguments_the_help_is_shown(tmp_path: Path, command: str) -> None:
    wanted = output_of(*command.split(), "--help", cwd=tmp_path)
    result = run(*command.split(), cwd=tmp_path)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.splitlines() == wanted


def test_help_documents_every_exit_code_and_command(tmp_path: Path) -> None:
    text = "\n".join(output_of("--help", cwd=tmp_path))
    for code in ("0", "1", "2", "130", "141"):
        assert re.search(rf"^ +{code} +\w", text, re.MULTILINE)
    for command in COMMANDS:
        assert re.search(rf"^  {command.split()[0]} ", text, re.MULTILINE)


def test_version(tmp_path: Path) -> None:
    assert output_of("--version", cwd=tmp_path) == [f"tracker-store {VERSION}"]
