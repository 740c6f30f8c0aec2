"""The long table of a suite, from the journal: a row per model, data set, task and metric, over seeds and draws."""

import csv
import io
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

from leaderboards.files import JournalError, write_atomically
from leaderboards.intervals import intervals
from leaderboards.labels import labels, short_weights
from leaderboards.results import Journal, Record


class Cell(NamedTuple):
    """One data set and task of a suite. `modality`: the data set's group in the ranks, `optical` or `ms`.

    `primary`: the data set is ranked by this task.
    """

    dataset: str
    task: str
    modality: str
    primary: bool


@dataclass(frozen=True)
class Row:
    """A row of the CSV, its fields in the order of the columns; then three facts for ranking and printing.

    `std` is the sample standard deviation over the runs (None for one run), `ci_low` and `ci_high` the ends of the 95%
    interval (None where the runs kept no arrays for this metric). `primary`: the ranks of this data set are made of
    this number. `headline`: the metric that stands for its task. `limit`: the cap on images. `data`: version and split.
    `given`: what the caller called the runs, without the switches that were changed. `switched`: in a rank table, the
    label that a row has in the CSV.
    """

    model: str
    variant: str
    weights: str
    label: str
    modality: str
    suite: str
    dataset: str
    task: str
    metric: str
    protocol: str
    train_fraction: str
    value: float
    std: float | None
    ci_low: float | None
    ci_high: float | None
    n_seeds: int
    n_draws: int
    primary: bool
    run_ids: tuple[str, ...]
    headline: bool
    limit: int | None
    data: str
    given: str = ""
    switched: str = ""

    @property
    def name(self) -> str:
        """The model as on the command line: `deo`, or `deo:vit`."""
        return self.model if self.variant in ("", "default") else f"{self.model}:{self.variant}"


_NAMES = [field.name for field in fields(Row)]
COLUMNS = tuple(_NAMES[: _NAMES.index("run_ids") + 1])


def rows(journal: Journal, suite: str, cells: Sequence[Cell]) -> list[Row]:
    """Every row of the suite, by model, variant, weights, label, protocol, fraction, the suite's order and metric.

    Only runs that went well enter, and only runs equal in all but seed and draw are averaged: `value` is the mean over
    draws of the mean over each draw's seeds. Rows that the columns could not tell apart get a `label` that does. Raises
    `JournalError` where the journal does.
    """
    order = {(cell.dataset, cell.task): number for number, cell in enumerate(cells)}
    groups: defaultdict[str, list[Record]] = defaultdict(list)
    for record in journal.records():
        identity = record.identity
        if record.status == "ok" and (identity.dataset, identity.task) in order:
            groups[identity.row_id].append(record)
    for group in groups.values():
        group.sort(key=lambda record: (record.identity.draw, record.identity.seed or 0, record.identity.run_id))

    leaders = [group[0].identity for group in groups.values()]
    shown = labels(leaders, [_given_label(group) for group in groups.values()])
    table = [
        row
        for group, label in zip(groups.values(), shown, strict=True)
        for row in _rows(journal, suite, cells[order[group[0].identity.dataset, group[0].identity.task]], group, label)
    ]
    return sorted(
        table,
        key=lambda row: (
            *(row.model, row.variant, row.weights, row.label, row.protocol, row.train_fraction),
            *(order[row.dataset, row.task], row.metric, row.run_ids),
        ),
    )


def write(table: Iterable[Row], path: Path) -> None:
    """Write the CSV, whole or not at all: numbers with 6 decimals, empty where unknown, run ids separated by spaces."""
    write_csv(path, COLUMNS, ([getattr(row, column) for column in COLUMNS] for row in table))


def write_csv(path: Path, columns: Sequence[str], lines: Iterable[Sequence[Any]]) -> None:
    """Write lines of values under a heading; the same values give the same bytes."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_text(value) for value in line] for line in lines)
    write_atomically(path, text.getvalue().encode(errors="backslashreplace"))


def _text(value: Any) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case float():
            return f"{value:.6f}"
        case tuple():
            return " ".join(value)
    return str(value)


def _given_label(group: Sequence[Record]) -> str:
    """What the caller called these runs; several names of one row are all shown."""
    given = {str(record.provenance.get("label", "")) for record in group}
    return ", ".join(sorted(given - {""}))


def _rows(journal: Journal, suite: str, cell: Cell, group: list[Record], label: str) -> list[Row]:
    """The rows of one group of runs that differ in seed and draw only, one for each metric that any of them has."""
    leader = group[0].identity
    holders = {
        name: [record for record in group if name in record.metrics] for record in group for name in record.metrics
    }
    shared = {
        name: [record.metrics[name] for record in held] for name, held in holders.items() if len(held) == len(group)
    }
    samples, draws = [journal.samples(record) for record in group], [record.identity.draw for record in group]
    try:
        ends = intervals(shared, samples, draws, seed=int(leader.row_id, 16))
    except JournalError as error:
        names = ", ".join(record.identity.run_id for record in group)
        raise JournalError(f"runs {names} ({leader.model} on {leader.dataset}) cannot be averaged: {error}") from None
    return [
        Row(
            model=leader.model,
            variant=leader.variant,
            weights=short_weights(leader.weights),
            label=label,
            modality=cell.modality,
            suite=suite,
            dataset=leader.dataset,
            task=leader.task,
            metric=metric,
            protocol=leader.protocol,
            train_fraction=leader.train_fraction,
            value=_average(held, metric),
            std=statistics.stdev(record.metrics[metric] for record in held) if len(held) > 1 else None,
            ci_low=ends[metric][0] if metric in ends else None,
            ci_high=ends[metric][1] if metric in ends else None,
            n_seeds=len({record.identity.seed for record in held}),
            n_draws=len({record.identity.draw for record in held}),
            primary=cell.primary and metric == group[0].primary,
            run_ids=tuple(record.identity.run_id for record in held),
            headline=metric == group[0].primary,
            limit=leader.limit,
            data=f"{leader.dataset_version} {leader.split_digest}",
            given=", ".join(sorted({str(record.provenance.get("given", "")) for record in group} - {""})),
        )
        for metric, held in holders.items()
    ]


def _average(records: Sequence[Record], metric: str) -> float:
    by_draw: defaultdict[int, list[float]] = defaultdict(list)
    for record in records:
        by_draw[record.identity.draw].append(record.metrics[metric])
    return statistics.fmean(statistics.fmean(values) for values in by_draw.values())
