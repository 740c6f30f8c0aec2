"""DEO's views: what is cropped, what is augmented, and that all chance comes from the generator."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import models
from models.common.bands import compile_transform
from models.common.errors import UserError
from models.common.spectral import Band
from models.deo import BANDS, MEAN, STD
from models.pretraining import deo_views
from models.pretraining.deo_recipe import recipe
from models.pretraining.views import normalise

SMALL = {"global_size": 64, "local_size": 32, "local_views": 3}
EUROSAT = (3, 2, 1, 4, 5, 6, 7, 12, 10, 11)  # B04 B03 B02 B05 B06 B07 B08 B8A B11 B12 in a file with B8A last


@pytest.fixture(scope="module")
def tile(shared: Path) -> Tensor:
    """A real Sentinel-2 tile (10, 64, 64) in digital numbers."""
    rasterio = pytest.importorskip("rasterio")
    with rasterio.open(min((shared / "data" / "eurosat_ms").rglob("*.tif"))) as file:
        return torch.from_numpy(file.read().astype(np.float32)[list(EUROSAT)])


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=generator(seed)) * 3000


def back(images: Tensor) -> Tensor:
    """Undo the normalisation: (V, C, S, S) in 0..1 for three bands and digital numbers for the others."""
    bands = images.shape[1]
    return images * torch.tensor(STD[:bands])[:, None, None] + torch.tensor(MEAN[:bands])[:, None, None]


def test_the_same_generator_gives_the_same_views_and_no_other_chance_is_used(tile: Tensor):
    made = recipe(**SMALL)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = deo_views.views(made, {"ms": tile}, generator(5))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    again, other = (deo_views.views(made, {"ms": tile}, generator(seed)) for seed in (5, 6))
    assert {name: tuple(view.shape) for name, view in first.items()} == {
        "global_ms": (2, 10, 64, 64),
        "global_rgb": (2, 3, 64, 64),
        "local_ms": (3, 10, 32, 32),
        "local_rgb": (3, 3, 32, 32),
    }
    for name in first:
        assert torch.equal(first[name], again[name])
        assert not torch.equal(first[name], other[name])
        assert bool(torch.isfinite(first[name]).all())


def test_without_chance_a_view_is_the_image_as_the_adapter_sees_it(tile: Tensor):
    """A crop of everything, no flip, no augmentation: the transform that `run` applies to the same image."""
    made = recipe("base-ms", **SMALL, global_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0), flip=0.0)
    view = deo_views.views(made, {"ms": tile}, generator())["global_ms"][0]
    transform = compile_transform(models.card("deo"), [Band(name, name, "dn") for name in BANDS], input_size="native")
    torch.testing.assert_close(view, transform(tile[None])[0])


def test_heavy_augmentation_stays_in_the_optical_branch_in_the_paper_and_reaches_both_in_the_release(tile: Tensor):
    sample = {"ms": tile}
    plain = deo_views.views(recipe("patch", "paper", **SMALL), sample, generator(3))
    paper = deo_views.views(recipe("rgb-aug", "paper", **SMALL), sample, generator(3))
    released = deo_views.views(recipe("rgb-aug", "released", **SMALL), sample, generator(3))
    assert set(plain) == set(released) == {"global_ms", "local_ms"}
    # The first view is drawn before any augmentation, so that the three agree on its crop.
    assert torch.equal(paper["global_ms"][0], plain["global_ms"][0])
    assert torch.equal(released["global_ms"][0, 3:], plain["global_ms"][0, 3:])
    # Paper and release draw alike all along.
    for kind in ("global", "local"):
        assert torch.equal(paper[f"{kind}_rgb"], released[f"{kind}_ms"][:, :3])
        assert torch.equal(paper[f"{kind}_ms"][:, 3:], released[f"{kind}_ms"][:, 3:])
        assert not torch.allclose(paper[f"{kind}_rgb"], paper[f"{kind}_ms"][:, :3], atol=0.05)


def test_augmented_rgb_stays_in_0_to_1(tile: Tensor):
    made = recipe("full", "released", **SMALL)
    for seed in range(20):
        views = deo_views.views(made, {"ms": tile}, generator(seed))
        for images in views.values():
            rgb = back(images)[:, :3]
            assert rgb.min() >= -1e-5
            assert rgb.max() <= 1 + 1e-5


def test_base_ms_flips_and_crops_alone_so_that_every_view_is_an_affine_image_of_the_bands():
    """A linear ramp stays linear: values change along one direction, by the crop's share of the ramp."""
    ramp = torch.arange(64.0).expand(10, 64, 64) * 40 + 100
    views = deo_views.views(recipe("base-ms", **SMALL), {"ms": ramp}, generator())
    inner = back(views["global_ms"])[:, 3:, 8:-8, 8:-8]
    assert (inner - inner[:, :, :1]).abs().max() < 1  # nothing changes from row to row
    steps = inner.diff(dim=3)
    assert steps.std(dim=3).max() < 0.2
    slopes = steps.mean(dim=(1, 2, 3)).abs() / 40  # source pixels per view pixel: the side of the crop over the view
    low, high = (0.4 * 3 / 4) ** 0.5, 1.0
    assert ((slopes > low - 0.02) & (slopes < high + 0.02)).all()


