"""Runs the `tracker-store` command: in a process of its own, or faster in this one."""

from __future__ import annotations

import asyncio
import io
import logging
import os
import signal
import subprocess
import sys
import sysconfig
import time
from contextlib import chdir, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from tracker_store_async import SQLTrackerStore
from tracker_store_async.cli import main

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tracker_store_async import DialogueStateTracker

TIMEOUT_SECONDS = 60

# Settings of whoever runs the tests that would change what is printed or read.
_DROPPED = (
    "TRACKER_STORE_URL",
    "NO_COLOR",
    "FORCE_COLOR",
    "COLUMNS",
    "PYTHONIOENCODING",
)

Result = subprocess.CompletedProcess[str]


def command_line() -> list[str]:
    """Return the installed command, or the module where it is not installed."""
    script = Path(sysconfig.get_path("scripts")) / "tracker-store"
    if script.exists():
        return [str(script)]
    return [sys.executable, "-c", "from tracker_store_async.cli import main; main()"]


def environment(**extra: str) -> dict[str, str]:
    """Return the environment that commands run in: UTC, UTF-8 and no colours."""
    kept = {name: value for name, value in os.environ.items() if name not in _DROPPED}
    return {**kept, "TZ": "UTC", "PYTHONUTF8": "1", **extra}


def run_process(
    *arguments: str | Path, cwd: Path, env: Mapping[str, str] | None = None
) -> Result:
    """Run the installed command in a process of its own.

    Args:
        arguments: The arguments.
        cwd: Directory to run it in.
        env: Further environment variables.
    """
    return subprocess.run(
        [*command_line(), *map(str, arguments)],
        cwd=cwd,
        env=environment(**(env or {})),
        capture_output=True,
        encoding="utf-8",
        timeout=TIMEOUT_SECONDS,
        check=False,
    )


@contextmanager
def started(
    command: Sequence[str], cwd: Path, **options: Any
) -> Iterator[subprocess.Popen[str]]:
    """Start a process whose output is read here; it never outlives the test."""
    process: subprocess.Popen[str] = subprocess.Popen(
        command,
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        **options,
    )
    try:
        yield process
    finally:
        process.kill()
        _drain(process)


def run(
    *arguments: str | Path, cwd: Path, env: Mapping[str, str] | None = None
) -> Result:
    """Run the command in this process, with streams and environment of its own."""
    words = ["tracker-store", *map(str, arguments)]
    streams = {name: io.TextIOWrapper(io.BytesIO(), "utf-8") for name in _STREAMS}
    logger = logging.getLogger("tracker_store_async")
    handlers, level = list(logger.handlers), logger.level
    with (
        chdir(cwd),
        _zone_of(environment(**(env or {}))),
        patch.multiple(sys, argv=words, **streams),
    ):
        try:
            main()
        except SystemExit as end:
            code = end.code
    logger.handlers[:] = handlers
    logger.setLevel(level)
    texts = [_text(streams[name]) for name in _STREAMS]
    assert isinstance(code, int)
    return Result(words, code, *texts)


@contextmanager
def serving(cwd: Path, *arguments: str, **variables: str) -> Iterator[str]:
    """Run `tracker-store serve` in a process of its own; give its URL."""
    process = subprocess.Popen(
        [*command_line(), "serve", "--port", "0", *arguments],
        cwd=cwd,
        env=environment(PYTHONPATH=os.pathsep.join(sys.path), **variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("listening on http://127.0.0.1:"), process.communicate()
        yield line.split()[-1]
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)
        assert said == ""
        assert process.returncode in (0, 130)
    finally:
        process.kill()
        process.communicate()


_STREAMS = ("stdout", "stderr")


def _text(stream: io.TextIOWrapper) -> str:
    stream.flush()
    buffer = stream.buffer
    assert isinstance(buffer, io.BytesIO)
    return buffer.getvalue().decode()


@contextmanager
def _zone_of(variables: dict[str, str]) -> Iterator[None]:
    with patch.dict(os.environ, variables, clear=True):
        time.tzset()
        yield
    time.tzset()


def output_of(*arguments: str | Path, cwd: Path) -> list[str]:
    """Run the command, which has to succeed silently, and return its lines."""
    result = run(*arguments, cwd=cwd)
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout.splitlines()


def error_of(
    *arguments: str | Path, cwd: Path, code: int, env: Mapping[str, str] | None = None
) -> str:
    """Run the command, which has to fail with one line, and return that line."""
    result = run(*arguments, cwd=cwd, env=env)
    assert (result.returncode, result.stdout) == (code, "")
    [line] = result.stderr.splitlines()
    assert line.startswith("error: ")
    return line.removeprefix("error: ")


def save(db: Path, *trackers: DialogueStateTracker) -> None:
    """Store trackers in a SQLite file."""

    async def work() -> None:
        async with SQLTrackerStore(dialect="sqlite", db=str(db)) as store:
            for tracker in trackers:
                await store.save(tracker)

    asyncio.run(work())


def _drain(process: subprocess.Popen[str]) -> None:
    """Wait for the process and close its pipes, those that are open still."""
    process.wait()
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            stream.close()
