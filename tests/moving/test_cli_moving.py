"""The commands that move data, as they are typed."""

from __future__ import annotations

import asyncio
import signal
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from tests.moving.kit import BEGAN, append, contents, fill
from tests.unit.command import (
    TIMEOUT_SECONDS,
    command_line,
    environment,
    error_of,
    output_of,
    run,
    started,
)
from tracker_store_async import SQLTrackerStore, errors
from tracker_store_async.inspection.terminal import make_console
from tracker_store_async.moving import backup_writer
from tracker_store_async.moving.commands import back_up, named_store
from tracker_store_async.moving.moments import moment_of
from tracker_store_async.moving.progress import Lines, shown_progress

backup_module = import_module("tracker_store_async.moving.backup")
"""The package has a function of this name."""


def make(path: Path, **sizes: int) -> None:
    async def work() -> None:
        async with SQLTrackerStore(db=str(path)) as store:
            await fill(store, sizes)

    asyncio.run(work())


def everything(path: Path) -> dict[str, Any]:
    async def work() -> dict[str, Any]:
        async with SQLTrackerStore(db=str(path)) as store:
            return await contents(store)

    return asyncio.run(work())


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "a.db"
    make(path, alice=3, bob=24)
    return path


def endpoints(path: Path, db: str, more: str = "") -> str:
    text = f"tracker_store:\n  type: sql\n  dialect: sqlite\n  db: {db}\n{more}"
    path.write_text(text)
    return path.name


def test_migrate(source: Path, tmp_path: Path) -> None:
    one = endpoints(tmp_path / "a.yml", "a.db", "  fail_safe: {}\n")
    other = endpoints(tmp_path / "b.yml", "b.db")
    lines = output_of("migrate", "--from", one, "--to", other, "--verify", cwd=tmp_path)
    assert lines[0].startswith(
        "2 conversations: 2 copied, 0 continued, 0 there already; 27 events in "
    )
    assert "everything is the same" in lines[1]
    assert everything(tmp_path / "b.db") == everything(source)
    assert not list(tmp_path.glob("*.state"))
    [line] = output_of("migrate", "--from", "a.db", "--to", "b.db", cwd=tmp_path)
    assert "0 copied, 0 continued, 2 there already; 0 events" in line


def test_migrate_says_what_is_not_the_same(source: Path, tmp_path: Path) -> None:
    make(tmp_path / "b.db", bob=30)
    arguments = ("migrate", "--from", "a.db", "--to", "b.db")
    result = run(*arguments, cwd=tmp_path)
    assert result.returncode == 1
    assert "1 copied" in result.stdout
    [line] = result.stderr.splitlines()
    assert line == (
        "problem: conversation 'bob' at position 24: the target has more events"
    )
    result = run(*arguments, "--only-verify", cwd=tmp_path)
    assert result.returncode == 1
    assert "they differ" in result.stdout