def test_high_resolution_rgb_takes_the_place_of_the_optical_bands_and_stays_finer():
    coarse = noise(10, 16, 16)
    checks = (torch.arange(64)[:, None] + torch.arange(64)).remainder(2).float().expand(3, 64, 64)
    sample = {"ms": coarse, "rgb": checks}
    whole = {"global_scale": (1.0, 1.0), "crop_ratio": (1.0, 1.0), "flip": 0.0, "rgb_aug": False}
    on = deo_views.views(recipe("full", **SMALL, **whole), sample, generator())["global_ms"]
    off = deo_views.views(recipe("rgb-aug", **SMALL, **whole), sample, generator())["global_ms"]
    assert torch.allclose(back(on)[0, :3], checks, atol=1e-5)
    assert torch.equal(on[:, 3:], off[:, 3:])
    without = deo_views.views(recipe("full", **SMALL, **whole), {"ms": coarse}, generator())["global_ms"]
    assert torch.equal(off, without)


def test_a_crop_of_fine_rgb_lies_on_the_ground_of_the_crop_of_the_bands():
    """Both images show the same ramp, one in four times the detail: the crops must agree."""
    ramp = torch.arange(32.0) + 0.5
    fine = (torch.arange(128.0) + 0.5) / 4
    sample = {"ms": ramp.expand(10, 32, 32) * 50, "rgb": fine.expand(3, 128, 128) / 32}
    made = recipe("full", **SMALL, rgb_aug=False)
    for seed in range(5):
        inner = deo_views.crop(made, sample, 64, (0.05, 0.4), generator(seed))[:, 8:-8, 8:-8]
        torch.testing.assert_close(inner[0] * 32, inner[3] / 50, atol=0.15, rtol=0)


def test_bands_as_stored_are_blue_green_red(tile: Tensor):
    first, stored = (
        deo_views.views(recipe("base-ms", bands=order, **SMALL), {"ms": tile}, generator())["global_ms"]
        for order in ("rgb_first", "as_stored")
    )
    torch.testing.assert_close(back(stored)[:, [2, 1, 0]], back(first)[:, :3])
    assert torch.equal(stored[:, 3:], first[:, 3:])


def test_solarising_turns_values_above_the_drawn_threshold():
    values = torch.linspace(0, 1, 101).expand(3, 1, 101)
    for seed in range(5):
        drawn = generator(seed)
        torch.rand((), generator=drawn)
        threshold, addition = torch.rand((), generator=drawn).item(), 0.2 * torch.rand((), generator=drawn).item() - 0.1
        found = deo_views.solarise(values, 1.0, generator(seed))
        shifted = (values + addition).clamp(0, 1)
        expected = torch.where(shifted < threshold, shifted, 1 - shifted)
        torch.testing.assert_close(found, expected)
    assert torch.equal(deo_views.solarise(values, 0.0, generator()), values)


def test_only_the_other_global_views_are_solarised_and_the_first_is_always_blurred():
    """Without jitter and grey: blur lowers the variation of noise, solarising turns the brightest value dark."""
    made = recipe("full", **SMALL, jitter=0.0, gray=0.0, solarise=1.0, blur=(1.0, 0.0, 0.0), blur_sigma=(2.0, 2.0))
    rgb = torch.rand(3, 64, 64, generator=generator())
    first, second, local = (deo_views.augment(made, rgb, number, generator(1)) for number in (0, 1, 2))
    assert first.std() < 0.3 * rgb.std()
    assert not torch.allclose(second, rgb, atol=0.05)
    assert torch.equal(local, rgb)


def test_the_blur_is_torchvisions_with_a_kernel_of_23():
    from torchvision.transforms.functional import gaussian_blur

    made = recipe("full", jitter=0.0, gray=0.0, blur=(1.0, 1.0, 1.0), blur_sigma=(1.3, 1.3))
    rgb = torch.rand(3, 48, 48, generator=generator())
    found = deo_views.augment(made, rgb, 0, generator())
    torch.testing.assert_close(found, gaussian_blur(rgb, [23, 23], [1.3, 1.3]), rtol=1e-4, atol=1e-5)


def test_an_image_without_light_stays_finite_and_one_of_other_bands_is_refused():
    views = deo_views.views(recipe("full", **SMALL), {"ms": torch.zeros(10, 20, 30)}, generator())
    assert all(bool(torch.isfinite(images).all()) for images in views.values())
    with pytest.raises(UserError, match=r"10 bands .* got an image of 13"):
        deo_views.views(recipe("full", **SMALL), {"ms": torch.zeros(13, 20, 30)}, generator())


def test_normalising_is_the_adapters():
    image = noise(10, 4, 4)
    assert torch.allclose(back(normalise(image, MEAN, STD)[None])[0], image, atol=1e-2)
