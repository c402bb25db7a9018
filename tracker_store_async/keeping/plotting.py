"""Pictures of the numbers of a store; they need the extra `plot`."""

from __future__ import annotations

from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

from tracker_store_async.errors import InvalidInputError, MissingExtraError

if TYPE_CHECKING:
    from pathlib import Path

    from tracker_store_async.keeping.statistics import Statistics

BLUE, INK, GREY = "#2a6fbb", "#222222", "#777777"
MOST_BARS = 90
"""Days with a bar of their own; of a longer time each bar is several days."""


def load_figure() -> Any:
    """Return matplotlib's class of figures, which draws without a display.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "matplotlib":
            raise
        raise MissingExtraError(
            "pictures need the package 'matplotlib': "
            "pip install 'tracker-store-async[plot]'"
        ) from error
    return Figure


def check_picture(path: Path) -> None:
    """Refuse a file that could not be drawn to, before anything is counted.

    Raises:
        MissingExtraError: matplotlib is not installed.
        InvalidInputError: Its name says no kind, or its directory is missing.
    """
    load_figure()
    from matplotlib.backend_bases import FigureCanvasBase

    kinds: Any = FigureCanvasBase.get_supported_filetypes
    if path.suffix[1:].lower() not in kinds():
        raise InvalidInputError(
            f"the name of a picture ends with .png, .svg or .pdf, not {path.name!r}"
        )
    if not path.parent.is_dir():
        raise InvalidInputError(
            f"the directory {str(path.parent)!r} does not exist: create it"
        )


def plot(found: Statistics, path: Path, *, title: str) -> None:
    """Draw how a store grew, and how long its conversations are.

    Args:
        found: The numbers.
        path: The file to write; its suffix says what kind.
        title: What to write above.

    Raises:
        MissingExtraError: matplotlib is not installed.
        OSError: The file cannot be written.
    """
    figure = load_figure()(figsize=(10, 8), layout="constrained")
    figure.suptitle(title, color=INK, fontsize=13, parse_math=False)
    top, bottom = figure.subplots(2, 1)
    _draw_growth(top, found)
    _draw_lengths(bottom, found)
    for axes in (top, bottom):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#e5e5e5", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.tick_params(colors=GREY)
    figure.savefig(path, dpi=110)


def bars_of(found: Statistics) -> tuple[list[date], list[int], int]:
    """Return the first day of each bar, its height, and the days of a bar."""
    first, last = min(found.begun), max(found.begun)
    days = (last - first).days + 1
    width = -(-days // MOST_BARS)
    heights = [0] * -(-days // width)
    for day, count in found.begun.items():
        heights[(day - first).days // width] += count
    starts = [first + timedelta(days=n * width) for n in range(len(heights))]
    return starts, heights, width


def _draw_growth(axes: Any, found: Statistics) -> None:
    axes.set_title("conversations begun", loc="left", color=INK, fontsize=11)
    if not found.begun:
        axes.text(0.5, 0.5, "no conversations", ha="center", color=GREY)
        return
    starts, heights, width = bars_of(found)
    axes.bar(starts, heights, width=0.85 * width, align="edge", color=BLUE)
    axes.set_ylabel("per day" if width == 1 else f"per {width} days", color=GREY)
    axes.yaxis.get_major_locator().set_params(integer=True)
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    locator: Any = AutoDateLocator
    formatter: Any = ConciseDateFormatter  # neither is typed
    placed = locator()
    axes.xaxis.set_major_locator(placed)
    axes.xaxis.set_major_formatter(formatter(placed))


def _draw_lengths(axes: Any, found: Statistics) -> None:
    axes.set_title("events of a conversation", loc="left", color=INK, fontsize=11)
    powers = range(max(found.lengths, default=0) + 1)
    names = ["1" if n == 0 else _range(2 ** (n - 1) + 1, 2**n) for n in powers]
    axes.bar(names, [found.lengths[n] for n in powers], width=0.85, color=BLUE)
    axes.set_ylabel("conversations", color=GREY)
    axes.yaxis.get_major_locator().set_params(integer=True)
    for label in axes.get_xticklabels():
        label.set_rotation(30)
        label.set_horizontalalignment("right")


def _range(low: int, high: int) -> str:
    return str(low) if low == high else f"{low}\N{EN DASH}{high}"
