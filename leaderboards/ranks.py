"""Average ranks per modality, in the manner of table 4 of DEO (arXiv 2602.19863): 1 is best, ties share a mean rank.

The ranks printed there do not follow from DEO's own tables 1-3; these are the plain ones, by the following rules.

Compared are rows of one protocol, one train fraction and one `limit`, full runs never beside limited ones, random
weights never beside real ones; a model without weights stands beside the real ones, or beside the random where there
are no others. On each data set the models present are ranked by the suite's primary number, rounded to the six decimals
of the CSV. `optical` and `ms` are means over the group's data sets, `overall` is the mean of the two (of a suite with
one group: that one). A model that lacks a data set which another one of its comparison has is listed after the complete
ones, with its counts and without means: a gap is said, never filled.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from scipy.stats import rankdata

from leaderboards.results import Journal
from leaderboards.table import Cell, Row, rows, write, write_csv

MODALITIES = ("optical", "ms")
TAGS = ("weights", "label", "protocol", "train_fraction")  # written where they tell lines apart


@dataclass(frozen=True)
class Standing:
    """One line of the rank table; `optical`, `ms` and `overall` are None where nothing can be said."""

    model: str
    weights: str
    label: str
    protocol: str
    train_fraction: str
    optical: float | None
    ms: float | None
    overall: float | None
    n_optical: int
    n_ms: int


class Leaderboard(NamedTuple):
    """What `build` made: the rows, the ranks, sentences on what is missing, and the two files."""

    cells: Sequence[Cell]
    rows: list[Row]
    standings: list[Standing]
    notes: list[str]
    csv: Path
    ranks: Path


def build(
    journal: Journal, suite: str, cells: Sequence[Cell], folder: Path | str, second: str = ""
) -> list[Leaderboard]:
    """Write `<suite>.csv` and `<suite>_ranks.csv` into `folder`, from the journal alone; twice gives the same bytes.

    `cells` are the suite's, in its order; at most one per data set is `primary`. With `second`, a task, there is another
    rank table, `<suite>_<second>_ranks.csv`, over the data sets that have this task, by its number. Raises `JournalError`
    if the journal cannot be read or a file cannot be written.
    """
    table, csv = rows(journal, suite, cells), Path(folder) / f"{suite}.csv"
    write(table, csv)
    boards = [_board(table, cells, csv, Path(folder) / f"{suite}_ranks.csv")]
    if second:
        own = [cell._replace(primary=True) for cell in cells if cell.task == second]
        by_second = [replace(row, primary=row.headline) for row in table if row.task == second]
        boards.append(_board(by_second, own, csv, Path(folder) / f"{suite}_{second}_ranks.csv"))
    return boards


def _board(table: list[Row], cells: Sequence[Cell], csv: Path, ranks: Path) -> Leaderboard:
    table = joined(table)
    standings, notes = rank(table, cells)
    columns = _columns(standings)
    write_csv(ranks, columns, ([getattr(standing, column) for column in columns] for standing in standings))
    return Leaderboard(cells, table, standings, notes, csv, ranks)


def joined(table: list[Row]) -> list[Row]:
    """Rows with the labels that ranks go by: a model measured once per task is one line, whatever switches each task had.

    A switch of one task (`segmentation.head=upernet-lite`) marks that task's rows alone, and must not part a model's tasks
    into several incomplete lines. Where one model has two rows for a task, their labels tell the lines apart as in the CSV.
    """
    lines: defaultdict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for row in table:
        lines[row.name, row.weights, row.given, *_conditions(row)].append(row)
    found = []
    for key, own in lines.items():
        heads = Counter((row.dataset, row.task) for row in own if row.headline)
        once = all(times == 1 for times in heads.values())
        limit = f"[limit {own[0].limit}]" if own[0].limit is not None else ""
        words = " ".join(word for word in (key[2], limit) if word)
        found += [replace(row, label=words, switched=row.label) for row in own] if once else own
    return found


def rank(table: Iterable[Row], cells: Sequence[Cell]) -> tuple[list[Standing], list[str]]:
    """The rank table, best first within each comparison, and what a reader must know about it, in sentences."""
    datasets = {cell.dataset: cell.modality for cell in cells if cell.primary}
    primary = [row for row in table if row.primary]
    comparisons: defaultdict[tuple[Any, ...], list[Row]] = defaultdict(list)
    kinds: defaultdict[tuple[Any, ...], set[str]] = defaultdict(set)
    for row in primary:
        kinds[_conditions(row)].add(row.weights if row.weights in ("none", "random") else "real")
    for row in primary:
        random = row.weights == "random" or (row.weights == "none" and kinds[_conditions(row)] == {"none", "random"})
        comparisons[*_conditions(row), random].append(row)

    standings: list[Standing] = []
    missing = [dataset for dataset in datasets if all(row.dataset != dataset for row in primary)]
    notes = [f"not measured, so not in the ranks: {', '.join(missing)}"] if missing else []
    for conditions in sorted(comparisons):
        placed, remarks = _compare(comparisons[conditions], datasets)
        where = f"{conditions[0]}, train {conditions[1]}: " if len(comparisons) > 1 else ""
        standings += placed
        notes += [where + remark for remark in remarks]
    return standings, notes


def _conditions(row: Row) -> tuple[Any, ...]:
    """What must be equal for two rows to be compared; sorts full runs before limited ones."""
    return row.protocol, row.train_fraction, row.limit is not None, row.limit or 0


def _compare(table: list[Row], datasets: dict[str, str]) -> tuple[list[Standing], list[str]]:
    """Rank rows that may stand beside each other. `datasets`: the suite's ranked data sets, each with its modality."""
    notes = []
    ranks: dict[tuple[str, str, str], dict[str, float]] = {(row.name, row.weights, row.label): {} for row in table}
    measured = []
    for dataset in datasets:
        present = [row for row in table if row.dataset == dataset]
        if not present:
            continue
        measured.append(dataset)
        metrics = Counter(row.metric for row in present)
        metric = min(metrics, key=lambda name: (-metrics[name], name))
        if len(metrics) > 1:
            notes.append(f"{dataset}: ranked by {metric}; rows with another primary metric count as missing")
            present = [row for row in present if row.metric == metric]
        switched = sorted({f"{row.name} {row.switched}" for row in present if row.switched not in ("", row.label)})
        if switched and len({row.switched or row.label for row in present}) > 1:
            notes.append(f"{dataset}: ranked under different switches ({'; '.join(switched)})")
        if len({row.data for row in present}) > 1:
            notes.append(f"{dataset}: the ranked rows were measured on different versions or splits of the data")
        positions = rankdata([-round(row.value, 6) for row in present], method="average")
        for row, position in zip(present, positions, strict=True):
            ranks[row.name, row.weights, row.label][dataset] = float(position)

    complete, partial = [], []
    for key, own in ranks.items():
        lacking = [dataset for dataset in measured if dataset not in own]
        (partial if lacking else complete).append(_standing(key, table[0], own, datasets, bool(lacking)))
        if lacking:
            words = " ".join(word for word in key if word)
            notes.append(f"{words}: no average rank, it lacks {', '.join(lacking)}")
    complete.sort(key=lambda one: (_best_known(one), one.model, one.weights, one.label))
    partial.sort(key=lambda one: (one.model, one.weights, one.label))
    return complete + partial, notes


