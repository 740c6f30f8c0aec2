"""The numbers that DEO (arXiv 2602.19863) and X-STARS (arXiv 2405.09922) print, as grids, and what contradicts what.

They are read from `published/*.csv`; `published/README.md` says where each number is from. Nothing here enters a rank:
`ranks.py` knows the journal alone.
"""

import csv
from collections.abc import Iterable, Sequence
from math import fsum
from pathlib import Path
from typing import NamedTuple

from leaderboards.files import JournalError

FOLDER = Path(__file__).with_suffix("")
PAPERS = {"deo": ("1", "2", "3", "4", "7"), "xstars": ("I",)}  # and the tables that are shown unless others are named
BY_PROTOCOL = {("X-STARS", "I"), ("X-STARS", "VI")}  # printed as one table, but no number of one is one of the other
AXES = ("dataset", "metric", "protocol", "split_fraction", "task")


class Number(NamedTuple):
    """One cell of a published table, its fields in the order of the CSV columns; `value` as printed, or empty."""

    paper: str
    table: str
    model: str
    modality: str
    suite: str
    dataset: str
    task: str
    metric: str
    protocol: str
    split_fraction: str
    value: str
    value_source: str
    note: str


class Grid(NamedTuple):
    """A table to print: names of lines and columns in the order of the paper, and the number where they cross."""

    title: str
    lines: list[str]
    columns: list[str]
    cells: dict[tuple[str, str], Number]


def read(paper: str, folder: Path = FOLDER) -> list[Number]:
    """Every published number of `deo` or `xstars`, in the order of the files. Raises `JournalError` on damage."""
    files = sorted(folder.glob(f"{paper}_*.csv"))
    if not files:
        raise JournalError(f"no published numbers of {paper!r} in {folder}; restore the folder from the repository")
    found = []
    for path in files:
        with path.open(newline="", encoding="utf-8") as file:
            rows = csv.reader(file)
            if tuple(next(rows, ())) != Number._fields:
                raise JournalError(f"{path} has other columns than {','.join(Number._fields)}; restore it")
            for row in rows:
                if len(row) != len(Number._fields):
                    raise JournalError(f"{path}, line {rows.line_num}: {len(row)} columns, not {len(Number._fields)}")
                found.append(Number(*row))
    return found


def grids(numbers: Sequence[Number], table: str) -> list[Grid]:
    """One published table as one grid, or as one per protocol where k-NN and linear probing share it."""
    chosen = [number for number in numbers if number.table == table]
    if not chosen or (chosen[0].paper, table) not in BY_PROTOCOL:
        return [_grid(chosen)] if chosen else []
    protocols = dict.fromkeys(number.protocol for number in chosen)
    return [_grid([number for number in chosen if number.protocol == protocol]) for protocol in protocols]


def _grid(numbers: Sequence[Number]) -> Grid:
    """Models as lines (data sets, else metrics, where there is no more than one), and as few axes as columns need."""
    values = {axis: list(dict.fromkeys(getattr(number, axis) for number in numbers)) for axis in ("model", *AXES)}
    line = next((axis for axis in ("model", "dataset", "metric") if len(values[axis]) > 1), "metric")
    axes: list[str] = []
    for axis in AXES:
        cells = {(getattr(number, line), *(getattr(number, one) for one in axes)) for number in numbers}
        more = {(*(getattr(number, one) for one in (line, *axes)), getattr(number, axis)) for number in numbers}
        if axis != line and (len(more) > len(cells) or (not axes and len(values[axis]) > 1)):
            axes.append(axis)
    cells = {
        (getattr(number, line), " ".join(getattr(number, axis) for axis in axes) or "value"): number
        for number in numbers
    }
    told = [numbers[0].task] if len({number.task for number in numbers}) == 1 else []
    for axis in ("dataset", "metric", "protocol"):
        common = dict.fromkeys(getattr(number, axis) for number in numbers if number.suite != "aggregate")
        told += list(common) if len(common) == 1 and axis not in (line, *axes) else []
    table = numbers[0].table
    title = f"{numbers[0].paper}, {'' if ' ' in table else 'table '}{table}"
    words = "; ".join(word for word in told if word)
    lines, columns = (list(dict.fromkeys(place[side] for place in cells)) for side in (0, 1))
    return Grid(f"{title}: {words}" if words else title, lines, columns, cells)


