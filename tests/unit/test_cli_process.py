"""The command as a process: pipes, signals, encodings, colours, hostile texts."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.command import (
    TIMEOUT_SECONDS,
    command_line,
    environment,
    run_process,
    save,
    started,
)
from tracker_store_async import DialogueStateTracker
from tracker_store_async.events import BotUttered, UserUttered

EVIL = "\x1b]0;owned\x07\x1b[2J\r\x9b31m\u202e食べ物 🍛 \udcff"


@pytest.fixture
def chats(tmp_path: Path) -> Path:
    """A directory with `chats.db`: one long conversation, and one that is hostile."""
    words = [UserUttered(f"message {number}") for number in range(3000)]
    save(
        tmp_path / "chats.db",
        DialogueStateTracker.from_events("long", words),
        DialogueStateTracker.from_events(
            EVIL.removesuffix("\udcff"),
            [UserUttered(EVIL, intent={"name": EVIL}), BotUttered(EVIL)],
        ),
    )
    return tmp_path


@pytest.mark.parametrize("arguments", ["show long", "list --limit 0", "keys"])
def test_a_reader_that_goes_away_is_no_error(chats: Path, arguments: str) -> None:
    command = [*command_line(), *arguments.split(), "--db", "chats.db"]
    with started(command, chats, env=environment()) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.wait(TIMEOUT_SECONDS) == 141
        assert process.stderr.read() == ""


def test_ctrl_c_is_quiet_and_stops_at_once(chats: Path) -> None:
    command = [*command_line(), "show", "long", "--db", "chats.db"]
    with started(command, chats, env=environment()) as process:
        assert process.stdout is not None
        process.stdout.readline()  # its pipe is full now, and it waits for us
        process.send_signal(signal.SIGINT)
        rest, stderr = process.communicate(timeout=TIMEOUT_SECONDS)
    assert (process.returncode, stderr) == (130, "")
    assert "message 2999" not in rest


@pytest.mark.parametrize(
    ("command", "encoding"),
    [
        ("show", "utf-8"),
        ("show", "latin-1"),
        ("show", "ascii"),
        ("show --json", "ascii"),
        ("keys", "ascii"),
        ("list", "ascii"),
    ],
)
def test_output_survives_every_encoding(
    chats: Path, encoding: str, command: str
) -> None:
    name, *options = command.split()
    if name == "show":
        options.append(EVIL.removesuffix("\udcff"))
    result = subprocess.run(
        [*command_line(), name, *options, "--db", "chats.db"],
        cwd=chats,
        env=environment(PYTHONIOENCODING=encoding),
        capture_output=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, b"")
    text = result.stdout.decode(encoding)
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e\ud800-\udfff]", text)
    assert "owned" in text
    if encoding == "ascii":
        assert "─" not in text


def test_an_error_about_a_hostile_name_is_harmless(chats: Path) -> None:
    for arguments in (["show", EVIL], ["show", "x", "--domain", EVIL], [EVIL]):
        result = run_process(*arguments, "--db", "chats.db", cwd=chats)
        assert result.returncode == 2
        assert result.stderr.startswith("error: ")
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", result.stderr)


def output_on_terminal(*arguments: str, cwd: Path, **variables: str) -> str:
    """Run the command on a terminal of its own and return what reached it."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*command_line(), *arguments],
        cwd=cwd,
        env=environment(TERM="xterm-256color", COLUMNS="60", **variables),
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    chunks = []
    while True:
        try:
            chunk = os.read(ours, 65536)
        except OSError:  # Linux says EIO once the other side is closed
            break
        if not chunk:
            break
        chunks.append(chunk)
    os.close(ours)
    assert process.wait(TIMEOUT_SECONDS) == 0
    return b"".join(chunks).decode()


def test_a_terminal_gets_colours_and_wrapped_lines(chats: Path) -> None:
    arguments = ("show", EVIL.removesuffix("\udcff"), "--db", "chats.db")
    text = output_on_terminal(*arguments, cwd=chats)
    assert "\x1b[36m" in text
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    assert "\x1b" not in plain
    assert max(map(len, plain.splitlines())) <= 60


def test_no_color_is_respected(chats: Path) -> None:
    arguments = ("show", "long", "--last", "3", "--db", "chats.db")
    text = output_on_terminal(*arguments, cwd=chats, NO_COLOR="1")
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]m", text)
    assert "message 2999" in text


def test_looking_is_quick_to_begin(chats: Path) -> None:
    """Help needs no driver: a user who asks for it does not wait for one."""
    code = (
        "import sys; sys.argv = ['x', '--help']\n"
        "import tracker_store_async.cli as cli\n"
        "try:\n    cli.main()\nexcept SystemExit:\n    pass\n"
        "print({'sqlalchemy', 'aiosqlite'} & set(sys.modules), file=sys.stderr)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stderr == "set()\n"


def test_a_full_disk_is_an_error(chats: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full here")
    with Path("/dev/full").open("w") as full:
        result = subprocess.run(
            [*command_line(), "keys", "--db", "chats.db"],
            cwd=chats,
            env=environment(),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
    assert result.returncode == 1
    [line] = result.stderr.splitlines()
    assert line.startswith("error: ")
