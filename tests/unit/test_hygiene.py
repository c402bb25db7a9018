"""House rules that a machine can check."""

from __future__ import annotations

import ast
import re
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
from ruamel.yaml import YAML

import tracker_store_async

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "tracker_store_async"
SOURCES = sorted(PACKAGE.rglob("*.py"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 45
"""Signatures and docstrings are free: what is long there is the documentation."""
# put together so that this file does not contain them
UNFINISHED = re.compile("|".join(("TO" + "DO", "FIX" + "ME", "XX" + "X", "HA" + "CK")))


def label(path: Path) -> str:
    return str(path.relative_to(ROOT))


def docstring_lines(node: ast.AST) -> int:
    """Count the lines of the docstrings of a node and of all that is in it."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    return sum(
        docstring.count("\n") + 1
        for inner in ast.walk(node)
        if isinstance(inner, documented)
        and (docstring := ast.get_docstring(inner, clean=False)) is not None
    )


def body_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Count the lines of a function without its signature and its docstring."""
    start = node.body[0].lineno
    return (node.end_lineno or start) - start + 1 - docstring_lines(node)


@pytest.mark.parametrize("path", SOURCES, ids=label)
def test_a_module_is_short_described_and_finished(path: Path) -> None:
    text = path.read_text()
    assert UNFINISHED.search(text) is None
    tree = ast.parse(text)
    assert not tree.body or ast.get_docstring(tree), "the first docstring says what"
    lines = text.count("\n") - docstring_lines(tree)
    assert lines <= MAX_FILE_LINES, "is there a second noun inside?"
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    long = [
        f"{node.name}: {body_lines(node)} lines"
        for node in ast.walk(tree)
        if isinstance(node, functions) and body_lines(node) > MAX_FUNCTION_LINES
    ]
    assert long == []


@pytest.mark.parametrize("path", SOURCES, ids=label)
def test_rasa_is_never_imported(path: Path) -> None:
    pattern = r"^\s*(import|from)\s+rasa(_sdk|_pro)?\b"
    assert re.search(pattern, path.read_text(), re.MULTILINE) is None


def test_there_is_one_version() -> None:
    stated = PROJECT["project"]["version"]
    assert tracker_store_async.__version__ == stated
    assert version("tracker-store-async") == stated
    changelog = (ROOT / "CHANGELOG.md").read_text()
    assert f"## [{stated}]" in changelog or "## [Unreleased]" in changelog


def test_all_means_all_extras() -> None:
    extras = dict(PROJECT["project"]["optional-dependencies"])
    (everything,) = extras.pop("all")
    assert everything == f"tracker-store-async[{','.join(extras)}]"


def test_compose_listens_locally_and_knows_when_it_is_ready() -> None:
    services = YAML(typ="safe").load(ROOT / "compose.yaml")["services"]
    for name, service in services.items():
        assert all(port.startswith("127.0.0.1:") for port in service["ports"]), name
        assert service["healthcheck"]["test"][0] == "CMD", name