def scores(numbers: Iterable[Number]) -> dict[str, dict[str, float]]:
    """Per data set of DEO's tables 1-3 the number of each model; averages are left out."""
    found: dict[str, dict[str, float]] = {}
    for number in numbers:
        if number.table in ("1", "2", "3") and number.suite != "aggregate":
            found.setdefault(number.dataset, {})[number.model] = float(number.value)
    return found


def optical(numbers: Iterable[Number]) -> set[str]:
    """The data sets that DEO's tables 1-3 count as optical: those on which no model receives more than RGB."""
    numbers = list(numbers)
    return set(scores(numbers)) - {number.dataset for number in numbers if number.modality == "MS"}


def average_ranks(numbers: Sequence[Number]) -> dict[str, dict[str, float]]:
    """DEO's table 4 from its tables 1-3: per model the mean rank over the `optical` and `MS` data sets and `overall`.

    On each data set 1 is best and ties share a mean rank; `overall` is the mean of the two groups, the one rule of the
    printed table that its own columns follow.
    """
    from scipy.stats import rankdata

    visible = optical(numbers)
    ranks: dict[str, dict[str, list[float]]] = {}
    for dataset, of_models in scores(numbers).items():
        positions = rankdata([-value for value in of_models.values()], method="average")
        for model, position in zip(of_models, positions, strict=True):
            groups = ranks.setdefault(model, {"optical": [], "MS": []})
            groups["optical" if dataset in visible else "MS"].append(float(position))
    means = {model: {name: _mean(group) for name, group in groups.items()} for model, groups in ranks.items()}
    return {model: groups | {"overall": _mean(list(groups.values()))} for model, groups in means.items()}


def with_recomputed(numbers: Sequence[Number]) -> list[Number]:
    """DEO's numbers with the recomputed rank (2 decimals) after each printed one of table 4."""
    means, found = average_ranks(numbers), []
    for number in numbers:
        found.append(number)
        group = number.metric.removeprefix("average rank: ")
        if number.table == "4" and group != number.metric:
            again = f"{means[number.model][group]:.2f}"
            found.append(number._replace(metric=f"{group} recomputed", value=again, value_source="derived"))
    return found


def contradictions(numbers: Sequence[Number]) -> list[str]:
    """What in DEO's tables 1-4 does not follow from its own numbers, a sentence each; all of it is computed here."""
    found = []
    means = average_ranks(numbers)
    complete = len(means) * (len(means) + 1) / 2
    for group in ("optical", "MS"):
        printed = {n.model: float(n.value) for n in numbers if n.metric == f"average rank: {group}"}
        total = fsum(printed.values())
        if abs(total - complete) > 0.05 * len(printed) + 1e-9:  # each is rounded to one decimal
            found.append(
                f"table 4, {group}: the {len(printed)} printed average ranks sum to {total:.1f}; "
                f"{len(means)} models that are all ranked, with ties sharing a mean rank, sum to {complete:g}"
            )
        off = [model for model, value in printed.items() if abs(value - means[model][group]) > 0.05 + 1e-9]
        if off:
            found.append(
                f"table 4, {group}: {len(off)} of {len(printed)} printed average ranks are not those of tables 1-3"
            )
    for number in numbers:
        if number.suite != "aggregate" or number.table not in ("1", "2", "3"):
            continue
        parts = _averaged(number, numbers)
        mean = _mean([float(part.value) for part in parts])
        decimals = min(len(part.value.partition(".")[2]) for part in (number, *parts))
        if abs(mean - float(number.value)) > 10.0**-decimals + 1e-9:  # half a unit in the cells, half in the average
            found.append(
                f"table {number.table}, {number.model}: {number.dataset} is printed as {number.value}, "
                f"its {len(parts)} cells give {mean:.2f}"
            )
    return found


def _averaged(average: Number, numbers: Sequence[Number]) -> list[Number]:
    """The cells that an average stands for: those of its group; of the overall average of table 1 the two averages."""
    row = [one for one in numbers if (one.table, one.model) == (average.table, average.model)]
    cells = [one for one in row if one.suite != "aggregate"]
    visible = optical(numbers)
    match average.dataset:
        case "Optical avg":
            return [one for one in cells if one.dataset in visible]
        case "MS avg":
            return [one for one in cells if one.dataset not in visible]
        case "Overall avg":
            return [one for one in row if one.dataset in ("Optical avg", "MS avg")]
    return cells


def _mean(values: Sequence[float]) -> float:
    return fsum(values) / len(values)
