"""Run one server, and end it when our standard input ends.

The test run holds the other end of that pipe. However the run ends, killed included,
the pipe closes and no server is left behind. A pipe that closes without a word (the
run was killed) takes the working directory with it.

Arguments: user id and group id to run as (or `-` and `-`), the number of the signal
that ends the server, then its command. The first line on stdout is its process id.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading

STOP_TIMEOUT_SECONDS = 20


def end_with_stdin(
    server: subprocess.Popen[bytes], stop_signal: int, ending: threading.Event
) -> None:
    """Wait for the end of standard input, then for the end of the server."""
    # not through sys.stdin, whose lock would hold up our exit
    orphaned = os.read(0, 1) == b""
    ending.set()
    server.send_signal(stop_signal)
    try:
        server.wait(STOP_TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired:
        server.kill()
    if orphaned:
        shutil.rmtree(os.getcwd(), ignore_errors=True)


def main() -> int:
    """Start the server, report its process id and stay until it ends."""
    user, group, stop_signal, *command = sys.argv[1:]
    server = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,
        user=None if user == "-" else int(user),
        group=None if group == "-" else int(group),
        extra_groups=None if user == "-" else [],
    )
    print(server.pid, flush=True)
    ending = threading.Event()
    watcher = threading.Thread(
        target=end_with_stdin, args=(server, int(stop_signal), ending), daemon=True
    )
    watcher.start()
    status = server.wait()
    if ending.is_set():
        watcher.join()  # it may still have to tidy up
    return abs(status)


if __name__ == "__main__":
    sys.exit(main())
