"""Intervals of dense scores, against the scores themselves on the images drawn again."""

import time
import warnings
from pathlib import Path

import numpy as np
import pytest

from leaderboards import confusions, intervals
from leaderboards.results import Journal, JournalError
from leaderboards.table import Cell, rows
from tasks.common.confusion import change_scores, segmentation_scores

NAMES = ("land", "open water", "ice", "cloud", "never")


def matrices(seed: int = 0, images: int = 24, classes: int = 5) -> np.ndarray:
    """(N, K, K), in which class 2 is rare, class 3 predicted but never labelled, and the last class in neither."""
    generator = np.random.default_rng(seed)
    counts = generator.integers(0, 40, (images, classes, classes)).astype(np.uint32)
    counts[:, range(classes), range(classes)] *= 4
    counts[2:, 2] = counts[2:, :, 2] = 0
    counts[:, 3] = 0
    counts[:, -1] = counts[:, :, -1] = 0
    return counts


def changes(seed: int = 0, images: int = 40) -> np.ndarray:
    """(N, 2, 2): change in a few pairs only."""
    generator = np.random.default_rng(seed)
    counts = generator.integers(1, 50, (images, 2, 2)).astype(np.uint32)
    counts[2:, 1] = 0
    return counts


def found(values: dict[str, float], confusion: np.ndarray, **more: np.ndarray) -> dict[str, tuple[float, float]]:
    recorded = {name: [value] for name, value in values.items()}
    return intervals.intervals(recorded, [{"confusion": confusion, **more}], [0], seed=1)


def test_every_segmentation_score_has_an_interval_around_its_value():
    counts = matrices()
    values = segmentation_scores(counts, NAMES, no_data=0)
    ends = found(values, counts, no_data=np.array(0))
    assert ends.keys() == values.keys()
    for name, (low, high) in ends.items():
        assert low < values[name] < high or low == high == values[name] == 0, name  # class 3 is never right


def test_every_change_score_has_an_interval_around_its_value():
    counts = changes()
    values = change_scores(counts)
    ends = found(values, counts)
    assert ends.keys() == values.keys()
    assert all(low < values[name] < high for name, (low, high) in ends.items())


def test_a_score_under_image_weights_is_the_score_of_the_repeated_images():
    counts = matrices()
    times = np.random.default_rng(5).multinomial(24, np.full(24, 1 / 24), size=40)
    names = segmentation_scores(counts, NAMES, no_data=0)
    undefined = 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scores = {name: confusions.score(name, counts, 0)(times.astype(float)) for name in names}
    for row, often in enumerate(times):
        wanted = segmentation_scores(np.repeat(counts, often, axis=0), NAMES, no_data=0)
        for name in names:
            if name in wanted:
                assert scores[name][row] == pytest.approx(wanted[name], abs=1e-12), name
            else:
                undefined += 1
                assert np.isnan(scores[name][row]), name
    assert 0 < undefined < 40  # some replicates lack the rare class 2


def test_a_change_score_under_image_weights_is_the_score_of_the_repeated_pairs():
    counts = changes()
    times = np.random.default_rng(2).multinomial(40, np.full(40, 1 / 40), size=60).astype(float)
    changed = times[:, :2].any(axis=1)
    assert 0 < changed.sum() < 60
    for name in change_scores(counts):
        scores = confusions.score(name, counts)(times)
        wanted = [change_scores(np.repeat(counts, often.astype(int), axis=0))[name] for often in times[changed]]
        assert scores[changed] == pytest.approx(wanted, abs=1e-12), name
        assert np.isnan(scores[~changed]).all() == (name != "pixel_accuracy")


def test_images_without_any_labelled_pixel_do_not_make_a_replicate_nan():
    counts = matrices(images=4)
    counts[1:] = 0
    values = segmentation_scores(counts, NAMES)
    for name, ends in found(values, counts).items():
        assert ends == pytest.approx((values[name], values[name])), name  # every counted replicate is the first image


def test_the_class_left_out_must_be_recorded():
    counts = matrices()
    values = segmentation_scores(counts, NAMES, no_data=0)
    assert not [name for name in found(values, counts) if "without" in name]
    assert not [
        name for name in found(values, counts, no_data=np.array(1)) if name == "iou_micro_native_without_no_data"
    ]


@pytest.mark.parametrize("metric", ["accuracy", "miou", "iou_9_snow_native", "f1_change", "iou_micro", "miou_native"])
def test_a_metric_that_the_matrices_do_not_hold_has_no_interval(metric: str):
    assert found({metric: 0.5}, matrices()) == {}


def test_a_recorded_value_that_the_matrices_do_not_give_back_has_no_interval():
    counts = matrices()
    value = segmentation_scores(counts, NAMES)["iou_micro_native"]
    assert found({"iou_micro_native": value}, counts)
    assert found({"iou_micro_native": value + 1e-5}, counts) == {}


def test_an_interval_does_not_depend_on_how_many_replicates_are_held_at_once(monkeypatch: pytest.MonkeyPatch):
    counts = matrices()
    values = segmentation_scores(counts, NAMES)
    whole = found(values, counts)
    monkeypatch.setattr(intervals, "CHUNK_ELEMENTS", 700)
    assert found(values, counts) == whole


def test_runs_on_other_labels_are_refused_and_other_predictions_are_averaged():
    first, second = changes(), changes()
    second[0, 1] = second[0, 1, ::-1]  # the same pixels are labelled, others are predicted
    pair = [change_scores(first)["f1_change"], change_scores(second)["f1_change"]]
    (ends,) = intervals.intervals({"f1_change": pair}, [{"confusion": c} for c in (first, second)], [0, 0], 0).values()
    assert ends[0] < np.mean(pair) < ends[1]
    second[0, 1, 0] += 1
    for other in (second, first[:-1]):
        with pytest.raises(JournalError, match="different test labels"):
            intervals.intervals({"f1_change": pair}, [{"confusion": first}, {"confusion": other}], [0, 0], 0)


def test_a_class_predicted_in_one_image_of_one_run_has_its_interval():
    # Class 3 is labelled nowhere; where its only image is not drawn, its IoU is undefined and the replicate is left out.
    counts = matrices()
    counts[1:, :, 3] = 0
    assert found({"iou_3_cloud_native": 0.0}, counts) == {"iou_3_cloud_native": (0.0, 0.0)}


def test_twenty_classes_and_a_thousand_images_take_less_than_two_seconds():
    generator = np.random.default_rng(0)
    counts = generator.integers(0, 3000, (1000, 20, 20)).astype(np.uint32)
    values = segmentation_scores(counts, [f"class {k}" for k in range(20)], no_data=0)
    assert len(values) == 12 + 20
    start = time.process_time()
    assert len(found(values, counts, no_data=np.array(0))) == 32
    assert time.process_time() - start < 2


def test_the_table_shows_the_interval_of_a_dense_run(tmp_path: Path, record):
    journal, counts = Journal(tmp_path), matrices()
    values = segmentation_scores(counts, NAMES)
    key = "miou_macro_present_native"
    run = record(dataset="m-cashew", task="segmentation", metrics=values, primary=key)
    journal.append(run, {"confusion": counts})
    table = rows(journal, "geobench", [Cell("m-cashew", "segmentation", "ms", primary=True)])
    assert {row.metric for row in table if row.ci_low is not None} == values.keys()
    (row,) = [row for row in table if row.primary]
    assert row.metric == key
    assert (row.ci_low or 1) < row.value < (row.ci_high or 0)