def test_a_source_is_not_made(tmp_path: Path) -> None:
    for words in (
        "migrate --from no.db --to b.db",
        "migrate --from no.db --to b.db --delete-missing --dry-run",
        "backup --from no.db b.jsonl.gz",
        "transcript bob --from no.db",
    ):
        error = error_of(*words.split(), cwd=tmp_path, code=1)
        assert error == "there is no SQLite file 'no.db'"
    assert list(tmp_path.iterdir()) == []
    name = endpoints(tmp_path / "a.yml", "no.db", "  retry: true\n")
    error = error_of("transcript", "bob", "--from", name, cwd=tmp_path, code=1)
    assert (
        error == "nothing is stored in a.yml (sql): its SQLite file does not exist yet"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["a.yml"]
    (tmp_path / "no.db").touch()
    error = error_of("transcript", "bob", "--from", "no.db", cwd=tmp_path, code=1)
    assert error == "nothing is stored in no.db: there are no tables yet"
    make(tmp_path / "a.db", a=1)
    error = error_of("migrate", "--from", "a.db", "--to", "a.db", cwd=tmp_path, code=2)
    assert "the same store" in error


def test_backup_and_restore(source: Path, tmp_path: Path) -> None:
    [line] = output_of("backup", "--from", "a.db", "a.jsonl.gz", cwd=tmp_path)
    assert line.startswith("a.jsonl.gz: 2 conversations, 27 events, ")
    [line] = output_of("restore", "a.jsonl.gz", "--to", "b.db", cwd=tmp_path)
    assert "2 restored" in line
    assert everything(tmp_path / "b.db") == everything(source)
    damaged = bytearray((tmp_path / "a.jsonl.gz").read_bytes())
    damaged[len(damaged) // 2] ^= 1
    (tmp_path / "a.jsonl.gz").write_bytes(damaged)
    error = error_of("restore", "a.jsonl.gz", "--to", "c.db", cwd=tmp_path, code=1)
    assert "nothing was written" in error
    assert not (tmp_path / "c.db").exists()
    error = error_of("restore", "none.jsonl.gz", "--to", "c.db", cwd=tmp_path, code=1)
    assert "no file" in error


def test_a_backup_of_what_was_added_since_the_last_one(
    source: Path, tmp_path: Path
) -> None:
    words = ("backup", "--from", "a.db", "--since-last", "last.state")
    [line] = output_of(*words, "1.jsonl.gz", cwd=tmp_path)
    assert ": 2 conversations" in line
    assert b"alice" not in (tmp_path / "last.state").read_bytes()
    [line] = output_of(*words, "2.jsonl.gz", cwd=tmp_path)
    assert ": 0 conversations" in line
    make(tmp_path / "b.db", a=1)
    words = ("backup", "--from", "b.db", "--since-last", "last.state", "3.jsonl.gz")
    assert "another store" in error_of(*words, cwd=tmp_path, code=2)
    words = ("backup", "--from", "a.db", "--since-last", "last.state", "3.jsonl.gz")
    for content in (b"", b"{}\n"):
        (tmp_path / "last.state").write_bytes(content)
        assert "delete it for a" in error_of(*words, cwd=tmp_path, code=2)
        assert (tmp_path / "last.state").read_bytes() == content
    for name, told in (("3.jsonl.gz", "another file"), ("none/x", "does not exist")):
        words = ("backup", "--from", "a.db", "--since-last", name, "3.jsonl.gz")
        assert told in error_of(*words, cwd=tmp_path, code=2)
    times = ("--from-time", "2023-11-14")
    assert "only one of" in error_of(*words, *times, cwd=tmp_path, code=2)
    assert not list(tmp_path.glob("3.*"))


def test_backups_on_top_of_each_other(source: Path, tmp_path: Path) -> None:
    """Of a conversation that was begun again in between, the newest has the truth."""
    words = ("backup", "--from", "a.db", "--since-last", "last.state")
    output_of(*words, "1.jsonl.gz", cwd=tmp_path)
    output_of("delete", "alice", "--db", "a.db", cwd=tmp_path)
    make(tmp_path / "old.db", alice=4, carol=2)
    output_of("migrate", "--from", "old.db", "--to", "a.db", cwd=tmp_path)
    asyncio.run(begin_again(tmp_path / "a.db", "alice"))
    [line] = output_of(*words, "2.jsonl.gz", cwd=tmp_path)
    assert ": 2 conversations" in line, "carol was updated long ago"
    output_of("restore", "1.jsonl.gz", "--to", "b.db", cwd=tmp_path)
    lines = output_of("restore", "2.jsonl.gz", "--to", "b.db", cwd=tmp_path)
    assert lines[0].startswith("2 conversations: 2 restored, 0 continued")
    assert lines[1] == "1 of them in place of what an earlier backup has"
    assert everything(tmp_path / "b.db") == everything(source)


async def begin_again(path: Path, sender_id: str) -> None:
    async with SQLTrackerStore(db=str(path)) as store:
        assert await store.delete(sender_id)
        assert await store._append(append(sender_id, 0, 5, 0, origin=None))


def test_the_next_one_has_what_one_that_was_cut_off_has_passed(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has of each what it was when it was written, and not when it went on."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(backup_module, "BATCH_CONVERSATIONS", 1)
    monkeypatch.setattr(backup_writer, "MEMBER_BYTES", 1)
    write, written = backup_module._Backup._write_batch, []

    async def cut_off(self: Any, batch: Any) -> Any:
        written.append(batch.summaries[0].sender_id)
        if len(written) == 2:
            raise asyncio.CancelledError
        return await write(self, batch)

    monkeypatch.setattr(backup_module._Backup, "_write_batch", cut_off)
    since, console = Path("last.state"), make_console()

    def back_up_to(path: str, before: float | None = None) -> list[str]:
        written.clear()
        selection = backup_module.Selection(updated_before=before)
        target = named_store("a.db")
        asyncio.run(back_up(console, target, Path(path), selection, since))
        return written

    with pytest.raises(asyncio.CancelledError):
        back_up_to("1.jsonl.gz")
    assert not since.exists()
    monkeypatch.setattr(backup_module._Backup, "_write_batch", noted_in(written, write))
    asyncio.run(grow(tmp_path / "a.db", "alice", 3))
    assert back_up_to("1.jsonl.gz") == ["bob"], "it has begun anew"
    assert back_up_to("2.jsonl.gz") == ["alice"]
    asyncio.run(grow(tmp_path / "a.db", "alice", 4))
    assert back_up_to("3.jsonl.gz", BEGAN) == []
    assert back_up_to("4.jsonl.gz") == ["alice"]


def noted_in(written: list[str], write: Any) -> Any:
    async def noted(self: Any, batch: Any) -> Any:
        written.extend(each.sender_id for each in batch.summaries)
        return await write(self, batch)

    return noted


async def grow(path: Path, sender_id: str, version: int) -> None:
    async with SQLTrackerStore(db=str(path)) as store:
        assert await store._append(append(sender_id, version, 1, version))


def test_selections_of_a_backup(source: Path, tmp_path: Path) -> None:
    words = ("backup", "--from", "a.db")
    [line] = output_of(
        *words, "--conversations", "bob, none", "1.jsonl.gz", cwd=tmp_path
    )
    assert ": 1 conversations, 24 events" in line
    times = ("--from-time", "2023-11-14T22:13:40", "--to-time", "2023-11-15")
    [line] = output_of(*words, *times, "2.jsonl.gz", cwd=tmp_path)
    assert ": 1 conversations, 24 events" in line
    error = error_of(*words, "--from-time", "x", "3.jsonl.gz", cwd=tmp_path, code=2)
    assert "no time" in error
    words = (*words, "--from-time", "2023", "3.jsonl.gz")
    assert "'2023' is no time" in error_of(*words, cwd=tmp_path, code=2)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2026-03-14", 1773446400),
        ("2026-03-14T01:00:00+01:00", 1773446400),
        ("20260314", 1773446400),  # ISO 8601 without dashes, not a day of 1970
        ("20260314T010000+0100", 1773446400),
        ("1773511331.25", 1773511331.25),
        ("1773511331", 1773511331),
        ("0", 0),
    ],
)
def test_times_that_a_person_writes(text: str, seconds: float) -> None:
    assert moment_of(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        *("2026", "202603", "20261399", "20260314180211", "1773511331000"),
        *("12.5", "-1773511331", "1e12", "nan", "inf", "99999999999999999999", "", "x"),
        "\N{ARABIC-INDIC DIGIT TWO}026",
    ],
)
def test_what_is_hardly_a_time_is_refused(text: str) -> None:
    with pytest.raises(errors.ConfigurationError, match="is no time: write 2026-03-14"):
        moment_of(text)


