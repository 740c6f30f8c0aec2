"""Learning curves of a suite, from the journal: a point per model, data set, task, metric and share of the training images.

Shares drawn here (`0.10`: nested, stratified, one per draw) and partitions that a data set ships (`0.10x`: one draw,
neither nested nor stratified) are different curves; the run on all images (`1.00x`) is the end of both.
"""

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from leaderboards.results import Journal
from leaderboards.table import Cell, Row, write_csv

FULL = "1.00x"
DRAWN, OFFICIAL, ALL = "drawn", "official", "all"


@dataclass(frozen=True)
class Point:
    """A line of the table, its fields in the order of the columns, then what drawing needs.

    `subsets`: `drawn` (ours), `official` (the data set's own), or `all` (every training image). `fraction` is a number.
    `mean` is over draws of the mean over each draw's seeds, `spread` the sample standard deviation over draws of those
    means (None for one draw: an official partition has no spread that could be known). `ranked`: the number that stands
    for the data set; `headline`: that of its task.
    """

    model: str
    weights: str
    label: str
    protocol: str
    dataset: str
    task: str
    metric: str
    subsets: str
    fraction: float
    mean: float
    spread: float | None
    n_draws: int
    n_seeds: int
    ranked: bool
    headline: bool


_NAMES = [field.name for field in fields(Point)]
COLUMNS = tuple(_NAMES[: _NAMES.index("n_seeds") + 1])
Line = tuple[str, ...]


def build(
    journal: Journal, suite: str, cells: Sequence[Cell], table: Sequence[Row], folder: Path | str
) -> tuple[Path, list[Point]] | None:
    """Write `<suite>_curves.csv` into `folder` and return it with its points; None where all rows have one fraction.

    `cells` are the suite's and `table` its rows (`leaderboards.table.rows`), made from this journal. Twice gives the
    same bytes. Raises `JournalError` if the journal cannot be read or the file cannot be written.
    """
    if len({row.train_fraction for row in table}) < 2:
        return None
    found = points(journal, cells, table)
    path = Path(folder) / f"{suite}_curves.csv"
    write_csv(path, COLUMNS, ([getattr(point, column) for column in COLUMNS] for point in found))
    return path, found


def points(journal: Journal, cells: Sequence[Cell], table: Iterable[Row]) -> list[Point]:
    """A point per row, by the suite's order, metric and line; those of one line by fraction, official ones last."""
    known = {record.identity.run_id: record for record in journal.records()}
    found = []
    for row in table:
        by_draw: defaultdict[int, list[float]] = defaultdict(list)
        for record in (known[run_id] for run_id in row.run_ids):
            by_draw[record.identity.draw].append(record.metrics[row.metric])
        means = [statistics.fmean(values) for values in by_draw.values()]
        found.append(
            Point(
                model=row.name,
                weights=row.weights,
                label=row.label,
                protocol=row.protocol,
                dataset=row.dataset,
                task=row.task,
                metric=row.metric,
                subsets=ALL if row.train_fraction == FULL else OFFICIAL if row.train_fraction[-1] == "x" else DRAWN,
                fraction=float(row.train_fraction.removesuffix("x")),
                mean=statistics.fmean(means),
                spread=statistics.stdev(means) if len(means) > 1 else None,
                n_draws=row.n_draws,
                n_seeds=row.n_seeds,
                ranked=row.primary,
                headline=row.headline,
            )
        )
    order = {(cell.dataset, cell.task): number for number, cell in enumerate(cells)}
    return sorted(
        found,
        key=lambda point: (
            *(order[point.dataset, point.task], point.metric, name(point), point.subsets == OFFICIAL, point.fraction),
        ),
    )


def name(point: Point) -> Line:
    """What tells the lines of one panel apart, but for whose subsets they are."""
    return point.model, point.weights, point.label, point.protocol


def lines(found: Iterable[Point]) -> Mapping[tuple[Line, str], list[Point]]:
    """The curves among points of one data set, task and metric: (name, `drawn` or `official`) -> points by fraction.

    The point of all images closes every curve of its model; without any other point it is one by itself (`all`).
    """
    found = list(found)
    curves: dict[tuple[Line, str], list[Point]] = {}
    for point in found:
        if point.subsets != ALL:
            curves.setdefault((name(point), point.subsets), []).append(point)
    for point in found:
        if point.subsets == ALL:
            own = [curve for (line, _), curve in curves.items() if line == name(point)]
            for curve in own or [curves.setdefault((name(point), ALL), [])]:
                curve.append(point)
    return {key: sorted(curve, key=lambda point: point.fraction) for key, curve in sorted(curves.items())}
