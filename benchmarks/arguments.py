"""Command line arguments that the scripts share."""

from __future__ import annotations

import argparse
import os

BACKENDS = ["in_memory", "sqlite", "postgresql"]
# measured when named: they need servers of their own
ON_DEMAND = ["redis", "mongo", "dynamo"]
DEFAULT_DYNAMO_URL = "http://127.0.0.1:8000"
DEFAULT_REDIS_URL = "redis://127.0.0.1:6379"
DEFAULT_MONGO_URL = "mongodb://127.0.0.1:27017"
DEFAULT_URL = "postgresql://postgres@127.0.0.1:5432/test"


def parser(description: str) -> argparse.ArgumentParser:
    """Return a parser with the arguments of every script."""
    result = argparse.ArgumentParser(
        description=description,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    result.add_argument(
        "--backend",
        nargs="+",
        choices=[*BACKENDS, *ON_DEMAND],
        default=BACKENDS,
        help="what to measure",
    )
    result.add_argument(
        "--url",
        default=os.environ.get("TRACKER_STORE_BENCHMARK_URL", DEFAULT_URL),
        help="PostgreSQL database; a schema and a table of random names come and go",
    )
    result.add_argument(
        "--dynamo-url",
        default=os.environ.get(
            "TRACKER_STORE_BENCHMARK_DYNAMO_URL", DEFAULT_DYNAMO_URL
        ),
        help="DynamoDB Local; tables of random names come and go",
    )
    result.add_argument(
        "--redis-url",
        default=os.environ.get("TRACKER_STORE_TEST_REDIS_URL", DEFAULT_REDIS_URL),
        help="Redis server; keys with a random prefix come and go",
    )
    result.add_argument(
        "--mongo-url",
        default=os.environ.get("TRACKER_STORE_TEST_MONGO_URL", DEFAULT_MONGO_URL),
        help="MongoDB server; a database of a random name comes and goes",
    )
    result.add_argument("--json", metavar="FILE", help="write the figures to a file")
    return result


def url_of(backend: str, options: argparse.Namespace) -> str:
    """Return the URL of the server that a backend is measured on."""
    named = {
        "redis": options.redis_url,
        "dynamo": options.dynamo_url,
        "mongo": options.mongo_url,
    }
    return str(named.get(backend, options.url))
