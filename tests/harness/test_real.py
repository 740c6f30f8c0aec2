"""The main job on real imagery: 196 Sentinel-2 tiles as a GEO-Bench directory, 2,000 JPEGs as a folder."""

import csv
from pathlib import Path

import pytest

from tests.support import write_geobench_eurosat

# DEO at 64 px: the statement is that the walk works on real pixels, and two cores are slow at 224.
NATIVE = ("--set", "input_size=native")
KNN = ("--set", "knn.distance=euclidean,knn.standardise=train,knn.k=5")
NINE_IN_TEN = """
name = "{name}"
root = "{root}"
layout = "class-folders"
bands = [{bands}]
unit = "{unit}"
gsd = 10.0
split = {{rule = "every-nth", test = 3}}
"""
EUROSAT_ORDER = ["S2:B01", *(f"S2:B0{number}" for number in range(2, 10)), "S2:B10", "S2:B11", "S2:B12", "S2:B8A"]


@pytest.fixture(scope="module")
def eurosat(tmp_path_factory, shared: Path) -> Path:
    """A data root that holds `m-eurosat` alone, made of the real tiles."""
    root = tmp_path_factory.mktemp("geobench")
    tiles = sorted((shared / "data/eurosat_ms").glob("*/*.tif"))
    assert len(tiles) == 196
    write_geobench_eurosat(root / "classification_v1.0/m-eurosat", tiles)
    return root


def rows(path: Path) -> dict[tuple[str, str, str], float]:
    with open(path) as file:
        return {(row["model"], row["task"], row["metric"]): float(row["value"]) for row in csv.DictReader(file)}


def test_the_command_of_the_title_runs_over_real_tiles(harness, eurosat, tmp_path):
    code, _, err = harness(
        *("run", "--model", "deo,imagestats", "--suite", "geobench", "--data-root", eurosat, "--weights", "random"),
        *("--runs", "R", "--out", "O", "--seeds", "0", "-v", *NATIVE),
    )
    assert code == 0, err
    assert "m-so2sat: not on this machine; `python -m harness data fetch m-so2sat`" in err
    assert "band names corrected" in err
    assert "S2:B8A <- S2:B8A" in err
    table = rows(tmp_path / "O/geobench.csv")
    assert table["imagestats", "linear_probe", "accuracy"] > 0.5  # chance is 0.1
    assert table["deo", "linear_probe", "accuracy"] > 0.2  # random weights, but the spectra are there
    assert (tmp_path / "O/geobench_ranks.csv").exists()


def test_five_neighbours_on_band_statistics_reach_the_plain_reference_on_the_multispectral_tiles(
    harness, shared, tmp_path
):
    bands = ", ".join(f'"{name}"' for name in EUROSAT_ORDER)
    text = NINE_IN_TEN.format(name="eurosat-ms", root=shared / "data/eurosat_ms", bands=bands, unit="dn")
    check_five_neighbours(harness, tmp_path, text, at_least=0.66)


def test_five_neighbours_on_channel_statistics_reach_the_plain_reference_on_the_jpegs(harness, shared, tmp_path):
    bands = '"RGB:red", "RGB:green", "RGB:blue"'
    text = NINE_IN_TEN.format(name="eurosat-rgb", root=shared / "data/eurosat_rgb", bands=bands, unit="uint8")
    check_five_neighbours(harness, tmp_path, text, at_least=0.64)


def check_five_neighbours(harness, tmp_path: Path, toml: str, at_least: float) -> None:
    (tmp_path / "my.toml").write_text(toml)
    base = ("run", "--model", "imagestats:mean_std", "--dataset", "my.toml", "--task", "knn", "--runs", "R")
    code, _, err = harness(*base, "--out", "O", *KNN)
    assert code == 0, err
    euclidean = rows(tmp_path / "O/custom.csv")["imagestats", "knn", "accuracy_k5_uniform"]
    harness(*base, "--out", "P", "--set", "knn.k=5", "--runs", "Q")
    cosine = rows(tmp_path / "P/custom.csv")["imagestats", "knn", "accuracy_k5_uniform"]
    print(f"5-NN, euclidean on standardised statistics: {euclidean:.3f}; cosine: {cosine:.3f}")
    assert euclidean >= at_least
    assert cosine > 0.2
