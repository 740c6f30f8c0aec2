import errno
import os
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from leaderboards.results import Journal, JournalError, Record
from leaderboards.table import COLUMNS, Cell, Row, rows, write

CELLS = [
    Cell("m-so2sat", "knn", "ms", primary=False),
    Cell("m-so2sat", "linear_probe", "ms", primary=True),
    Cell("m-eurosat", "knn", "ms", primary=False),
    Cell("m-eurosat", "linear_probe", "ms", primary=True),
    Cell("m-pv4ger", "linear_probe", "optical", primary=True),
]


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "runs")


def table(journal: Journal) -> list[Row]:
    return rows(journal, "geobench", CELLS)


def predictions(accuracy: float) -> dict[str, np.ndarray]:
    label = np.arange(100) % 5
    return {"label": label, "prediction": np.where(np.arange(100) < 100 * accuracy, label, (label + 1) % 5)}


def test_the_columns_are_those_of_the_published_schema() -> None:
    assert ",".join(COLUMNS) == (
        "model,variant,weights,label,modality,suite,dataset,task,metric,protocol,train_fraction,"
        "value,std,ci_low,ci_high,n_seeds,n_draws,primary,run_ids"
    )


def test_a_row_is_written_like_this(journal: Journal, record: Callable[..., Record], tmp_path: Path) -> None:
    run = record(2 / 3, label="first, try", metrics={"accuracy": 2 / 3, "map": 1}, weights="random-0")
    journal.append(run)
    write(table(journal), tmp_path / "geobench.csv")
    run_id = run.identity.run_id
    same = 'deo,swin,random,"first, try",ms,geobench,m-eurosat,linear_probe'
    assert (tmp_path / "geobench.csv").read_text().splitlines() == [
        ",".join(COLUMNS),
        f"{same},accuracy,clean,1.00x,0.666667,,,,1,1,true,{run_id}",
        f"{same},map,clean,1.00x,1.000000,,,,1,1,false,{run_id}",
    ]


def test_seeds_are_averaged_and_their_sample_deviation_is_said(journal: Journal, record: Callable[..., Record]) -> None:
    for seed, accuracy in enumerate((0.5, 0.6, 0.9)):
        journal.append(record(accuracy, seed=seed), predictions(accuracy))
    (row,) = table(journal)
    assert row.value == pytest.approx(2 / 3)
    assert row.std == pytest.approx((((1 / 6) ** 2 + (1 / 15) ** 2 + (7 / 30) ** 2) / 2) ** 0.5)
    assert (row.n_seeds, row.n_draws) == (3, 1)
    assert row.run_ids == tuple(record(seed=seed).identity.run_id for seed in range(3))
    assert row.ci_low is not None
    assert row.ci_high is not None
    assert 0.4 < row.ci_low < row.value < row.ci_high < 1.0


def test_every_draw_weighs_the_same(journal: Journal, record: Callable[..., Record]) -> None:
    for draw, seed, accuracy in ((0, 0, 0.2), (0, 1, 0.4), (1, 0, 0.9)):
        journal.append(record(accuracy, draw=draw, seed=seed))
    (row,) = table(journal)
    assert row.value == pytest.approx((0.3 + 0.9) / 2)
    assert (row.n_seeds, row.n_draws) == (2, 2)


def test_the_interval_comes_from_the_arrays_of_the_run(journal: Journal, record: Callable[..., Record]) -> None:
    journal.append(record(0.8, metrics={"accuracy": 0.8, "map": 0.7}), predictions(0.8))
    accuracy, average_precision = table(journal)
    assert (accuracy.ci_low, accuracy.ci_high) == (pytest.approx(0.72, abs=0.02), pytest.approx(0.88, abs=0.02))
    assert (average_precision.ci_low, average_precision.ci_high) == (None, None)


def test_a_metric_that_some_seeds_lack_is_averaged_over_those_that_have_it(
    journal: Journal, record: Callable[..., Record]
) -> None:
    journal.append(record(seed=0, metrics={"accuracy": 0.5, "extra": 0.1}))
    journal.append(record(seed=1, metrics={"accuracy": 0.7}))
    accuracy, extra = table(journal)
    assert (accuracy.value, accuracy.n_seeds) == (pytest.approx(0.6), 2)
    assert (extra.value, extra.std, extra.n_seeds) == (0.1, None, 1)


def test_failed_runs_and_cells_outside_the_suite_stay_out(journal: Journal, record: Callable[..., Record]) -> None:
    journal.append(record(0.5))
    journal.append(record(0.1, seed=1, status="failed", reason="out of memory after the first metric"))
    journal.append(record(0.7, dataset="m-brick-kiln"))
    journal.append(record(0.7, task="segmentation"))
    assert [(row.dataset, row.task, row.n_seeds) for row in table(journal)] == [("m-eurosat", "linear_probe", 1)]


