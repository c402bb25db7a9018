"""Command line arguments that the scripts share."""

from __future__ import annotations

import argparse
import os
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterable

BACKENDS = ["in_memory", "sqlite", "postgresql"]
# measured when named: they need servers of their own
ON_DEMAND = ["redis", "mongo", "dynamo"]
SCHEMES = {
    "postgresql": "postgresql",
    "postgres": "postgresql",
    "redis": "redis",
    "rediss": "redis",
    "mongodb": "mongo",
    "mongodb+srv": "mongo",
    "http": "dynamo",
    "https": "dynamo",
}
DEFAULT_URLS = {
    "postgresql": "postgresql://postgres@127.0.0.1:5432/test",
    "redis": "redis://127.0.0.1:6379",
    "mongo": "mongodb://127.0.0.1:27017",
    "dynamo": "http://127.0.0.1:8000",
}
DEFAULT_PORTS = {"postgresql": 5432, "redis": 6379, "mongo": 27017, "dynamo": 8000}
VARIABLES = {
    "postgresql": ["TRACKER_STORE_BENCHMARK_URL"],
    "redis": ["TRACKER_STORE_BENCHMARK_REDIS_URL", "TRACKER_STORE_TEST_REDIS_URL"],
    "mongo": ["TRACKER_STORE_BENCHMARK_MONGO_URL", "TRACKER_STORE_TEST_MONGO_URL"],
    "dynamo": ["TRACKER_STORE_BENCHMARK_DYNAMO_URL"],
}
CONNECT_TIMEOUT_SECONDS = 5


class Formatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows defaults, and the description as it was written."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "".join(indent + line for line in text.splitlines(keepends=True))


def parser(
    description: str,
    backends: Iterable[str] = (*BACKENDS, *ON_DEMAND),
    default: Iterable[str] = BACKENDS,
) -> argparse.ArgumentParser:
    """Return a parser with the arguments of every script.

    Args:
        description: What the script does.
        backends: What it can measure.
        default: What it measures if nobody says.
    """
    result = argparse.ArgumentParser(description=description, formatter_class=Formatter)
    result.add_argument(
        "--backend",
        nargs="+",
        choices=list(backends),
        default=list(default),
        help="what to measure",
    )
    add_servers(result)
    add_outputs(result)
    return result


def add_servers(result: argparse.ArgumentParser) -> None:
    """Add the arguments that say where things are stored."""
    # no default here: it may come from the environment, and --help would show it
    result.add_argument(
        "--url",
        nargs="+",
        metavar="URL",
        type=_server_url,
        default=argparse.SUPPRESS,
        help="your servers, told apart by scheme: postgresql, redis, rediss, mongodb, "
        "http (DynamoDB). Schemas, tables, keys and databases of random names come and "
        "go there. Never printed. Without it: the variable "
        "TRACKER_STORE_BENCHMARK_URL, ..._REDIS_URL, ..._MONGO_URL or ..._DYNAMO_URL, "
        "or the usual port of 127.0.0.1",
    )
    for backend in ("redis", "mongo", "dynamo"):
        result.add_argument(
            f"--{backend}-url",
            type=_server_url,
            default=argparse.SUPPRESS,
            help="the same as --url",
        )
    result.add_argument(
        "--folder", type=_folder, help="where SQLite files come and go (temporary)"
    )


def add_outputs(result: argparse.ArgumentParser) -> None:
    """Add the arguments that say what is written."""
    result.add_argument("--json", metavar="FILE", help="write the figures to a file")
    result.add_argument(
        "--chart",
        "--png",
        dest="chart",
        metavar="FILE",
        type=_chart,
        help="draw a PNG (wants matplotlib: pip install --group charts)",
    )


def url_of(backend: str, options: argparse.Namespace) -> str:
    """Return the URL of the server that a backend is measured on.

    It ends the program with a sentence if nothing answers there.
    """
    if backend not in DEFAULT_URLS:
        return ""
    url = _chosen_url(backend, options)
    parts = urlsplit(url)
    port = parts.port or DEFAULT_PORTS[backend]
    if parts.hostname and parts.scheme != "mongodb+srv" and "," not in parts.netloc:
        try:
            address = parts.hostname, port
            socket.create_connection(address, CONNECT_TIMEOUT_SECONDS).close()
        except OSError:
            sys.exit(
                f"no server for {backend} answers at {parts.hostname}:{port}: start "
                "it, name another with --url, or leave it out with --backend"
            )
    return url


def _chosen_url(backend: str, options: argparse.Namespace) -> str:
    given = [
        url
        for url in getattr(options, "url", [])
        if SCHEMES[urlsplit(url).scheme] == backend
    ]
    if named := getattr(options, f"{backend}_url", None):
        given.append(named)
    if given:
        return str(given[0])
    for variable in VARIABLES[backend]:
        if found := os.environ.get(variable):
            try:
                return _server_url(found)
            except argparse.ArgumentTypeError as error:
                sys.exit(f"{variable}: {error}")
    return DEFAULT_URLS[backend]


def positive(text: str) -> int:
    """Return a number that is at least 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("give a number of at least 1")
    return number


def _server_url(text: str) -> str:
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:  # whose message quotes a part of the URL
        raise argparse.ArgumentTypeError(
            "the URL cannot be read: write special characters of a password as %2F, "
            "%40 and so on, and the port as a number"
        ) from None
    if parts.scheme not in SCHEMES:
        raise argparse.ArgumentTypeError(
            "a URL begins with one of " + ", ".join(f"{each}://" for each in SCHEMES)
        )
    return text


def _folder(text: str) -> str:
    if not Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {text}: create it")
    return text


def _chart(text: str) -> str:
    from benchmarks import charts

    if missing := charts.why_not(text):
        raise argparse.ArgumentTypeError(missing)
    return text