def test_export(source: Path, tmp_path: Path) -> None:
    name = endpoints(tmp_path / "a.yml", "a.db")
    words = ("export", "--endpoints", name)
    assert "event_broker" in error_of(*words, cwd=tmp_path, code=2)
    name = endpoints(tmp_path / "a.yml", "a.db", "event_broker:\n  type: recording\n")
    [line] = output_of(*words, cwd=tmp_path)
    assert line.startswith("27 events of 2 conversations were confirmed by Recording")
    ids = ("--conversation-ids", "bob,eve")
    basic = ("--minimum-timestamp", "20231114", "--maximum-timestamp", "20231115")
    [line] = output_of(*words, *basic, cwd=tmp_path)
    assert line.startswith("24 events of 2 conversations")
    assert "no time" in error_of(*words, *basic[:3], "2023", cwd=tmp_path, code=2)
    times = ("--minimum-timestamp", "1700000010", "--maximum-timestamp", "1700000020")
    result = run(*words, *ids, *times, cwd=tmp_path)
    assert result.stdout.startswith("9 events of 1 conversations")
    assert result.stderr == "warning: not found: 'eve'\n"


def test_transcript(source: Path, tmp_path: Path) -> None:
    words = ("transcript", "bob", "--from", "a.db")
    assert output_of(*words, cwd=tmp_path)[0] == "Conversation bob"
    assert output_of(*words, "--format", "html", cwd=tmp_path)[0] == "<!doctype html>"
    lines = output_of(*words, "--format", "markdown", "-v", cwd=tmp_path)
    assert lines[0] == "# Conversation bob"
    error = error_of("transcript", "eve", "--from", "a.db", cwd=tmp_path, code=1)
    assert "no conversation 'eve'" in error


