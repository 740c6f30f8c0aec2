"""Segmentation: the score is that of the test split at native size, whatever the model's input size."""

from dataclasses import replace

import numpy as np
import pytest

from models.common.errors import UserError
from tasks import segmentation
from tasks.common.confusion import segmentation_scores
from tasks.switches import Segmentation
from tests.tasks.dense_toy import lakes, scenes, silent

SWITCHES = Segmentation(head="linear", learning_rates=(1e-2,), epochs=10, warmup_epochs=0, batch=4, dropout=0.0)


def evaluated(data, switches=SWITCHES, keep=()):
    toy = scenes(data, switches)
    return segmentation.evaluate(
        *(toy, data.splits["train"], data.splits["val"], data.splits["test"], 0, switches), report=silent, keep=keep
    )


@pytest.mark.parametrize("size", ["native", 16, 64])
def test_every_pixel_of_the_test_labels_is_scored_once_at_native_size(size):
    data = lakes()
    result = evaluated(data, replace(SWITCHES, input_size=size))
    counts = result.samples["confusion"]
    assert counts.shape == (len(data.splits["test"]), 2, 2)
    for image, name in zip(counts, data.splits["test"], strict=True):
        assert image.sum(axis=1).tolist() == np.bincount(data.labels[name].ravel(), minlength=2).tolist()
    expected = segmentation_scores(counts, data.card.classes)
    assert result.metrics == pytest.approx(expected)


def test_bce_on_one_hot_masks_learns_too():
    assert evaluated(lakes(), replace(SWITCHES, loss="bce")).metrics["miou_macro_present_native"] > 0.75


def test_no_data_is_counted_or_left_out_and_the_primary_metric_says_which():
    assert Segmentation().primary(True) == "miou_macro_present_native"
    assert Segmentation(no_data="ignore").primary(True) == "miou_macro_present_native_without_no_data"
    assert Segmentation(no_data="ignore", absent="zero").primary(False) == "miou_macro_zero_native"
    assert Segmentation(average="micro").primary(False) == "iou_micro_native"
    data = lakes(classes=("no data", "ground", "water"), no_data=0)
    for name, label in data.labels.items():
        data.labels[name] = np.where(np.arange(32) < 4, 0, label + 1)
    result = evaluated(data, replace(SWITCHES, no_data="ignore"))
    assert result.samples["confusion"][:, 0].sum() == 0  # its pixels are left out of train and score
    assert result.metrics["miou_macro_present_native_without_no_data"] > 0.75


def test_large_images_are_cut_for_training_and_scored_whole():
    data = lakes(side=48, size=0)
    result = evaluated(data, replace(SWITCHES, tile=32, tile_stride=16), keep=data.splits["test"][:1])
    assert result.samples["confusion"][0].sum() == 48 * 48
    assert result.predictions[data.splits["test"][0]].shape == (48, 48)
    assert result.metrics["miou_macro_present_native"] > 0.75


def test_a_test_split_without_any_label_is_refused():
    data = lakes(ignore=255)
    for name in data.splits["test"]:
        data.labels[name][:] = 255
    with pytest.raises(UserError, match="every pixel of the scored split is ignored"):
        evaluated(data)