def _standing(
    key: tuple[str, str, str], row: Row, ranks: dict[str, float], datasets: dict[str, str], partial: bool
) -> Standing:
    groups = {modality: [ranks[name] for name in ranks if datasets[name] == modality] for modality in MODALITIES}
    means = {name: None if partial or not group else sum(group) / len(group) for name, group in groups.items()}
    wanted = [means[modality] for modality in MODALITIES if modality in datasets.values()]
    known = [mean for mean in wanted if mean is not None]
    return Standing(
        *key,
        protocol=row.protocol,
        train_fraction=row.train_fraction,
        **means,
        overall=sum(known) / len(known) if known and len(known) == len(wanted) else None,
        n_optical=len(groups["optical"]),
        n_ms=len(groups["ms"]),
    )


def _best_known(one: Standing) -> float:
    """The rank that sorts: overall, else that of the only group measured."""
    return next(rank for rank in (one.overall, one.optical, one.ms) if rank is not None)


def _columns(standings: Sequence[Standing]) -> list[str]:
    """The columns of the rank table: those that tell rows apart, or mark them, only where there is something to say."""
    several = {name: len({getattr(one, name) for one in standings}) > 1 for name in ("protocol", "train_fraction")}
    alike = len({(one.model, one.label, one.protocol, one.train_fraction) for one in standings}) < len(standings)
    told = {
        "weights": alike or any(one.weights == "random" for one in standings),
        "label": any(one.label for one in standings),
        **several,
    }
    return ["model", *(name for name, said in told.items() if said), "optical", "ms", "overall", "n_optical", "n_ms"]


def summary(board: Leaderboard) -> list[dict[str, str]]:
    """The final table as plain text: one line per model and comparison, in the order of the ranks, all with equal keys.

    After the columns that name the line: the headline number of every data set and task (`0.912 ± 0.021`, where the
    second is half the width of the 95% interval; without it where that is unknown), then the ranks (2 decimals).
    """
    tags = [name for name in _columns(board.standings) if name in TAGS]
    headline = {(_identified(row), row.dataset, row.task): row for row in board.rows if row.headline}
    cells = [(cell.dataset, cell.task) for cell in board.cells if any(key[1:] == cell[:2] for key in headline)]
    ranked = {_identified(standing): standing for standing in board.standings}
    lines = []
    for key in dict.fromkeys([*ranked, *(key[0] for key in headline)]):
        line = {name: word for name, word in zip(("model", *TAGS), key, strict=True) if name in ("model", *tags)}
        line |= {f"{dataset} {task}": _number(headline.get((key, dataset, task))) for dataset, task in cells}
        places = {name: getattr(ranked.get(key), name, None) for name in (*MODALITIES, "overall")}
        lines.append(line | {name: "" if place is None else f"{place:.2f}" for name, place in places.items()})
    return lines


def _identified(line: Row | Standing) -> tuple[str, ...]:
    name = line.name if isinstance(line, Row) else line.model
    return name, line.weights, line.label, line.protocol, line.train_fraction


def _number(row: Row | None) -> str:
    if row is None:
        return ""
    return f"{row.value:.3f}" + (
        "" if row.ci_low is None or row.ci_high is None else f" ± {(row.ci_high - row.ci_low) / 2:.3f}"
    )
