"""Processes that end, fork or are interrupted while a sync facade is in use."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

PREAMBLE = """
import asyncio, atexit, os, sys, threading, time
from tracker_store_async import errors
from tracker_store_async.backends.memory import InMemoryTrackerStore
from tracker_store_async.events import UserUttered
from tracker_store_async.sync import SyncTrackerStore

class Telling(InMemoryTrackerStore):
    async def _close(self):
        print("store closed", flush=True)

class Stuck(Telling):
    begun = threading.Event()
    async def _read(self, read):
        print("begun", flush=True)
        self.begun.set()
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            await asyncio.sleep(0.05)
            print("cancelled", flush=True)
            raise

def say(store, text="hi"):
    tracker = store.get_or_create_tracker("alice")
    tracker.update(UserUttered(text))
    store.save(tracker)

"""
LIMIT_SECONDS = 20
"""Far more than any of these processes takes; one that hangs is killed then."""


def run(program, *options):
    command = [sys.executable, *options, "-c", PREAMBLE + program]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=LIMIT_SECONDS
    )


def assert_clean(result, *lines, code=0):
    assert result.returncode == code, result.stderr
    assert result.stdout.split("\n")[:-1] == list(lines)


def test_forgotten_close():
    result = run("store = SyncTrackerStore(Telling()); say(store)")
    assert_clean(result, "store closed")
    assert result.stderr == ""


def test_forgotten_close_warns_if_asked_to():
    result = run("store = SyncTrackerStore(Telling()); say(store)", "-X", "dev")
    assert_clean(result, "store closed")
    assert "ResourceWarning: unclosed <SyncTrackerStore of Telling>" in result.stderr


def test_forgotten_close_with_a_database(tmp_path):
    """The driver has threads of its own, and what is saved is there afterwards."""
    program = (
        "from tracker_store_async.backends.sql import SQLTrackerStore\n"
        f"store = SyncTrackerStore(SQLTrackerStore(db={str(tmp_path / 'a.db')!r}))\n"
        "tracker = store.retrieve('alice')\n"
        "print(0 if tracker is None else len(tracker.events)); say(store)"
    )
    assert_clean(run(program), "0")
    assert_clean(run(program), "2")
    assert_clean(run(program + "; sys.exit(3)"), "3", code=3)


def test_never_used():
    assert_clean(run("store = SyncTrackerStore(Telling())"))


def test_exception():
    result = run("store = SyncTrackerStore(Telling()); say(store); 1 / 0")
    assert_clean(result, "store closed", code=1)
    assert result.stderr.endswith("ZeroDivisionError: division by zero\n")


@pytest.mark.parametrize(
    "program",
    [
        "store = SyncTrackerStore(Telling()); say(store); sys.exit(3)",
        "with SyncTrackerStore(Telling()) as store: say(store); sys.exit(3)",
    ],
)
def test_sys_exit(program):
    assert_clean(run(program), "store closed", code=3)


def test_close_in_an_exit_handler():
    """Whether that is registered before or after the first use."""
    result = run(
        "store = SyncTrackerStore(Telling())\n"
        "atexit.register(store.close); say(store)\n"
        "other = SyncTrackerStore(Telling()); say(other); atexit.register(other.close)"
    )
    assert_clean(result, "store closed", "store closed")
    assert result.stderr == ""


def test_save_in_an_exit_handler():
    result = run(
        "store = SyncTrackerStore(Telling())\n"
        "def bye():\n"
        "    say(store, 'bye'); print(len(store.retrieve('alice').events))\n"
        "atexit.register(bye)\n"
        "say(store)"
    )
    assert_clean(result, "3", "store closed")


KEPT = """
from pathlib import Path
from tracker_store_async.auditing.chain import Chain
from tracker_store_async.auditing.sinks import FileSink
from tracker_store_async.brokers.file import FileEventBroker
from tracker_store_async.wrappers.audited import AuditedTrackerStore
"""


@pytest.mark.parametrize(
    "made",
    [
        "AuditedTrackerStore(Telling(), FileSink('kept', Chain()))",
        "Telling(event_broker=FileEventBroker('kept'))",
    ],
)
def test_what_is_written_in_threads_is_written_in_an_exit_handler(
    made, tmp_path, monkeypatch
):
    """Python gives no work to threads by then: the save was refused."""
    monkeypatch.chdir(tmp_path)
    result = run(
        f"{KEPT}store = SyncTrackerStore({made}); say(store)\n"
        "def bye():\n"
        "    before = len(Path('kept').read_text())\n"
        "    say(store, 'bye')\n"
        "    print(len(Path('kept').read_text()) > before)\n"
        "atexit.register(bye)\n"
    )
    assert_clean(result, "True", "store closed")
    assert "Error" not in result.stderr


def test_first_use_in_an_exit_handler():
    """Some Pythons start no thread then: an error, and in any case no hang."""
    result = run(
        "store = SyncTrackerStore(Telling())\n"
        "def bye():\n"
        "    try: say(store)\n"
        "    except errors.StoreUnavailableError as error: print('refused', error)\n"
        "    else: store.close(); print('worked')\n"
        "atexit.register(bye)"
    )
    assert result.returncode == 0, result.stderr
    refused = "refused the thread of the event loop cannot be started"
    assert result.stdout.startswith((refused, "store closed\nworked\n"))


def test_call_under_way_in_a_daemon_thread():
    result = run(
        "store = SyncTrackerStore(Stuck()); store.open()\n"
        "def call():\n"
        "    try: store.exists('alice')\n"
        "    except errors.StoreClosedError: print('told', flush=True)\n"
        "thread = threading.Thread(target=call, daemon=True); thread.start()\n"
        "Stuck.begun.wait(10)"
    )
    assert result.returncode == 0
    # two threads print at once: lines may be joined
    for words in ("begun", "cancelled", "store closed"):
        assert words in result.stdout


def test_threads_that_outlive_the_main_thread_may_go_on():
    result = run(
        "store = SyncTrackerStore(Telling())\n"
        "def work():\n"
        "    for _ in range(20): say(store); time.sleep(0.02)\n"
        "    print(len(store.retrieve('alice').events), flush=True)\n"
        "threading.Thread(target=work).start()"
    )
    assert_clean(result, "21", "store closed")


def test_store_that_cannot_be_closed():
    started = time.monotonic()
    result = run(
        "class Endless(Telling):\n"
        "    async def _close(self):\n"
        "        print('closing', flush=True); time.sleep(3600)\n"
        "store = SyncTrackerStore(Endless()); say(store)"
    )
    assert_clean(result, "closing")
    assert time.monotonic() - started < 15


def test_threads_of_drivers_do_not_keep_the_interpreter_alive():
    """A thread made inside the loop is a daemon, since the loop's thread is one."""
    result = run(
        "class Driver(Telling):\n"
        "    async def _open(self):\n"
        "        await super()._open()\n"
        "        self.thread = threading.Thread(target=time.sleep, args=(3600,))\n"
        "        self.thread.start()\n"
        "store = SyncTrackerStore(Driver()); say(store)"
    )
    assert_clean(result, "store closed")


