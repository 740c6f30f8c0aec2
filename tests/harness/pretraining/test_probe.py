"""The probe: effective rank by hand, labelled images in a method's units, and which sets it refuses."""

from math import exp, log
from pathlib import Path

import numpy as np
import pytest
import torch

from harness.pretraining.plan import columns, points, span
from harness.pretraining.probe import LabelledSet, effective_rank, spread
from models.common.errors import UserError
from tasks.data import catalogue


def test_the_effective_rank_of_equal_directions_is_their_number():
    features = torch.cat([torch.eye(4), -torch.eye(4)]) + 100
    assert effective_rank(features) == pytest.approx(4)


def test_the_effective_rank_of_two_directions_is_the_entropy_of_their_shares():
    # Singular values of [[3, 0], [-3, 0], [0, 1], [0, -1]]: 3 and 1 times the root of 2, shares 3/4 and 1/4.
    features = torch.tensor([[3.0, 0.0], [-3.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    assert effective_rank(features) == pytest.approx(exp(-(0.75 * log(0.75) + 0.25 * log(0.25))))


def test_the_effective_rank_of_a_line_is_one_and_of_a_point_nothing():
    assert effective_rank(torch.arange(5.0)[:, None] * torch.ones(1, 3)) == pytest.approx(1)
    assert effective_rank(torch.ones(5, 3)) == 0


def opened(root: Path, name: str):
    card = catalogue.card(name)
    return catalogue.open_dataset(card, root / card.location, "corrected")


def test_images_come_in_digital_numbers_or_in_fractions(demo_data: Path):
    dataset = opened(demo_data, "demo-eurosat")
    ms, rgb = (LabelledSet(dataset, multispectral, 0) for multispectral in (True, False))
    name = ms.names["test"][0]
    stored = dataset.read(name, ["S2:B04", "S2:B03", "S2:B02"]).astype(np.float32)
    assert torch.equal(ms.images["test"][0][:3], torch.from_numpy(stored))
    assert ms.images["test"][0].shape == (10, 64, 64)
    assert torch.allclose(rgb.images["test"][0], torch.from_numpy(stored / 10000).clamp(0, 1))


def test_perfect_features_score_one(demo_data: Path):
    dataset = opened(demo_data, "demo-eurosat")
    labelled = LabelledSet(dataset, True, 0)
    labels = {
        image.sum().item(): dataset.label(name)
        for split in ("train", "test")
        for image, name in zip(labelled.images[split], labelled.names[split], strict=True)
    }
    scores = labelled.score(lambda images: torch.stack([torch.eye(10)[labels[image.sum().item()]] for image in images]))
    assert scores["accuracy_mean_weighted"] > 0.9  # with k = 50 other classes have a voice too
    assert scores["effective_rank"] > 8


def test_a_set_of_masks_is_refused(demo_data: Path):
    with pytest.raises(UserError, match="has masks, no classes"):
        LabelledSet(opened(demo_data, "demo-cashew"), True, 0)


def test_names_are_spread_over_a_split():
    assert spread([str(i) for i in range(10)], 4) == ["0", "3", "6", "9"]
    assert spread(["a"], 4) == ["a"]


def test_the_plans_words():
    assert points(1000) == [0, 250, 500, 749, 999]
    assert points(2) == [0, 1]
    assert (span(59), span(600), span(9000), span(200000)) == ("59 s", "10.0 min", "2.5 h", "2.3 days")
    assert columns({"a": 1, "b": (2, 3)}) == ["a=1  b=2,3"]
