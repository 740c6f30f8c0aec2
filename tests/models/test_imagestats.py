"""The control model: its numbers by hand, on one small image and at the edges."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

import models
from models.common.backbone import Batch, Features


def features(image: Tensor, label: str = "imagestats") -> Features:
    return models.build(label, "random")(Batch({"optical": image}, "any"))


def test_the_vector_holds_means_then_deviations_then_each_quantile():
    image = torch.stack([torch.arange(1.0, 6.0).repeat(5, 1), torch.full((5, 5), 7.0)])[None]
    vector = features(image).pooled
    # Columns 1..5, five times each: mean 3, deviation sqrt(2), and the quantiles of 25 sorted numbers.
    quantiles = [np.quantile(np.repeat(np.arange(1.0, 6.0), 5), q) for q in (0.05, 0.25, 0.5, 0.75, 0.95)]
    expected = [3, 7, math.sqrt(2), 0] + [value for q in quantiles for value in (q, 7)]
    torch.testing.assert_close(vector, torch.tensor([expected], dtype=torch.float32))
    assert quantiles[1:4] == [2, 3, 4]


def test_the_short_variant_holds_means_and_deviations_alone():
    image = torch.tensor([[[[0.0, 2.0], [4.0, 6.0]]]])
    torch.testing.assert_close(features(image, "imagestats:mean_std").pooled, torch.tensor([[3.0, math.sqrt(5)]]))


def test_maps_hold_local_means_and_deviations():
    image = torch.zeros(1, 1, 8, 8)
    image[..., :4, 4:] = torch.tensor([1.0, 3.0, 1.0, 3.0])
    stage = features(image).stages[0]
    assert stage.shape == (1, 2, 2, 2)
    torch.testing.assert_close(stage[0, 0], torch.tensor([[0.0, 2.0], [0.0, 0.0]]))
    torch.testing.assert_close(stage[0, 1], torch.tensor([[0.0, 1.0], [0.0, 0.0]]))


@pytest.mark.parametrize("size", [(1, 1), (5, 9), (33, 64)])
def test_windows_at_the_edge_count_the_pixels_they_hold(size: tuple[int, int]):
    image = torch.randn(1, 2, *size, generator=torch.Generator().manual_seed(0))
    for stride, stage in zip((4, 8, 16, 32), features(image).stages, strict=True):
        rows, columns = -(-size[0] // stride), -(-size[1] // stride)
        assert stage.shape == (1, 4, rows, columns)
        corner = image[0, 1, (rows - 1) * stride :, (columns - 1) * stride :]
        torch.testing.assert_close(stage[0, 1, -1, -1], corner.mean())
        torch.testing.assert_close(stage[0, 3, -1, -1], corner.std(correction=0))


def test_a_small_deviation_of_large_numbers_is_not_lost():
    """Digital numbers with noise of 0.5 around 20000: squares would need more digits than float32 has."""
    image = 20_000 + (torch.arange(64 * 64).reshape(1, 1, 64, 64) % 2).float()
    result = features(image)
    for tensor in (*(stage[:, 1] for stage in result.stages), result.pooled[:, 1]):
        torch.testing.assert_close(tensor, torch.full_like(tensor, 0.5))


@pytest.mark.parametrize("bands", [1, 3, 13])
def test_any_number_of_bands_will_do(bands: int):
    result = features(torch.rand(2, bands, 40, 24))
    assert result.pooled.shape == (2, 7 * bands)
    assert {stage.shape[1] for stage in result.stages} == {2 * bands}


def test_it_needs_no_weights():
    model = models.build("imagestats", "official")
    assert not model.state_dict()
