"""The pyramid on maps small enough to work out by hand, and which factor each backbone of the field gets."""

import pytest
import torch

from models.common.pyramid import factors, pyramid, resize

RAMP = torch.tensor([[[[0.0, 2.0], [4.0, 6.0]]]])  # 4 row + 2 column


@pytest.mark.parametrize(
    ("strides", "expected"),
    [
        ((16, 16, 16, 16), (4, 2, 1, 0.5)),  # ViT with patches of 16 pixels, as DEO has it
        ((14, 14, 14, 14), (4, 2, 1, 0.5)),  # patches of 14
        ((8, 8, 8, 8), (2, 1, 0.5, 0.25)),  # patches of 8
        ((4, 8, 16, 32), (1, 1, 1, 1)),  # Swin, ResNet
        ((8, 16, 32, 64), (2, 2, 2, 2)),  # SatDiFuser
    ],
)
def test_a_factor_is_stride_over_target_rounded_to_a_power_of_two(strides, expected):
    assert factors(strides) == expected


def test_a_vit_of_14_pixel_patches_at_224_gives_64_32_16_and_8():
    maps = pyramid([torch.zeros(1, 3, 16, 16)] * 4, (14,) * 4, align_corners=True)
    assert [tuple(one.shape) for one in maps] == [(1, 3, side, side) for side in (64, 32, 16, 8)]


def test_aligned_corners_keep_the_corners_and_rise_evenly_between():
    doubled = pyramid([RAMP] * 4, (16,) * 4, align_corners=True)[1][0, 0]
    # 4 rows over what were 2: row 0, 1/3, 2/3 and 1 of the way, the same for columns
    steps = torch.tensor([0.0, 1, 2, 3]) / 3
    torch.testing.assert_close(doubled, 4 * steps[:, None] + 2 * steps)


def test_unaligned_corners_sample_at_pixel_centres_and_repeat_the_border():
    doubled = pyramid([RAMP] * 4, (16,) * 4, align_corners=False)[1][0, 0]
    # centres at (i + 0.5) / 2 - 0.5 = -0.25, 0.25, 0.75, 1.25, held within 0..1
    steps = torch.tensor([0.0, 0.25, 0.75, 1.0])
    torch.testing.assert_close(doubled, 4 * steps[:, None] + 2 * steps)


@pytest.mark.parametrize(("align_corners", "expected"), [(False, 3.0), (True, 0.0)])
def test_halving_two_pixels_gives_their_mean_or_the_first_corner(align_corners, expected):
    halved = pyramid([RAMP] * 4, (16,) * 4, align_corners)[3]
    assert halved.tolist() == [[[[expected]]]]


def test_maps_of_a_hierarchical_backbone_are_not_touched():
    stages = [torch.zeros(2, 3, side, side + 1) for side in (56, 28, 14, 7)]
    assert all(one is stage for one, stage in zip(pyramid(stages, (4, 8, 16, 32), True), stages, strict=True))


def test_no_map_becomes_smaller_than_one_pixel_and_odd_sizes_are_rounded_down():
    stages = [torch.ones(1, 1, 1, 5)] * 4
    assert [tuple(one.shape[2:]) for one in pyramid(stages, (8,) * 4, False)] == [(2, 10), (1, 5), (1, 2), (1, 1)]


def test_three_maps_are_refused():
    with pytest.raises(ValueError, match=r"zip\(\)"):
        pyramid([RAMP] * 3, (16,) * 3, False)


def test_resizing_to_the_same_size_returns_the_same_tensor():
    assert resize(RAMP, (2, 2)) is RAMP
