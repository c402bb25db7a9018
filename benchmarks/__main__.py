"""List the benchmark scripts: `python -m benchmarks`."""

from __future__ import annotations

SCRIPTS = {
    "turn": "save and retrieve a 6-event turn, beside the raw driver doing the same",
    "overhead": "what our code adds over the driver, and flame graphs of it",
    "cache": "what CachedTrackerStore saves: time and bytes of a retrieve",
    "broker_outage": "RabbitMQ is killed while 64 conversations save: what is lost",
    "broker": "publish to each event broker, beside a raw client's confirmed publishes",
    "loop": "how long 64 concurrent conversations ever stop the event loop",
    "outage": "64 conversations while their primary is killed and comes back",
}


def main() -> None:
    """Print the scripts and what each measures."""
    for name, purpose in SCRIPTS.items():
        print(f"python -m benchmarks.{name:<14} {purpose}")
    print("\nEach has --help and writes --json FILE.")


if __name__ == "__main__":
    main()
