"""Every suite from the command line on the twins: nothing skipped, nothing failed, a CSV and the ranks of its groups."""

import csv
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.data import catalogue, twins
from tasks.suites import SUITES

Harness = Callable[..., tuple[int, str, str]]
# The control, small heads, and the first images where a set has many; the fractions of low-data suites are taken of all.
# A tenth of the ten training images of SpaceNet's twin is one, on which no batch norm can be trained: there a fifth.
QUICK: dict[str, tuple[tuple[str, ...], set[str]]] = {  # arguments, and the fractions that the rows then have
    "geobench": (("--limit", "8"), {"1.00x"}),
    "geobench-full": (("--limit", "8"), {"1.00x"}),
    "deo": (("--limit", "8"), {"1.00x"}),
    "deo-lowdata": ((), {"0.10x"}),
    "xstars": (("--limit", "8"), {"1.00x"}),
    "xstars-lowdata": ((), {"0.05", "0.10", "0.50"}),
    "xstars-size": ((), {"1.00x"}),
}


@pytest.fixture(scope="session")
def twin_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with the twin of every data set."""
    root = tmp_path_factory.mktemp("twins-of-all")
    for name in twins.TWINS:
        if not (root / catalogue.card(name).location).exists():
            twins.write(name, root)
    return root


@pytest.fixture(scope="session")
def journal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One journal and store for all suites: what two of them share is computed once."""
    return tmp_path_factory.mktemp("journal")


def read(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8") as file:
        return list(csv.DictReader(file))


def run(harness: Harness, root: Path, journal: Path, *arguments: str) -> dict:
    """One call of `run`, in which nothing may fail or be skipped; its summary."""
    command = ("run", *arguments, "--data-root", root, "--runs", journal, "--out", "O", "--quiet", "--json")
    code, out, err = harness(*map(str, command))
    assert code == 0, err
    summary = json.loads(out.splitlines()[-1])
    assert (summary["failures"], summary["skipped"]) == ([], [])
    return summary


def records(journal: Path) -> list[dict]:
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted((journal / "records").glob("*.json"))]


def test_every_data_set_but_the_demonstration_has_a_twin_where_its_card_looks_for_it(twin_root):
    real = [card for card in catalogue.CARDS.values() if not card.location.startswith("twin/")]
    assert set(twins.TWINS) == {card.name for card in real}
    assert [card.name for card in real if catalogue.find(card, twin_root) is None] == []
    assert set(QUICK) == set(SUITES) - {"demo"}
    assert {cell.dataset for name in QUICK for cell in SUITES[name].cells} <= set(twins.TWINS)


@pytest.mark.parametrize("name", QUICK)
def test_a_suite_runs_from_end_to_end_and_writes_its_csv_and_the_ranks_of_its_groups(
    harness, twin_root, journal, tmp_path, name
):
    suite, (arguments, fractions) = SUITES[name], QUICK[name]
    run(harness, twin_root, journal, "--model", "imagestats", "--suite", name, "--protocol", "demo", *arguments)
    rows = read(tmp_path / "O" / f"{name}.csv")
    own = [row for row in rows if row["train_fraction"] in fractions]
    assert {(row["dataset"], row["task"]) for row in own} == {(cell.dataset, cell.task) for cell in suite.cells}
    ranked = {row["dataset"] for row in own if row["primary"] == "true"}
    assert ranked == {cell.dataset for cell in suite.cells}

    groups = Counter(catalogue.card(dataset).modality for dataset in ranked)
    tables = [(f"{name}_ranks.csv", groups)]
    if suite.second:
        second = {cell.dataset for cell in suite.cells if cell.task == suite.second}
        tables.append((f"{name}_{suite.second}_ranks.csv", Counter(catalogue.card(one).modality for one in second)))
    for table, counts in tables:
        full = [
            line
            for line in read(tmp_path / "O" / table)
            if (int(line["n_optical"]), int(line["n_ms"])) == (counts["optical"], counts["ms"])
        ]
        assert {line["model"] for line in full} == {"imagestats:full"}
        for line in full:
            assert line["overall"] != ""
            assert (line["optical"] == "", line["ms"] == "") == (not counts["optical"], not counts["ms"])


