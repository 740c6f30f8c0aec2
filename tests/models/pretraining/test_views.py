"""The random views that both methods are made of, against PIL and torchvision, which the authors use."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter, ImageOps
from torch import Tensor
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms.v2 import functional as vision

from models.pretraining import views


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def photo(shared: Path) -> Image.Image:
    with Image.open(next((shared / "data" / "eurosat_rgb" / "Industrial").glob("*.jpg"))) as image:
        return image.convert("RGB")


def tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1) / 255


def test_resizing_is_pils_within_its_rounding(photo: Image.Image):
    for size, mode, theirs in ((24, "bicubic", Image.Resampling.BICUBIC), (96, "bilinear", Image.Resampling.BILINEAR)):
        found = views.resize(tensor(photo), (size, size), mode).clamp(0, 1)
        assert (
            found - tensor(photo.resize((size, size), theirs))
        ).abs().max() < 1.6 / 255  # PIL rounds after each axis


def test_a_crop_is_the_part_of_the_image_that_its_box_says(photo: Image.Image):
    image = tensor(photo)
    top, left, height, width = views.crop_box(64, 64, (0.05, 0.4), (3 / 4, 4 / 3), generator(3))
    found = views.random_resized_crop(image, 32, (0.05, 0.4), generator(3))
    theirs = photo.crop((left, top, left + width, top + height)).resize((32, 32), Image.Resampling.BICUBIC)
    assert (found.clamp(0, 1) - tensor(theirs)).abs().max() < 1.6 / 255


def test_boxes_spread_over_area_shape_and_place_as_torchvisions():
    scale, ratio, draws = (0.05, 0.4), (3 / 4, 4 / 3), 2000
    source = generator()
    ours = torch.tensor([views.crop_box(50, 80, scale, ratio, source) for _ in range(draws)], dtype=torch.float64)
    torch.manual_seed(0)
    blank = torch.zeros(3, 50, 80)
    theirs = torch.tensor(
        [RandomResizedCrop.get_params(blank, list(scale), list(ratio)) for _ in range(draws)], dtype=torch.float64
    )
    assert ours[:, 0].min() >= 0
    assert (ours[:, 0] + ours[:, 2]).max() <= 50
    assert (ours[:, 1] + ours[:, 3]).max() <= 80
    # Four standard errors of the difference of two means.
    bound = 4 * (ours.var(dim=0) / draws + theirs.var(dim=0) / draws).sqrt()
    assert ((ours.mean(dim=0) - theirs.mean(dim=0)).abs() < bound).all()


def test_a_shape_that_never_fits_falls_back_to_the_middle():
    assert views.crop_box(10, 100, (1.0, 1.0), (3 / 4, 4 / 3), generator()) == (0, 43, 10, 13)
    assert views.crop_box(100, 10, (1.0, 1.0), (3 / 4, 4 / 3), generator()) == (43, 0, 13, 10)
    assert views.crop_box(7, 7, (1.0, 1.0), (1.0, 1.0), generator()) == (0, 0, 7, 7)


def test_probabilities_are_kept_and_one_and_zero_are_certain():
    source = generator()
    assert 240 < sum(views.chance(0.3, source) for _ in range(1000)) < 360
    assert all(views.chance(1.0, source) and not views.chance(0.0, source) for _ in range(100))
    image = torch.rand(3, 4, 5)
    assert torch.equal(views.horizontal_flip(image, 1.0, source), image.flip(2))
    assert views.horizontal_flip(image, 0.0, source) is image


def test_jitter_draws_its_four_factors_from_their_ranges_in_any_order():
    image = torch.rand(3, 6, 6, generator=generator(1)) * 0.5 + 0.2
    assert views.colour_jitter(image, (0.4, 0.4, 0.2, 0.1), 0.0, generator()) is image
    bright = [views.colour_jitter(image, (0.4, 0, 0, 0), 1.0, generator(seed)) for seed in range(60)]
    factors = torch.tensor([(one.mean() / image.mean()).item() for one in bright])
    assert factors.min() > 0.599
    assert factors.max() < 1.401
    assert factors.max() - factors.min() > 0.6
    assert factors.mean() == pytest.approx(1.0, abs=0.12)
    first = views.colour_jitter(image, (0.4, 0.4, 0.2, 0.1), 1.0, generator(2))
    assert not torch.equal(first, views.colour_jitter(image, (0.4, 0.4, 0.2, 0.1), 1.0, generator(3)))
    for seed in range(20):
        found = views.colour_jitter(torch.rand(3, 6, 6), (0.4, 0.4, 0.2, 0.1), 1.0, generator(seed))
        assert 0 <= found.min() <= found.max() <= 1


def test_one_factor_at_a_time_is_torchvisions():
    """The order of the four is drawn first, then their factors in order, so that a lone one can be told beforehand."""
    image = torch.rand(3, 6, 6, generator=generator(1))
    functions = [vision.adjust_brightness, vision.adjust_contrast, vision.adjust_saturation, vision.adjust_hue]
    for which, function in enumerate(functions):
        strengths = [0.0] * 4
        strengths[which] = 0.3
        source = generator(5)
        views.chance(1.0, source)
        torch.randperm(4, generator=source)
        factors = [views.uniform(1 - strength, 1 + strength, source) for strength in strengths[:3]]
        factor = factors[which] if which < 3 else views.uniform(-0.3, 0.3, source)
        torch.testing.assert_close(
            views.colour_jitter(image, strengths, 1.0, generator(5)), function(image, factor), atol=2e-6, rtol=0
        )


def test_grey_is_pils_luma_in_three_bands(photo: Image.Image):
    found = views.grey(tensor(photo), 1.0, generator())
    theirs = torch.from_numpy(np.asarray(photo.convert("L")).copy()) / 255
    assert (found - theirs).abs().max() < 1.01 / 255
    assert torch.equal(found[0], found[2])


@pytest.mark.parametrize("sigma", [0.5, 2.0])
def test_blur_is_pils_gaussian_which_is_made_of_three_boxes(photo: Image.Image, sigma: float):
    found = views.blur(tensor(photo), 1.0, generator(), (sigma, sigma))
    theirs = tensor(photo.filter(ImageFilter.GaussianBlur(sigma)))
    assert (found - theirs).abs().max() < 0.05
    assert (found - theirs).abs().mean() < 0.004
    assert found.mean() == pytest.approx(tensor(photo).mean().item(), abs=0.004)


def test_a_point_is_blurred_to_the_gaussian_of_its_sigma_however_small_the_image():
    point = torch.zeros(1, 21, 21)
    point[0, 10, 10] = 1
    offsets = torch.arange(-10, 11)
    bell = torch.exp(-0.5 * (offsets / 1.5) ** 2)
    bell = bell / bell.sum()
    torch.testing.assert_close(
        views.blur(point, 1.0, generator(), (1.5, 1.5))[0], bell[:, None] * bell, atol=2e-5, rtol=0
    )
    assert torch.isfinite(views.blur(torch.rand(3, 2, 2), 1.0, generator(), (2.0, 2.0))).all()


def test_solarising_is_pils(photo: Image.Image):
    torch.testing.assert_close(views.solarise(tensor(photo), 1.0, generator()), tensor(ImageOps.solarize(photo)))


def test_a_view_follows_from_its_generator_and_keeps_the_type_and_bands_of_the_image():
    image = torch.rand(10, 30, 40, dtype=torch.float64)
    found = [views.blur(views.random_resized_crop(image, 8, (0.4, 1.0), generator(7)), 1.0, generator(8)) for _ in "ab"]
    assert torch.equal(*found)
    assert found[0].dtype == torch.float64
    assert found[0].shape == (10, 8, 8)