def test_primary_is_the_primary_metric_of_the_ranked_task(journal: Journal, record: Callable[..., Record]) -> None:
    journal.append(record(metrics={"accuracy": 0.5, "accuracy_logistic": 0.6}))
    journal.append(record(task="knn", seed=None, metrics={"accuracy_k5": 0.5, "mean": 0.4}, primary="mean"))
    marks = {(row.task, row.metric): (row.primary, row.headline) for row in table(journal)}
    assert marks == {
        ("knn", "accuracy_k5"): (False, False),
        ("knn", "mean"): (False, True),
        ("linear_probe", "accuracy"): (True, True),
        ("linear_probe", "accuracy_logistic"): (False, False),
    }


def test_runs_of_other_switches_are_never_averaged_together(journal: Journal, record: Callable[..., Record]) -> None:
    for model in ("deo", "dinov2"):
        for seed in (0, 1):
            journal.append(record(0.6, model=model, seed=seed))
    for seed in (0, 1):
        journal.append(record(0.9, seed=seed, switches={"linear_probe.batch": 8, "linear_probe.standardise": "train"}))
    found = [(row.model, row.label, row.value, row.n_seeds) for row in table(journal)]
    assert found == [("deo", "", 0.6, 2), ("deo", "linear_probe.batch=8", 0.9, 2), ("dinov2", "", 0.6, 2)]


def test_checkpoints_with_the_same_short_digest_are_never_averaged_together(
    journal: Journal, record: Callable[..., Record]
) -> None:
    first, second = "01234567" + "a" * 56, "01234567" + "b" * 56
    journal.append(record(0.6, weights=first))
    journal.append(record(0.9, weights=second))
    found = [(row.weights, row.label, row.value) for row in table(journal)]
    assert found == [("01234567", "", 0.6), ("01234567", f"weights={second}", 0.9)]


def test_random_and_limited_runs_are_marked(journal: Journal, record: Callable[..., Record]) -> None:
    journal.append(record(0.6, weights="random-0", limit=8, label="mine"))
    (row,) = table(journal)
    assert (row.weights, row.label) == ("random", "mine [limit 8]")


def test_the_labels_of_one_rows_runs_are_all_shown(journal: Journal, record: Callable[..., Record]) -> None:
    for seed, label in enumerate(("second", "", "first", "second")):
        journal.append(record(seed=seed, label=label))
    assert [row.label for row in table(journal)] == ["first, second"]


def test_rows_stand_in_the_order_of_the_suite(journal: Journal, record: Callable[..., Record]) -> None:
    for dataset in ("m-pv4ger", "m-eurosat", "m-so2sat"):
        for model in ("dinov2", "deo"):
            journal.append(record(dataset=dataset, model=model))
    found = [(row.model, row.dataset, row.modality) for row in table(journal)]
    assert found == [
        (model, *cell)
        for model in ("deo", "dinov2")
        for cell in (("m-so2sat", "ms"), ("m-eurosat", "ms"), ("m-pv4ger", "optical"))
    ]


def test_the_same_runs_give_the_same_bytes_in_whatever_order_they_were_recorded(
    tmp_path: Path, record: Callable[..., Record]
) -> None:
    runs = [
        (replace(record(accuracy / 20 + 0.4, seed=accuracy % 5, model=model, dataset=dataset)), accuracy / 20 + 0.4)
        for accuracy in range(10)
        for model in ("deo", "imagestats")
        for dataset in ("m-eurosat", "m-so2sat")
        if accuracy < 5
    ]
    texts = []
    for number in range(3):
        random.Random(number).shuffle(runs)
        journal = Journal(tmp_path / str(number))
        for position, (run, accuracy) in enumerate(runs):
            journal.append(replace(run, provenance={"seconds": position}), predictions(accuracy))
        for again in range(2):
            write(table(journal), tmp_path / f"{number} {again}.csv")
            texts.append((tmp_path / f"{number} {again}.csv").read_bytes())
    assert len(set(texts)) == 1
    assert texts[0].count(b"\n") == 5


def test_runs_on_different_test_images_are_named(journal: Journal, record: Callable[..., Record]) -> None:
    runs = [record(0.8, seed=seed) for seed in (0, 1)]
    journal.append(runs[0], predictions(0.8))
    journal.append(runs[1], {name: array[::-1] for name, array in predictions(0.8).items()})
    ids = ", ".join(run.identity.run_id for run in runs)
    with pytest.raises(JournalError, match=rf"runs {ids} \(deo on m-eurosat\) cannot be averaged: .* with --force"):
        table(journal)


def test_a_full_disk_leaves_the_older_table(
    journal: Journal, record: Callable[..., Record], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal.append(record(0.5))
    path = tmp_path / "out" / "geobench.csv"
    write(table(journal), path)
    before = path.read_bytes()

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(JournalError, match=r"cannot write .*geobench\.csv: no space left"):
        write([], path)
    assert [(found.name, found.read_bytes()) for found in path.parent.iterdir()] == [("geobench.csv", before)]


def test_a_label_that_is_no_valid_text_still_makes_a_table(
    journal: Journal, record: Callable[..., Record], tmp_path: Path
) -> None:
    journal.append(record(0.5, label="\udcff"))
    write(table(journal), tmp_path / "geobench.csv")
    assert "\\udcff" in (tmp_path / "geobench.csv").read_text()
