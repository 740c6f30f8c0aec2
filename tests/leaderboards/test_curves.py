"""Learning curves: which runs make a point, what the spread is, and which points make a line."""

import statistics
from collections.abc import Callable
from pathlib import Path

import pytest

from leaderboards import curves
from leaderboards.curves import ALL, COLUMNS, DRAWN, OFFICIAL, Point
from leaderboards.results import Journal, Record
from leaderboards.table import Cell, rows

CELLS = [Cell("m-so2sat", "linear_probe", "ms", True), Cell("m-eurosat", "linear_probe", "ms", True)]
ACCURACY = {(0, 0): 0.5, (0, 1): 0.6, (1, 0): 0.7, (1, 1): 0.8, (2, 0): 0.3, (2, 1): 0.4}  # by draw and seed


@pytest.fixture
def journal(tmp_path: Path, record: Callable[..., Record]) -> Journal:
    """Three draws of two seeds at a tenth, the official tenth and all images, each with one seed, of one model."""
    kept = Journal(tmp_path / "runs")
    for (draw, seed), accuracy in ACCURACY.items():
        kept.append(record(accuracy, train_fraction="0.10", draw=draw, seed=seed))
    kept.append(record(0.45, train_fraction="0.10x"))
    kept.append(record(0.9, train_fraction="1.00x"))
    return kept


def points(journal: Journal) -> list[Point]:
    return curves.points(journal, CELLS, rows(journal, "suite", CELLS))


def test_a_point_is_the_mean_over_draws_and_its_spread_is_over_draws_alone(journal):
    drawn, whole, official = points(journal)
    assert (drawn.subsets, drawn.fraction, drawn.n_draws, drawn.n_seeds) == (DRAWN, 0.1, 3, 2)
    assert drawn.mean == pytest.approx(0.55)  # of 0.55, 0.75 and 0.35
    assert drawn.spread == pytest.approx(0.2) == statistics.stdev([0.55, 0.75, 0.35])
    assert (official.subsets, official.mean, official.spread, official.n_draws) == (OFFICIAL, 0.45, None, 1)
    assert (whole.subsets, whole.fraction, whole.mean) == (ALL, 1.0, 0.9)


def test_official_partitions_and_our_draws_are_two_lines_that_end_at_all_images(journal):
    found = curves.lines(points(journal))
    told = {subsets: [(point.fraction, point.mean) for point in line] for (_, subsets), line in found.items()}
    assert told == {
        DRAWN: [(0.1, pytest.approx(0.55)), (1.0, 0.9)],
        OFFICIAL: [(0.1, 0.45), (1.0, 0.9)],
    }


def test_a_model_on_all_images_alone_is_a_line_of_one_point(journal, record):
    journal.append(record(0.8, model="dinov2", train_fraction="1.00x"))
    found = curves.lines(points(journal))
    assert [subsets for _, subsets in found] == [DRAWN, OFFICIAL, ALL]
    assert [[point.mean for point in line] for (name, _), line in found.items() if name[0] == "dinov2:swin"] == [[0.8]]


def test_the_table_is_written_in_the_order_of_the_suite_and_is_the_same_twice(journal, record, tmp_path):
    journal.append(record(0.2, model="a", dataset="m-so2sat", train_fraction="0.10"))
    table = rows(journal, "suite", CELLS)
    built = curves.build(journal, "suite", CELLS, table, tmp_path)
    assert built is not None
    path, _ = built
    first = path.read_bytes()
    lines = first.decode().splitlines()
    assert lines[0] == ",".join(COLUMNS)
    assert lines[1] == "a:swin,01234567,,clean,m-so2sat,linear_probe,accuracy,drawn,0.100000,0.200000,,1,1"
    assert lines[2].startswith(
        "deo:swin,01234567,,clean,m-eurosat,linear_probe,accuracy,drawn,0.100000,0.550000,0.200000"
    )
    assert len(lines) == 5
    curves.build(journal, "suite", CELLS, table, tmp_path)
    assert path.read_bytes() == first


def test_a_journal_with_one_fraction_has_no_curve(tmp_path, record):
    kept = Journal(tmp_path / "runs")
    kept.append(record(0.9))
    assert curves.build(kept, "suite", CELLS, rows(kept, "suite", CELLS), tmp_path) is None
    assert not list(tmp_path.glob("*.csv"))


def test_limited_runs_are_lines_of_their_own(journal, record):
    journal.append(record(0.1, train_fraction="0.50", limit=8))
    labels = {point.label for point in points(journal)}
    assert labels == {"", "[limit 8]"}
    assert len(curves.lines(points(journal))) == 3