def test_the_suites_of_both_papers_have_the_groups_of_their_tables():
    groups = {name: Counter(catalogue.card(dataset).modality for dataset, _ in SUITES[name].datasets) for name in QUICK}
    assert groups["deo"] == {"optical": 5, "ms": 8}
    assert groups["xstars"] == {"optical": 7}
    assert groups["geobench-full"] == {"optical": 5, "ms": 7}


def test_a_suite_that_sweeps_a_switch_has_a_line_of_its_own_for_each_value(harness, twin_root, journal, tmp_path):
    run(harness, twin_root, journal, "--model", "imagestats", "--suite", "xstars-size", "--protocol", "demo")
    labels = {row["label"] for row in read(tmp_path / "O/xstars-size.csv")}
    assert {"input_size=64", "input_size=224"} <= labels


def test_a_low_data_suite_draws_its_curve(harness, twin_root, journal, tmp_path):
    run(harness, twin_root, journal, "--model", "imagestats", "--suite", "xstars-lowdata", "--protocol", "demo")
    curve = read(tmp_path / "O/xstars-lowdata_curves.csv")
    assert {float(row["fraction"]) for row in curve} >= {0.05, 0.1, 0.5}
    assert (tmp_path / "O/xstars-lowdata_curves.png").stat().st_size > 0


@pytest.mark.parametrize("dataset", ["m-so2sat", "m-pv4ger-seg"])
def test_a_limited_run_draws_its_training_subset_from_the_images_that_it_reads(harness, twin_root, tmp_path, dataset):
    chosen = ("--model", "imagestats", "--dataset", dataset, "--protocol", "demo", "--limit", "5", "--set", "knn.k=1")
    run(harness, twin_root, tmp_path / "R", *chosen, "--train-fraction", "0.40", "--draws", "3")
    assert {record["identity"]["draw"] for record in records(tmp_path / "R")} == {0, 1, 2}


ONE_EPOCH = {
    "segmentation": ("segmentation.epochs=1", "segmentation.warmup_epochs=0"),
    "change_detection": ("change_detection.epochs=1",),
    "linear_probe": ("linear_probe.epochs=1", "linear_probe.warmup_epochs=0"),
    "knn": (),
}


@pytest.mark.parametrize(
    ("suite", "dataset", "task", "limit"),
    [
        ("deo", "oscd", "change_detection", 4),
        ("deo", "pastis", "segmentation", 4),
        ("deo", "m-eurosat", "linear_probe", 20),
        ("xstars", "eurosat-rgb", "knn", 20),
        ("xstars", "eurosat-rgb", "linear_probe", 20),
        ("xstars", "chesapeake-landsat8", "segmentation", 4),
        ("geobench", "m-pv4ger-seg", "segmentation", 2),
        ("geobench", "m-eurosat", "linear_probe", 20),
    ],
)
def test_the_own_protocol_of_a_suite_is_walked_on_one_cell_of_each_task(
    harness, twin_root, tmp_path, suite, dataset, task, limit
):
    switches = [word for switch in ONE_EPOCH[task] for word in ("--set", switch)]
    chosen = ("--model", "xstars:tiny", "--weights", "random", "--suite", suite, "--dataset", dataset, "--task", task)
    run(harness, twin_root, tmp_path / "R", *chosen, *switches, "--seeds", "0", "--limit", str(limit))
    (record,) = records(tmp_path / "R")
    identity, provenance = record["identity"], record["provenance"]
    assert (identity["protocol"], identity["dataset"], identity["task"]) == (SUITES[suite].protocol, dataset, task)
    assert record["status"] == "ok"
    assert record["primary"] in record["metrics"]
    if task in ("segmentation", "change_detection"):
        tuned = identity["switches"][f"{task}.backbone"] == "finetuned"
        assert tuned == (task == "change_detection")
        assert (provenance["backbone_before"] != provenance["backbone_after"]) == tuned


@pytest.mark.slow
def test_a_network_with_random_weights_runs_all_thirteen_sets_of_deo(harness, twin_root, tmp_path):
    chosen = ("--model", "deo", "--weights", "random", "--suite", "deo", "--protocol", "demo", "--limit", "4")
    assert run(harness, twin_root, tmp_path / "R", *chosen)["computed"] == 13
    (line,) = read(tmp_path / "O/deo_ranks.csv")
    assert (line["model"], line["weights"], line["overall"]) == ("deo:swin", "random", "1.000000")
    assert (line["n_optical"], line["n_ms"]) == ("5", "8")
