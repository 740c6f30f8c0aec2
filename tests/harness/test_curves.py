"""The picture of learning curves, and the run that makes one."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harness import curves
from leaderboards import ranks
from leaderboards.curves import Point
from leaderboards.results import Journal
from leaderboards.table import Cell

CELLS = [Cell("demo-eurosat", "knn", "ms", True)]


def point(fraction: float, mean: float, **changes: object) -> Point:
    facts = {
        "model": "deo:swin",
        "weights": "01234567",
        "label": "",
        "protocol": "clean",
        "dataset": "m-eurosat",
        "task": "linear_probe",
        "metric": "accuracy",
        "subsets": "drawn" if fraction < 1 else "all",
        "spread": 0.05 if fraction < 1 else None,
        "n_draws": 5,
        "n_seeds": 1,
        "ranked": True,
        "headline": True,
    }
    return Point(**{**facts, **changes}, fraction=fraction, mean=mean)  # type: ignore[arg-type]


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(path.read_bytes())).convert("RGB")).astype(int)


def shade(path: Path, colour: tuple[int, int, int]) -> int:
    """How many pixels have very nearly this colour."""
    return int((np.abs(pixels(path) - colour).max(axis=2) <= 3).sum())


LINE, BAND = (31, 119, 180), (215, 231, 241)  # matplotlib's first colour, and its 18% on white


def test_a_line_has_a_band_where_the_spread_is_known(tmp_path):
    curves.draw([point(0.1, 0.5), point(0.5, 0.6), point(1.0, 0.9)], tmp_path / "with.png")
    alone = [point(0.1, 0.5, spread=None), point(0.5, 0.6, spread=None), point(1.0, 0.9)]
    curves.draw(alone, tmp_path / "without.png")
    assert shade(tmp_path / "with.png", BAND) > 1000
    assert shade(tmp_path / "without.png", BAND) < 100
    assert shade(tmp_path / "without.png", LINE) > 200


def test_the_same_points_give_the_same_bytes(tmp_path):
    found = [point(0.1, 0.5), point(1.0, 0.9), point(0.1, 0.4, subsets="official", spread=None)]
    curves.draw(found, tmp_path / "a.png")
    curves.draw(found, tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_panels_stand_beside_each_other_three_to_a_row(tmp_path):
    found = [point(share, 0.5, dataset=f"d{number}") for number in range(4) for share in (0.1, 1.0)]
    curves.draw(found[:2], tmp_path / "one.png")
    curves.draw(found, tmp_path / "four.png")
    one, four = pixels(tmp_path / "one.png").shape, pixels(tmp_path / "four.png").shape
    assert four[1] == 3 * one[1]
    assert four[0] > 1.8 * one[0]


def test_a_legend_names_what_tells_lines_apart_and_no_more():
    keys = [
        (("deo:swin", "01234567", "", "clean"), "drawn"),
        (("deo:swin", "01234567", "", "clean"), "official"),
        (("deo:swin", "89abcdef", "mine", "clean"), "drawn"),
        (("dinov2", "random", "", "clean"), "all"),
        (("imagestats", "none", "", "clean"), "drawn"),
    ]
    assert [curves.entry(key, keys) for key in keys] == [
        "deo:swin 01234567",
        "deo:swin 01234567 (official partitions)",
        "deo:swin 89abcdef mine",
        "dinov2 random (all images only)",
        "imagestats",
    ]


@pytest.fixture
def journal(harness) -> Journal:
    """A run of the demo's eurosat at two shares and on all images, two draws each."""
    code, _, err = harness(
        *("run", "--model", "imagestats", "--dataset", "demo-eurosat", "--task", "knn", "--protocol", "demo", "-q"),
        *("--train-fraction", "0.2,0.5,1", "--draws", "2", "--set", "knn.k=5"),
    )
    assert code == 0, err
    return Journal("runs")


def test_a_run_at_several_fractions_has_a_table_and_a_picture_and_one_fraction_has_neither(journal, tmp_path):
    board = ranks.build(journal, "demo", CELLS, tmp_path)[0]
    written = curves.write(journal, "demo", board, tmp_path)
    assert written is not None
    assert written == (tmp_path / "demo_curves.csv", tmp_path / "demo_curves.png")
    lines = written.csv.read_text().splitlines()
    assert len(lines) == 1 + 3 * len({row.metric for row in board.rows})
    assert shade(written.picture, LINE) > 200
    whole = board._replace(rows=[row for row in board.rows if row.train_fraction == "1.00x"])
    assert curves.write(journal, "whole", whole, tmp_path) is None
    assert not list(tmp_path.glob("whole*"))
