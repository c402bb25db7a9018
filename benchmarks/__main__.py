"""List the benchmark scripts: `python -m benchmarks`."""

from __future__ import annotations

SCRIPTS = {
    "turn": "save and retrieve a 6-event turn, beside the raw driver in one process",
    "overhead": "what our code adds over the driver, and flame graphs of it",
    "peers": "load and append, cold, beside Rasa, LangGraph, OpenAI Agents, ADK, ...",
    "conversations": "64 conversations at a time, beside the same: turns/s, gaps, CPU",
    "scale": "up to 100,000 events in one and 1,000,000 conversations: is it flat",
    "cache": "what CachedTrackerStore saves: time and bytes of a retrieve",
    "broker_outage": "RabbitMQ is killed while 64 conversations save: what is lost",
    "broker": "publish to each event broker, beside a raw client's confirmed publishes",
    "encryption": "what encryption at rest costs: time of a turn, stored bytes",
    "loop": "how long 64 concurrent conversations ever stop the event loop",
    "footprint": "import time, memory of a held tracker, size of the wheel",
    "moving": "conversations through every kind of store, killed on the way",
    "outage": "64 conversations while their primary is killed and comes back",
}


def main() -> None:
    """Print the scripts and what each measures."""
    for name, purpose in SCRIPTS.items():
        print(f"python -m benchmarks.{name:<14} {purpose}")
    print(
        "\nEach has --help. Those that kill no server take --backend and --url for "
        "servers of\nyours, and write --json FILE and --chart FILE.png."
    )


if __name__ == "__main__":
    main()
