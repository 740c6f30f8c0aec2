"""Learning curves as a picture: a panel per data set, a line per model, the spread over draws as a band round it.

Draws of ours are solid; partitions that a data set ships are dashed and have no band, for there is one draw of each. The
same points give the same bytes.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from harness.figures import figure_file
from leaderboards import curves
from leaderboards.curves import ALL, OFFICIAL, Point
from leaderboards.ranks import Leaderboard
from leaderboards.results import Journal

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ACROSS = 3  # panels in a line
PANEL, HIGH = 3.3, 2.7  # inches
ENTRY, CHARACTER = 0.18, 0.075  # inches: a line of the legend, a letter in it


class Curves(NamedTuple):
    """The two files that were written."""

    csv: Path
    picture: Path


def write(journal: Journal, suite: str, board: Leaderboard, out: Path) -> Curves | None:
    """Write `<suite>_curves.csv` and `<suite>_curves.png` into `out` where the board's rows have several train fractions.

    None, and no file, where they have one. Raises `JournalError` if a file cannot be written.
    """
    built = curves.build(journal, suite, board.cells, board.rows, out)
    if built is None:
        return None
    path, points = built
    picture = out / f"{suite}_curves.png"
    draw(points, picture)
    return Curves(path, picture)


def draw(points: Sequence[Point], path: Path) -> None:
    """Draw the curves of every data set's ranked number (without one: of its last task's) into a PNG."""
    shown = {dataset: _shown([point for point in points if point.dataset == dataset]) for dataset in _datasets(points)}
    keys = dict.fromkeys(key for found in shown.values() for key in curves.lines(found))
    entries = {key: entry(key, list(keys)) for key in sorted(keys)}
    colours = {name: f"C{number % 10}" for number, name in enumerate(dict.fromkeys(key[0] for key in entries))}
    across = min(ACROSS, len(shown))
    down = -(-len(shown) // across)
    width = max(across * PANEL, 0.9 + CHARACTER * max(len(text) for text in entries.values()))
    columns = max(1, min(len(entries), int(width / (0.7 + CHARACTER * max(map(len, entries.values()))))))
    foot = 0.1 + ENTRY * -(-len(entries) // columns)
    with figure_file(path, width, down * HIGH + foot) as figure:
        handles = {}
        for number, (dataset, found) in enumerate(shown.items()):
            axes = figure.add_subplot(down, across, number + 1)
            handles.update(_panel(axes, found, colours))
            axes.set_title(dataset, fontsize=9, fontweight="bold")
        figure.tight_layout(rect=(0, foot / (down * HIGH + foot), 1, 1), pad=0.6)
        ordered = [handles[key] for key in entries]
        figure.legend(
            ordered,
            list(entries.values()),
            ncols=columns,
            loc="lower center",
            fontsize=8,
            frameon=False,
            borderaxespad=0.3,
        )


def _datasets(points: Sequence[Point]) -> list[str]:
    return list(dict.fromkeys(point.dataset for point in points))


def _shown(points: Sequence[Point]) -> list[Point]:
    """Of one data set's points those of the number that is drawn."""
    ranked = [point for point in points if point.ranked]
    heads = ranked or [point for point in points if point.headline]
    last = heads[-1]
    return [point for point in heads if (point.task, point.metric) == (last.task, last.metric)]


def entry(key: tuple[curves.Line, str], keys: Sequence[tuple[curves.Line, str]]) -> str:
    """A line's name in the legend: the model, and of weights, label and protocol what tells it from the others."""
    (model, weights, *rest), subsets = key
    told = weights == "random" or len({line[1] for line, _ in keys if line[0] == model}) > 1
    words = [model] + ([weights] if told else [])
    words += [word for place, word in enumerate(rest, 2) if word and len({line[place] for line, _ in keys}) > 1]
    return " ".join(words) + {OFFICIAL: " (official partitions)", ALL: " (all images only)"}.get(subsets, "")


def _panel(
    axes: "Axes", points: Sequence[Point], colours: dict[curves.Line, str]
) -> dict[tuple[curves.Line, str], object]:
    """Draw one data set's curves; returns what the legend needs."""
    from matplotlib.ticker import FixedLocator, NullLocator

    handles = {}
    for key, curve in curves.lines(points).items():
        line, subsets = key
        share, mean = [point.fraction for point in curve], [point.mean for point in curve]
        official = subsets == OFFICIAL
        (handles[key],) = axes.plot(
            share,
            mean,
            color=colours[line],
            linewidth=1.2,
            markersize=3.5,
            linestyle="--" if official else "-",
            marker="s" if official else "o",
        )
        if any(point.spread for point in curve):
            low = [point.mean - (point.spread or 0) for point in curve]
            high = [point.mean + (point.spread or 0) for point in curve]
            axes.fill_between(share, low, high, color=colours[line], alpha=0.18, linewidth=0)
    ticks = sorted({point.fraction for point in points})
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticklabels([f"{100 * share:g}%" for share in ticks])
    axes.set_xlim(ticks[0] * 0.85, ticks[-1] / 0.85)
    axes.set_xlabel("training images", fontsize=8)
    axes.set_ylabel(f"{points[0].task} {points[0].metric}".replace("_", " "), fontsize=8)
    axes.tick_params(labelsize=8)
    axes.grid(color="#d0d0d0", linewidth=0.5)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return handles