@pytest.mark.skipif(sys.platform == "win32", reason="signals as on POSIX")
class TestInterrupt:
    def interrupt(self, program):
        process = subprocess.Popen(
            [sys.executable, "-c", PREAMBLE + program],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        with process:
            try:
                assert process.stdout.readline() == "begun\n"
                process.send_signal(signal.SIGINT)
                out, err = process.communicate(timeout=LIMIT_SECONDS)
            except BaseException:
                process.kill()
                raise
        return process.returncode, out, err

    def test_ctrl_c_cancels_the_call_and_is_raised_again(self):
        code, out, err = self.interrupt(
            "store = SyncTrackerStore(Stuck())\n"
            "try: store.exists('alice')\n"
            "except KeyboardInterrupt: print('interrupted', flush=True)\n"
            "print(store.health().reachable); store.close()"
        )
        assert (code, err) == (0, "")
        # The call ends in another thread, and before the store is closed.
        said = out.split()
        assert [word for word in said if word != "cancelled"] == [
            *("interrupted", "True", "store", "closed")
        ]
        assert "cancelled" in said[:3]

    def test_ctrl_c_that_nobody_catches(self):
        code, out, err = self.interrupt(
            "store = SyncTrackerStore(Stuck())\nstore.exists('alice')"
        )
        assert code == -signal.SIGINT
        assert out.split("\n")[:-1] == ["cancelled", "store closed"]
        assert err.endswith("KeyboardInterrupt\n")

    def test_ctrl_c_within_a_with_block(self):
        code, out, _ = self.interrupt(
            "with SyncTrackerStore(Stuck()) as store: store.exists('alice')"
        )
        assert code == -signal.SIGINT
        assert out.split("\n")[:-1] == ["cancelled", "store closed"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
class TestFork:
    def fork(self, before, child):
        """Run `before`, fork, run `child` in the child and go on in the parent."""
        lines = "".join(f"    {line}\n" for line in child.splitlines())
        return run(
            f"{before}\n"
            "pid = os.fork()\n"
            "if pid == 0:\n"
            f"{lines}"
            "    sys.exit(7)\n"
            "assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7\n"
            "say(store); print(len(store.retrieve('alice').events)); store.close()",
            *("-W", "ignore::DeprecationWarning"),
        )

    def test_one_that_is_in_use_is_refused_in_the_child(self):
        result = self.fork(
            "store = SyncTrackerStore(Telling()); say(store)",
            "for use in (store.open, store.health, lambda: store.exists('alice')):\n"
            "    try: use()\n"
            "    except errors.WrongLoopError as error: assert 'fork' in str(error)\n"
            "    else: os._exit(1)\n"
            "store.close()",
        )
        assert_clean(result, "3", "store closed")

    def test_one_that_is_not_in_use_yet_works_on_both_sides(self):
        result = self.fork(
            "store = SyncTrackerStore(Telling())",
            "say(store); assert len(store.retrieve('alice').events) == 2",
        )
        assert_clean(result, "store closed", "2", "store closed")

    def test_a_forgotten_one_does_not_hang_the_child(self):
        result = self.fork(
            "store = SyncTrackerStore(Telling()); say(store)", "del store"
        )
        assert_clean(result, "3", "store closed")
