"""List the benchmark scripts: `python -m benchmarks`."""

from __future__ import annotations

SCRIPTS = {
    "turn": "save and retrieve a 6-event turn, beside the raw driver doing the same",
    "cache": "what CachedTrackerStore saves: time and bytes of a retrieve",
    "encryption": "what encryption at rest costs: time of a turn, stored bytes",
    "loop": "how long 64 concurrent conversations ever stop the event loop",
    "outage": "64 conversations while their primary is killed and comes back",
}


def main() -> None:
    """Print the scripts and what each measures."""
    for name, purpose in SCRIPTS.items():
        print(f"python -m benchmarks.{name:<10} {purpose}")
    print("\nEach has --help, takes --backend and --url, and writes --json FILE.")


if __name__ == "__main__":
    main()
