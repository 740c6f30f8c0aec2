"""`rank --published`: the tables of DEO and X-STARS, with what was measured here beside the printed numbers.

A model is known by its card's `published_as`, a data set by name or alias. What is measured is shown, never ranked.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, NamedTuple

import models
from leaderboards import published
from leaderboards.published import Grid, Number
from models.common.errors import UserError, choose
from tasks.data import catalogue

if TYPE_CHECKING:
    from rich.console import Console

NAME_WIDTH = 44
GAP = 2


class Measured(NamedTuple):
    """A number of the journal that has a published counterpart. `how`: what tells it from other runs of the model."""

    model: str
    how: str
    value: float


Key = tuple[str, str, str, float]  # published model, catalogue name of the data set, task, train fraction
Found = dict[tuple[str, str], dict[str, float]]  # by line and column of a grid: the measured values, by `how`


def show(paper: str, tables: Sequence[str], runs: Path) -> None:
    """Print tables of a paper (`all`, or those shown by default), beside the journal in `runs` where there is one.

    For `deo` also what its tables 1-4 contradict. Raises `UserError` for a paper or a table that is not known.
    """
    choose("published paper", paper, published.PAPERS)
    numbers = published.read(paper)
    known = list(dict.fromkeys(number.table for number in numbers))
    wanted = known if "all" in tables else [choose(f"table of {paper}", name, [*known, "all"]) for name in tables]
    beside = measured(runs) if runs.is_dir() else {}
    shown = published.with_recomputed(numbers) if paper == "deo" else numbers
    matches = 0
    for table in wanted or published.PAPERS[paper]:
        for grid in published.grids(shown, table):
            matches += _print(grid, beside)
    if paper == "deo" and not tables:
        for sentence in published.contradictions(numbers):
            print(f"contradiction: {sentence}")
    print("where each published number is from: leaderboards/published/README.md and the CSV files beside it")
    if matches:
        print("measured: 100 x the number of our journal, under the protocol named; published numbers enter no rank")
    else:
        print(
            f"nothing measured in {runs} has a published counterpart in these tables; only published numbers are shown"
        )


def measured(runs: Path) -> dict[Key, list[Measured]]:
    """What the journal in `runs` holds of models and data sets that the papers' tables name."""
    from leaderboards import table
    from leaderboards.results import Journal
    from tasks.suites import tasks_for

    cells = [
        table.Cell(card.name, task, card.modality, False)
        for card in catalogue.CARDS.values()
        for task in tasks_for(card.label)
    ]
    found: defaultdict[Key, list[Measured]] = defaultdict(list)
    for row in table.rows(Journal(runs), "published", cells):
        vote = re.fullmatch(r"accuracy_mean_(\w+)", row.metric) if row.task == "knn" else None
        if not row.headline and not vote:
            continue
        words = [row.name, row.weights, row.label, row.protocol, f"{vote[1]} vote" if vote else ""]
        one = Measured(row.name, ", ".join(word for word in words if word), 100 * row.value)
        for model in _published_as(row.name):
            found[model, row.dataset, row.task, float(row.train_fraction.removesuffix("x"))].append(one)
    return dict(found)


def _published_as(name: str) -> tuple[str, ...]:
    """The names under which papers print a model; none for one that this version does not know."""
    try:
        return models.card(name).published_as
    except UserError:
        return ()


def counterpart(number: Number) -> Key | None:
    """What a measured number must be to stand beside a published one; None where the paper leaves its task open."""
    task = {"segmentation": "segmentation", "change detection": "change_detection"}.get(number.task)
    if number.task == "classification":
        if number.protocol.startswith(("k-NN,", "k-NN (")):
            task = "knn"
        elif number.protocol.startswith(("linear probe", "as full-data protocol")):
            task = "linear_probe"
    dataset = _datasets().get(plain(number.dataset))
    if not task or not dataset or not number.split_fraction or number.protocol.startswith("VALIDATION"):
        return None
    return number.model, dataset, task, float(number.split_fraction)


def _datasets() -> dict[str, str]:
    """The catalogue's names by what letters and digits spell: `Sen1Floods11`, `CV-BrCT` and `cv-brct` meet."""
    names = {plain(alias): card.name for card in catalogue.CARDS.values() for alias in card.aliases}
    return names | {plain(name): name for name in catalogue.CARDS}


def plain(name: str) -> str:
    """A name's letters and digits in lower case."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _print(grid: Grid, beside: dict[Key, list[Measured]]) -> int:
    """Print one grid in as many blocks of columns as the terminal asks for; how many measured numbers it shows."""
    from rich.console import Console

    terminal = Console()
    width = max(terminal.width, 80) if terminal.is_terminal else 120
    found = {
        place: {one.how: one.value for one in beside.get(key, ())}
        for place, number in grid.cells.items()
        if (key := counterpart(number))
    }
    hows = {
        line: list(dict.fromkeys(how for (name, _), own in found.items() if name == line for how in own))
        for line in grid.lines
    }
    columns = list(_columns(grid, found))
    names = min(NAME_WIDTH, max(map(len, grid.lines)))
    names += GAP + min(NAME_WIDTH, max(len(how) for one in hows.values() for how in one)) if any(hows.values()) else 0
    print(fill(grid.title, width))
    for block in _blocks(columns, width - names):
        _print_block(grid, found, hows, block, Console(width=width, highlight=False, markup=False))
    return sum(map(len, found.values()))


class Column(NamedTuple):
    """A column as printed: the grid's own, as `published`, or the one of what was `measured` beside it."""

    name: str
    kind: str
    width: int

    @property
    def header(self) -> str:
        return "\n".join([*self.name.split(), self.kind]).strip()


def _columns(grid: Grid, found: Found) -> Iterator[list[Column]]:
    """The columns of the grid; those that belong together, measured before published, in one list."""
    for name in grid.columns:
        beside = any(own for (_, column), own in found.items() if column == name)
        values = [len(number.value) for (_, column), number in grid.cells.items() if column == name]
        kinds = ("measured", "published") if beside else ("",)
        wide = max(*map(len, name.split()), *values, *map(len, kinds))
        yield [Column(name, kind, wide) for kind in kinds]


def _blocks(columns: Sequence[list[Column]], room: int) -> Iterator[list[Column]]:
    """Columns in their order, as many to a block as there is room for; at least one group each."""
    block: list[Column] = []
    for group in columns:
        if block and sum(column.width + GAP for column in (*block, *group)) > room:
            yield block
            block = []
        block = [*block, *group]
    yield block


def _print_block(grid: Grid, found: Found, hows: dict[str, list[str]], block: list[Column], console: "Console") -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("", justify="left", vertical="bottom", max_width=NAME_WIDTH)
    if any(hows.values()):
        table.add_column("measured as", justify="left", vertical="bottom", max_width=NAME_WIDTH)
    for column in block:
        table.add_column(column.header, justify="right", vertical="bottom", no_wrap=True)
    for line in grid.lines:
        for number, how in enumerate(hows[line] or [""]):
            cells = [line if number == 0 else ""]
            if any(hows.values()):
                cells.append(how)
            for column in block:
                printed = grid.cells.get((line, column.name))
                value = found.get((line, column.name), {}).get(how)
                if column.kind == "measured":
                    cells.append("" if value is None else f"{value:.2f}")
                else:
                    cells.append("" if printed is None else printed.value or "missing")
            table.add_row(*cells)
    console.print(table)
    console.print()
