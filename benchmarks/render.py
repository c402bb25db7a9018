"""Turn the JSON files of runs into the tables and charts of `benchmarks/README.md`.

    python -m benchmarks.render peers.json conversations.json scale.json footprint.json

prints the tables; `--into FILE` puts each between the lines `<!-- begin NAME -->` and
`<!-- end NAME -->` of a file, and `--charts FOLDER` draws each chart again. So what the
README says is what was measured, and nothing is copied by hand.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import charts, conversations, footprint, measure, peers, scale
from benchmarks.catalog import BY_NAME

if TYPE_CHECKING:
    from collections.abc import Callable


def peers_tables(results: dict[str, Any]) -> list[str]:
    """Return the tables of `benchmarks.peers`."""
    lines = []
    for backend, found in results.items():
        sizes = list(next(iter(found["seconds"].values()), {}))
        header = [f"{backend}: load / append, ms", *(f"{int(s):,}" for s in sizes)]
        rows = []
        for name, cells in found["seconds"].items():
            texts = [
                f"{short(measure.median_ms(cell['load']))} / "
                f"{short(measure.median_ms(cell['append']))}"
                for cell in cells.values()
            ]
            rows.append([BY_NAME[name].label, *texts, BY_NAME[name].lacks])
        lines += [*markdown([*header, "what it does not do"], rows), ""]
        lines += [*absent(found), *(f"- {line}." for line in verdicts(found)), ""]
    return lines


def verdicts(found: dict[str, Any]) -> list[str]:
    """Return what `benchmarks.peers` says below its tables."""
    samples = {
        name: {int(size): cell for size, cell in cells.items()}
        for name, cells in found["seconds"].items()
    }
    return peers.verdicts(samples)


def conversations_tables(results: dict[str, Any]) -> list[str]:
    """Return the tables of `benchmarks.conversations`."""
    lines = []
    for backend, found in results.items():
        header = [backend, *conversations.HEADER[1:]]
        rows = [conversations.row(name, one) for name, one in found["figures"].items()]
        lines += [*markdown(header, rows), "", *absent(found)]
        lines += [f"- {line}." for line in conversations.verdicts(found["figures"])]
        lines.append("")
    return lines


def scale_tables(results: dict[str, Any]) -> list[str]:
    """Return the tables of `benchmarks.scale`."""
    lines = []
    for backend, found in results.items():
        for question in ("events", "conversations"):
            if question not in found:
                continue
            samples = found[question]
            steps = list(next(iter(samples.values())))
            rows = [
                [f"{int(size):,}", *(measure.spread_ms(one[step]) for step in steps)]
                for size, one in samples.items()
            ]
            lines += [*markdown([f"{backend}: {question}, ms", *steps], rows), ""]
            lines += [f"- {line}" for line in scale.verdicts(samples)] + [""]
    return lines


def footprint_tables(result: dict[str, Any]) -> list[str]:
    """Return the tables of `benchmarks.footprint`."""
    imports = result["import_seconds"]
    base = statistics.median(imports["pydantic"])
    rows = [
        [name, measure.spread_ms(one), f"{statistics.median(one) / base:.2f}"]
        for name, one in imports.items()
    ]
    lines = [*markdown(["import", "ms", "of pydantic's"], rows), ""]
    for backend, sizes in result["held_bytes"].items():
        columns = list(next(iter(sizes.values())))
        rows = [
            [f"{int(size):,}", *(f"{found[column]:,.0f}" for column in columns)]
            for size, found in sizes.items()
        ]
        lines += [*markdown([f"{backend}: bytes, events", *columns], rows), ""]
    wheel = result["wheel"]
    if isinstance(wheel, dict):
        lines.append(", ".join(f"{name}: {size:,}" for name, size in wheel.items()))
    return lines


WIDTH = 92
TABLES: dict[str, Callable[[Any], list[str]]] = {
    "peers": peers_tables,
    "conversations": conversations_tables,
    "scale": scale_tables,
    "footprint": footprint_tables,
}
PANELS: dict[str, tuple[str, Callable[[Any], list[charts.Panel]]]] = {
    "peers": (peers.TITLE, peers.panels_of),
    "conversations": (conversations.TITLE, conversations.panels_of),
    "scale": (scale.TITLE, scale.panels_of),
    "footprint": (footprint.TITLE, footprint.panels_of),
}


def short(value: float) -> str:
    """Return a number with two or three digits that count."""
    return (
        f"{value:.2f}"
        if value < 10
        else f"{value:.1f}"
        if value < 100
        else f"{value:,.0f}"
    )


def markdown(header: list[str], rows: list[list[str]]) -> list[str]:
    """Return the lines of a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return ["| " + " | ".join(line) + " |" for line in lines]


def absent(found: dict[str, Any]) -> list[str]:
    """Return the lines that name who has no numbers, and why."""
    return [
        f"- not measured: {BY_NAME[name].label}: {reason}"
        for name, reason in found["absent"].items()
    ]


def machine(found: dict[str, Any]) -> list[str]:
    """Return the lines that say where and with which versions a run was."""
    versions = [f"{name} {version}" for name, version in found["environment"].items()]
    lines = ["Measured with " + ", ".join(versions) + "."]
    results = next(value for name, value in found.items() if name != "environment")
    seen: dict[str, set[str]] = {}
    for one in results.values():
        if isinstance(one, dict) and "server" in one:
            seen.setdefault("Servers", set()).add(one["server"])
        if isinstance(one, dict) and "versions" in one:
            for name, packages in one["versions"].items():
                environment = BY_NAME[name].environment or "This library"
                texts = (
                    f"{package} {version}" for package, version in packages.items()
                )
                seen.setdefault(environment, set()).update(texts)
    lines += [
        f"- {name}: " + ", ".join(sorted(texts, key=str.lower)) + "."
        for name, texts in seen.items()
    ]
    return [
        wrapped
        for line in lines
        for wrapped in textwrap.wrap(line, WIDTH, break_on_hyphens=False)
    ]


def put(text: str, name: str, lines: list[str]) -> str:
    """Return a text with the lines between the marks of a name."""
    pattern = rf"(<!-- begin {name} -->\n).*?(<!-- end {name} -->)"
    body = "\n".join(lines).strip() + "\n"
    replaced, count = re.subn(
        pattern, lambda found: found[1] + body + found[2], text, flags=re.DOTALL
    )
    if not count:
        sys.exit(
            f"the file lacks the lines <!-- begin {name} --> and <!-- end {name} -->"
        )
    return replaced


def main() -> None:
    """Render from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="+", type=Path, help="what --json has written")
    parser.add_argument(
        "--into", type=Path, help="a file with marks, such as README.md"
    )
    parser.add_argument("--charts", type=Path, help="a folder for the charts")
    options = parser.parse_args()
    for path in options.files:
        found = json.loads(path.read_text())
        for name in TABLES.keys() & found.keys():
            lines = [*machine(found), "", *TABLES[name](found[name])]
            if options.into:
                options.into.write_text(put(options.into.read_text(), name, lines))
            else:
                print("\n".join(lines))
            if options.charts:
                title, panels_of = PANELS[name]
                chart = str(options.charts / f"{name}.png")
                charts.draw(chart, title, panels_of(found[name]))


if __name__ == "__main__":
    main()
