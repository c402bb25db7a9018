"""Run one contestant as a worker: `python -m benchmarks.workers MODULE VARIANT`.

Not meant to be typed: `benchmarks.peers` and `benchmarks.conversations` start it.
"""

from __future__ import annotations

import asyncio
import importlib
import sys

from benchmarks.workers.protocol import private_pipes, serve


def main() -> None:
    """Serve requests until standard input ends."""
    requests, replies = private_pipes()
    name, variant = sys.argv[1:]
    module = importlib.import_module(f"benchmarks.workers.{name}")
    asyncio.run(
        serve(requests, replies, lambda place: module.make(variant, place)),
    )


if __name__ == "__main__":
    main()
