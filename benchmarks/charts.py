"""PNG charts, drawn by matplotlib: lines over a size, and bars beside each other."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HINT = "a chart wants matplotlib: `pip install --group charts`, or leave --chart out"
DOTS_PER_INCH = 80
COLOR_COUNT = 128
MANY = 6
OURS = "#c2255c"
FLOOR = "#495057"
FAMILIES = {
    "OpenAI Agents": "#1971c2",
    "LangGraph": "#e8590c",
    "Google ADK": "#2f9e44",
    "eventsourcing": "#7048e8",
    "Rasa": "#946200",
}
PALETTE = ["#1971c2", "#2f9e44", "#e8590c", "#7048e8", "#0c8599", "#f08c00", "#5c940d"]


@dataclass
class Panel:
    """One diagram of a chart.

    Attributes:
        title: Above it.
        unit: Of the values, at the axis.
        series: Label -> points (x, median, low, high) for lines.
        bars: Label -> (median, low, high) for bars.
        x_label: Below lines.
        logarithmic: Whether the values are on a logarithmic scale.
        from_zero: Whether a linear axis begins at 0.
        limit: Draw a dotted line at so many times the first point of each series.
    """

    title: str
    unit: str
    series: dict[str, list[tuple[float, float, float, float]]] = field(
        default_factory=dict
    )
    bars: dict[str, tuple[float, float, float]] = field(default_factory=dict)
    x_label: str = ""
    logarithmic: bool = True
    from_zero: bool = False
    limit: float | None = None


def why_not(path: str) -> str | None:
    """Return why no chart can be written to a file, or None if it can."""
    if importlib.util.find_spec("matplotlib") is None:
        return HINT
    if Path(path).suffix.lower() != ".png":
        return "a chart is a PNG: let the name of the file end with .png"
    if not Path(path).resolve().parent.is_dir():
        return "the folder of that file does not exist: create it"
    return None


def draw(path: str | None, title: str, panels: list[Panel]) -> None:
    """Draw panels, two in a row, and write them to a file, if one was asked for."""
    if not path or not panels:
        return
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot
    from PIL import Image

    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    height = max(3.4, 1 + 0.3 * max(len(panel.bars) for panel in panels))
    figure, axes = pyplot.subplots(
        rows, columns, figsize=(5.6 * columns, height * rows), squeeze=False
    )
    places = list(axes.flat)
    labels = list(dict.fromkeys(label for panel in panels for label in panel.series))
    for panel, axis in zip(panels, places, strict=False):
        if panel.bars:
            _draw_bars(axis, panel)
        else:
            _draw_lines(axis, panel, labels)
        axis.set_title(panel.title, fontsize=10)
        axis.grid(visible=True, which="major", alpha=0.3)
    for axis in places[len(panels) :]:
        axis.remove()
    _legend(figure, places[: len(panels)])
    figure.suptitle(title, fontsize=11)
    figure.tight_layout(rect=(0, 0, 1, 0.98))
    figure.savefig(path, dpi=DOTS_PER_INCH, bbox_inches="tight")
    pyplot.close(figure)
    with Image.open(path) as drawn:  # a third of the size, and looks the same
        drawn.convert("RGB").quantize(COLOR_COUNT).save(path, optimize=True)
    print(f"drawn: {path}")


def style_of(label: str, number: int) -> dict[str, Any]:
    """Return color and line of a contestant: ours and the raw driver stand out."""
    if label.startswith("tracker_store_async"):
        dashes = ["-", "--", ":"]
        dash = dashes[("touched" in label) + 2 * ("cached" in label)]
        return {"color": OURS, "linestyle": dash, "linewidth": 2.4}
    if label.startswith("raw driver"):
        return {"color": FLOOR, "linestyle": ":" if "nothing" in label else "--"}
    for family, color in FAMILIES.items():
        if label.startswith(family):
            special = any(word in label for word in ("SQLAlchemy", "broker", "plain"))
            return {"color": color, "linestyle": "--" if special else "-"}
    return {"color": PALETTE[number % len(PALETTE)]}


def _draw_lines(axis: Any, panel: Panel, labels: list[str]) -> None:
    for label, points in panel.series.items():
        xs, ys, lows, highs = zip(*points, strict=True)
        style = style_of(label, labels.index(label))
        if panel.limit:
            axis.axhline(ys[0] * panel.limit, color=style["color"], linestyle=":")
        axis.plot(xs, ys, label=label, marker="o", markersize=3, **style)
        # the bands of many would hide each other
        if label.startswith("tracker_store_async") or len(labels) < MANY:
            axis.fill_between(xs, lows, highs, color=style["color"], alpha=0.12)
    axis.set_xscale("log")
    if panel.logarithmic:
        axis.set_yscale("log")
    elif panel.from_zero:
        axis.set_ylim(bottom=0)
    axis.set_xlabel(panel.x_label, fontsize=9)
    axis.set_ylabel(panel.unit, fontsize=9)


def _draw_bars(axis: Any, panel: Panel) -> None:
    labels = list(panel.bars)[::-1]
    values = [panel.bars[label][0] for label in labels]
    errors = [
        [max(0.0, panel.bars[label][0] - panel.bars[label][1]) for label in labels],
        [max(0.0, panel.bars[label][2] - panel.bars[label][0]) for label in labels],
    ]
    colors = [style_of(label, 0)["color"] for label in labels]
    drawn = axis.barh(labels, values, xerr=errors, color=colors, alpha=0.85)
    axis.bar_label(drawn, [_figure(value) for value in values], fontsize=7)
    if panel.logarithmic:
        axis.set_xscale("log")
    axis.margins(x=0.15)
    axis.tick_params(axis="y", labelsize=7)
    axis.set_xlabel(panel.unit, fontsize=9)


def _figure(value: float) -> str:
    """Return a value as it stands beside a bar."""
    return f" {value:,.0f}" if value >= 100 else f" {value:.3g}"


def _legend(figure: Any, axes: list[Any]) -> None:
    found: dict[str, Any] = {}
    for axis in axes:
        handles, labels = axis.get_legend_handles_labels()
        found.update(zip(labels, handles, strict=True))
    if found:
        figure.legend(
            found.values(),
            found.keys(),
            loc="upper center",
            bbox_to_anchor=(0.5, 0.0),
            ncol=2,
            fontsize=8,
        )
