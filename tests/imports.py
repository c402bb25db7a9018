"""Which module of the package imports which, read from the source."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = "tracker_store_async"
ROOT = Path(__file__).parents[1] / PACKAGE


@dataclass
class ImportGraph:
    """Modules of the package, and what each imports when it runs.

    Names are without the package: `backends.sql.store`. Imports inside functions count;
    those for type checkers alone do not. Importing a module also runs the `__init__` of
    the packages above it, unless the importer lies below them too.
    """

    edges: dict[str, set[str]] = field(default_factory=dict)

    @classmethod
    def read(cls) -> ImportGraph:
        """Parse the whole package."""
        paths = {name_of(path): path for path in ROOT.rglob("*.py")}
        graph = cls()
        for name, path in paths.items():
            tree = ast.parse(path.read_text(), str(path))
            found = {
                ancestor
                for target in _imports(tree, set(paths))
                for ancestor in _with_ancestors(target)
                if not f"{name}.".startswith(f"{ancestor}.")
            }
            graph.edges[name] = found & set(paths)
        return graph

    def without(self, *edges: tuple[str, str]) -> ImportGraph:
        """Return a copy that lacks these imports."""
        return ImportGraph(
            {
                name: {target for target in targets if (name, target) not in edges}
                for name, targets in self.edges.items()
            }
        )

    def path(self, start: str, goal: str) -> list[str] | None:
        """Return how `start` comes to import `goal`, or None if it does not."""
        seen, routes = {start}, [[start]]
        for route in routes:
            for target in sorted(self.edges[route[-1]]):
                if target == goal:
                    return [*route, target]
                if target not in seen:
                    seen.add(target)
                    routes.append([*route, target])
        return None


def name_of(path: Path) -> str:
    """Return the name of a module within the package; the package itself is ''."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def _with_ancestors(name: str) -> Iterator[str]:
    parts = name.split(".")
    for length in range(1, len(parts) + 1):
        yield ".".join(parts[:length])


def _imports(tree: ast.AST, modules: set[str]) -> Iterator[str]:
    """Yield the module names of the package that the code imports."""
    for node in _running(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith(f"{PACKAGE}."):
                    yield alias.name.removeprefix(f"{PACKAGE}.")
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports are not used in this package"
            module = node.module or ""
            if module != PACKAGE and not module.startswith(f"{PACKAGE}."):
                continue
            base = module.removeprefix(PACKAGE).removeprefix(".")
            for alias in node.names:
                below = f"{base}.{alias.name}".removeprefix(".")
                yield below if below in modules else base


def _running(tree: ast.AST) -> Iterator[ast.AST]:
    """Walk the code, but not the blocks for type checkers."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for statement in node.orelse:
                yield statement
                yield from _running(statement)
            continue
        yield node
        yield from _running(node)
