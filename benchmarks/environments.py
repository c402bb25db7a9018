"""Environments of the peers: one folder each, built on the first run and kept.

What a peer wants never meets what this library wants. A peer that cannot be installed
is reported with the reason, by the scripts that would have measured it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

BUILD_TIMEOUT_SECONDS = 1800


class NotInstallableError(Exception):
    """An environment cannot be had; the message is the reason."""


@dataclass(frozen=True)
class Environment:
    """What a peer runs in.

    Attributes:
        name: Name of its folder.
        requirements: What pip installs, with what it depends on.
        alone: What pip installs before that, without what it depends on.
        python: Version of Python such as `3.10`; empty for the running one.
    """

    name: str
    requirements: tuple[str, ...]
    alone: tuple[str, ...] = ()
    python: str = ""

    @property
    def fingerprint(self) -> str:
        """A text that changes with what is to be installed."""
        text = repr((self.requirements, self.alone, self.python or sys.version))
        return hashlib.sha256(text.encode()).hexdigest()


ENVIRONMENTS = {
    environment.name: environment
    for environment in (
        Environment(
            "openai-agents",
            ("openai-agents[sqlalchemy,redis]", "asyncpg", "aiosqlite", "hiredis"),
        ),
        Environment(
            "langgraph",
            (
                "langgraph",
                "langgraph-checkpoint-sqlite",
                "langgraph-checkpoint-postgres",
                "langgraph-checkpoint-redis",
                "langgraph-checkpoint-plainredis",
                "psycopg[binary,pool]",
                "hiredis",
            ),
        ),
        Environment(
            "google-adk",
            (
                "google-adk",
                "google-adk-community",
                "sqlalchemy[asyncio]",
                "asyncpg",
                "aiosqlite",
                "hiredis",
            ),
        ),
        Environment("eventsourcing", ("eventsourcing[postgres]",)),
        # all of Rasa would bring TensorFlow; this is what its tracker stores import,
        # in the versions that it asks for
        Environment(
            "rasa",
            (
                "aio-pika>=6.7.1,<8.2.4",
                "aiohttp>=3.9,<3.10",
                "attrs<22.2",
                "boto3>=1.26.136,<2",
                "CacheControl<0.13",
                "colorclass<2.3",
                "coloredlogs<16",
                "jsonpickle<3.1",
                "jsonschema>=3.2,<4.18",
                "networkx<2.7",
                "numpy<1.25",
                "packaging<21",
                "pluggy<2",
                "portalocker<3",
                "prompt-toolkit<3.0.29",
                "psycopg2-binary<2.10",
                "pykwalify<1.9",
                "pymongo>=3.8,<4.4",
                "python-dateutil<2.9",
                "pytz<2023",
                "questionary<1.11",
                "randomname<0.2",
                "redis[hiredis]>=4.5.3,<5",
                "regex<2022.11",
                "ruamel.yaml>=0.16.5,<0.17.22",
                "sanic>=21.12,<21.13",
                "sanic-routing<0.8",
                "scipy>=1.10,<1.11",
                "setuptools>=70.3,<70.4",
                "SQLAlchemy>=1.4,<1.5",
                "structlog<24",
                "tarsafe<0.0.5",
                "terminaltables<3.2",
                "tqdm<5",
                "typing-extensions<5",
                "websockets>=10,<11",
            ),
            alone=("rasa==3.6.21", "rasa-sdk==3.6.2"),
            python="3.10",
        ),
    )
}


def default_folder() -> Path:
    """Return where environments are kept if nobody says."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "tracker-store-benchmarks"


def built(name: str, folder: Path) -> Path:
    """Return the Python of an environment, which is built if it is not there.

    Args:
        name: Key of `ENVIRONMENTS`.
        folder: Where environments are kept.

    Raises:
        NotInstallableError: Python or a package cannot be had.
    """
    environment = ENVIRONMENTS[name]
    place = folder.expanduser().resolve() / name
    python = place / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    done = place / "built"
    if done.exists() and done.read_text() == environment.fingerprint:
        return python
    base = python_of(environment.python)
    print(f"building the environment of {name} in {place} ...", file=sys.stderr)
    shutil.rmtree(place, ignore_errors=True)
    _run(base, "-m", "venv", str(place))
    pip = (str(python), "-m", "pip", "install", "--quiet", "--progress-bar=off")
    if environment.alone:
        _run(*pip, "--no-deps", *environment.alone)
    _run(*pip, *environment.requirements)
    done.write_text(environment.fingerprint)
    return python


def python_of(version: str) -> str:
    """Return a Python of a version, or the running one for an empty version.

    `BENCHMARK_PYTHON310` names the one to take for 3.10. Else it is looked for on the
    path, in what pyenv has installed, and asked of uv and of the launcher of Windows.

    Raises:
        NotInstallableError: There is none.
    """
    if not version:
        return sys.executable
    variable = "BENCHMARK_PYTHON" + version.replace(".", "")
    candidates = [[named]] if (named := os.environ.get(variable)) else []
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    installed = sorted(pyenv.glob(f"versions/{version}.*/bin/python"))
    candidates += [[f"python{version}"], *([str(path)] for path in installed)]
    candidates.append(["py", f"-{version}"])
    if uv := shutil.which("uv"):
        found = subprocess.run([uv, "python", "find", version], capture_output=True)
        candidates.append([found.stdout.decode().strip() or "uv-found-none"])
    question = "import sys; print(sys.executable, '%d.%d' % sys.version_info[:2])"
    for command in candidates:
        try:
            found = subprocess.run([*command, "-c", question], capture_output=True)
        except OSError:
            continue
        path, _, is_version = found.stdout.decode().strip().rpartition(" ")
        if is_version == version:
            return path
    raise NotInstallableError(
        f"there is no Python {version}: install it, or name it in {variable}"
    )


def _run(*command: str) -> None:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=BUILD_TIMEOUT_SECONDS
        )
    except subprocess.TimeoutExpired:
        raise NotInstallableError(
            f"pip did not finish in {BUILD_TIMEOUT_SECONDS} s"
        ) from None
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines()
        errors = [line for line in lines if line.startswith("ERROR")] or lines
        raise NotInstallableError(errors[-1] if errors else f"{command[0]} failed")
