"""The leaderboard of a suite: written from the journal, and shown."""

from collections.abc import Sequence
from pathlib import Path

import tasks
from leaderboards import ranks
from leaderboards.ranks import Leaderboard
from leaderboards.results import Journal
from leaderboards.table import Cell as TableCell
from tasks.data.dataset import DatasetCard
from tasks.suites import SUITES, Cell


def write(journal: Journal, suite: str, cells: Sequence[tuple[Cell, DatasetCard]], out: Path) -> list[Leaderboard]:
    """Write `<suite>.csv` and its rank tables into `out`; cells of tasks that this version lacks are in none of them.

    Nothing, and no file, if the journal holds no finished run of the suite.
    """
    names = {(cell.dataset, cell.task) for cell, _ in cells}
    if not any(one.status == "ok" and (one.identity.dataset, one.identity.task) in names for one in journal.records()):
        return []
    able = [(cell, card) for cell, card in cells if cell.task in tasks.names()]
    named = [TableCell(cell.dataset, cell.task, card.modality, cell.primary) for cell, card in able]
    tasks_here = {cell.task for cell, _ in able}
    second = SUITES[suite].second if suite in SUITES else ""
    return ranks.build(journal, suite, named, out, second if second in tasks_here else "")


def show(board: Leaderboard) -> None:
    """Print the table, what a reader must know about it, and where the files are."""
    from rich.console import Console
    from rich.table import Table

    lines = ranks.summary(board)
    if lines:
        columns = [column for column in lines[0] if any(line[column] for line in lines)]
        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in columns:
            words = column.replace(" ", "\n").replace("_", " ")  # data set above task keeps the table narrow
            left = column in ("model", "weights", "label", "protocol")
            table.add_column(words, justify="left" if left else "right", no_wrap=column != "label", vertical="bottom")
        for line in lines:
            table.add_row(*(line[column] for column in columns))
        terminal = Console()
        width = max(terminal.width, 100) if terminal.is_terminal else 160
        Console(width=width, highlight=False, markup=False).print(table)
    for note in board.notes:
        print(f"note: {note}")
    print(f"wrote {board.csv} and {board.ranks}")