@pytest.mark.parametrize("given", ["--db", "--url", "--endpoints", "variable", "file"])
def test_the_store_is_named_as_everywhere(
    source: Path, tmp_path: Path, given: str
) -> None:
    url = f"sqlite:///{tmp_path / 'a.db'}"
    words = {"--db": "a.db", "--url": url, "--endpoints": "a.yml"}.get(given)
    options = [] if words is None else [given, words]
    env = {"TRACKER_STORE_URL": url} if given == "variable" else None
    broker = "event_broker:\n  type: recording\n"
    endpoints(tmp_path / "a.yml", "a.db", broker)
    endpoints(
        tmp_path / "endpoints.yml", "a.db" if given == "file" else "no.db", broker
    )

    def first_line(*arguments: str) -> str:
        result = run(*arguments, *options, cwd=tmp_path, env=env)
        assert (result.returncode, result.stderr) == (0, "")
        return result.stdout.splitlines()[0]

    assert first_line("transcript", "bob") == "Conversation bob"
    assert "2 conversations" in first_line("backup", "b.jsonl.gz")
    assert "2 copied" in first_line("migrate", "--to", "b.db")
    assert everything(tmp_path / "b.db") == everything(source)
    assert "2 there already" in first_line("restore", "b.jsonl.gz")
    assert "27 events of 2 conversations" in first_line("export")


def test_the_store_is_named_once(source: Path, tmp_path: Path) -> None:
    for words in (
        "transcript bob --from a.db --db a.db",
        "backup b.jsonl.gz --from a.db --url sqlite:///a.db",
        "restore b.jsonl.gz --to b.db --endpoints a.yml",
    ):
        error = error_of(*words.split(), cwd=tmp_path, code=2)
        assert error.startswith("give only one of --")
    error = error_of("transcript", "bob", cwd=tmp_path, code=2)
    assert error.startswith("no store is named: use --db FILE")


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGKILL])
def test_it_can_be_stopped_at_any_moment(stop: int, tmp_path: Path) -> None:
    make(tmp_path / "a.db", **{f"c{n:04}": 20 for n in range(1500)})
    words = ["migrate", "--from", "a.db", "--to", "b.db"]
    command = [*command_line(), *words]
    with started(command, tmp_path, env=environment()) as process:
        while not (tmp_path / "b.db").exists() and process.poll() is None:
            time.sleep(0.001)
        process.send_signal(stop)
        output, error = process.communicate(timeout=TIMEOUT_SECONDS)
    if process.returncode != 0:  # it may have been faster
        assert process.returncode == (130 if stop == signal.SIGINT else -stop)
        assert output == ""
        if stop == signal.SIGINT:
            assert error in ("", STOPPED)
    [*_, line] = output_of(*words, "--verify", cwd=tmp_path)
    assert "everything is the same" in line
    assert not list(tmp_path.glob("*.state"))


STOPPED = "stopped: what was done is whole. Run the same command again to go on.\n"


def test_progress_is_a_bar_on_a_terminal_and_lines_elsewhere(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tracker_store_async.moving import progress

    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    with shown_progress(make_console(), "migrating") as shown:
        assert isinstance(shown, Lines)
        shown.expect(2000, 5000)
        shown.advance(1000, 2500)
    assert capsys.readouterr().out.startswith(
        "migrating: 1,000 of 2,000 conversations, 2,500 events, "
    )
    monkeypatch.setenv("FORCE_COLOR", "1")
    with shown_progress(make_console(), "migrating") as shown:
        shown.expect(2000, 5000)
        shown.advance(1000, 2500)
    drawn = capsys.readouterr().out
    assert "1000/2000" in drawn
    assert "2,500 events" in drawn
