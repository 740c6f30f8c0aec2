"""The views of X-STARS: which sensor, which sizes, what is normalised how often, and what a generator decides."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from models.common.errors import UserError
from models.pretraining.xstars_recipe import XstarsRecipe, recipe
from models.pretraining.xstars_views import scene, xstars_views

SMALL = {"input_size": 32, "local_size": 16, "local_crops": 3}


def sample(*sensors: str, seed: int = 0) -> dict[str, Tensor]:
    """Images of different sizes, each in its own range of values, so that one knows a sensor by its pixels."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: (torch.rand(3, 40 + 9 * number, 30 + 5 * number, generator=generator) + number) / 4
        for number, name in enumerate(sensors)
    }


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def plain(**changes: object) -> XstarsRecipe:
    """Crops without colour, so that their values still tell the sensor."""
    return recipe("s2-ls", **SMALL, jitter_probability=0.0, grey=0.0, solarise=0.0, **changes)


def test_shapes_and_names_are_those_that_the_method_takes():
    found = xstars_views(recipe("table4-s2-ls-s6", **SMALL), sample("sentinel", "landsat", "spot"), generator())
    assert {name: tuple(view.shape) for name, view in found.items()} == {
        "global": (2, 3, 32, 32),
        "local": (3, 3, 16, 16),
        "scene.sentinel": (3, 32, 32),
        "scene.landsat": (3, 32, 32),
        "scene.spot": (3, 32, 32),
    }
    assert all(bool(torch.isfinite(view).all()) for view in found.values())
    without = xstars_views(recipe("s2-ls", **SMALL | {"local_crops": 0}, msad="off"), sample("landsat"), generator())
    assert list(without) == ["global"]


def test_the_generator_decides_everything_and_the_global_one_nothing():
    images = sample("sentinel", "landsat")
    settings = recipe("s2-ls", **SMALL)
    torch.manual_seed(1)
    first = xstars_views(settings, images, generator(5))
    torch.manual_seed(2)
    again, other = xstars_views(settings, images, generator(5)), xstars_views(settings, images, generator(6))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["global"], other["global"])
    assert not torch.equal(first["local"], other["local"])
    assert torch.equal(first["scene.sentinel"], other["scene.sentinel"])
    assert not torch.equal(first["local"][0], first["local"][1])


def drawn(settings: XstarsRecipe, images: dict[str, Tensor], seed: int) -> str:
    """The sensor whose range the crops lie in (sensor n has values in n/4 .. (n + 1)/4)."""
    statistics = settings.joint()
    crops = xstars_views(settings, images, generator(seed))["global"]
    mean = crops * torch.tensor(statistics.std)[:, None, None] + torch.tensor(statistics.mean)[:, None, None]
    return list(images)[int(mean.mean() * 4)]


def test_crops_come_from_every_sensor_alike_and_all_of_one_sample_from_one():
    images = sample("sentinel", "landsat")
    counts = [drawn(plain(), images, seed) for seed in range(60)]
    assert 18 < counts.count("sentinel") < 42
    statistics = plain().joint()
    for seed in range(10):
        found = xstars_views(plain(), images, generator(seed))
        views = [*found["global"], *found["local"]]
        means = [float(view[0].mean()) * statistics.std[0] + statistics.mean[0] for view in views]
        assert len({int(mean * 4) for mean in means}) == 1


def test_continual_crops_come_from_the_target_alone():
    settings = plain(mode="continual", source="landsat", target="sentinel")
    images = sample("sentinel", "landsat")
    assert {drawn(settings, images, seed) for seed in range(20)} == {"sentinel"}


def test_a_scene_is_the_whole_image_resized_as_pil_does_it(shared: Path):
    path = next((shared / "data" / "eurosat_rgb" / "Residential").glob("*.jpg"))
    with Image.open(path) as image:
        pixels = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1) / 255
        theirs = np.asarray(image.resize((100, 100), Image.Resampling.BILINEAR)) / 255
    settings = recipe("s2-ls", input_size=100)
    found = scene(settings, pixels, "sentinel")
    mean, std = (np.array(values) for values in settings.sensor("sentinel")[1:3])
    assert np.abs(found.permute(1, 2, 0).numpy() * std + mean - theirs).max() < 1.01 / 255


def test_scenes_are_normalised_once_or_twice():
    images = sample("sentinel", "landsat")
    once, twice = plain(), plain(scene_normalisation="twice")
    own, joint = once.sensor("landsat"), once.joint()
    bare = scene(once, images["landsat"], "landsat")[0] * own.std[0] + own.mean[0]
    expected = ((bare - joint.mean[0]) / joint.std[0] - own.mean[0]) / own.std[0]
    torch.testing.assert_close(scene(twice, images["landsat"], "landsat")[0], expected)


def test_crops_take_joint_statistics_or_those_of_their_sensor():
    images = {"sentinel": sample("sentinel")["sentinel"]}
    joint, own = (plain(msad="off", crop_statistics=which) for which in ("joint", "sensor"))
    first, second = (xstars_views(settings, images, generator())["local"] for settings in (joint, own))
    statistics, sensor = joint.joint(), own.sensor("sentinel")
    bare = [
        crops * torch.tensor(which.std)[:, None, None] + torch.tensor(which.mean)[:, None, None]
        for crops, which in ((first, statistics), (second, sensor))
    ]
    torch.testing.assert_close(*bare)
    assert not torch.allclose(first, second)


def test_crops_stay_in_range_before_they_are_normalised():
    """Bicubic interpolation overshoots at edges; the released code works on 8-bit images, which cannot."""
    image = {"sentinel": (torch.rand(3, 40, 40) > 0.5).float()}
    settings = recipe("s2-ls", **SMALL, msad="off")
    statistics = settings.joint()
    for seed in range(10):
        for crops in xstars_views(settings, image, generator(seed)).values():
            bare = crops * torch.tensor(statistics.std)[:, None, None] + torch.tensor(statistics.mean)[:, None, None]
            assert bare.min() > -1e-5
            assert bare.max() < 1 + 1e-5


BAD = {
    "a missing sensor": (lambda: sample("sentinel"), "an image of landsat is missing in a sample that has sentinel"),
    "digital numbers": (
        lambda: {**sample("sentinel"), "landsat": torch.full((3, 9, 9), 255.0)},
        r"RGB in 0..1, and an image of landsat has 255..255",
    ),
    "nothing but NaN": (
        lambda: {**sample("sentinel"), "landsat": torch.full((3, 9, 9), float("nan"))},
        "an image of landsat has nan",
    ),
    "whole numbers": (
        lambda: {**sample("sentinel"), "landsat": torch.ones(3, 9, 9, dtype=torch.uint8)},
        r"float images \(3, H, W\), and that of landsat is torch.uint8 \(3, 9, 9\)",
    ),
    "four bands": (
        lambda: {**sample("sentinel"), "landsat": torch.ones(4, 9, 9)},
        r"landsat is torch.float32 \(4, 9, 9\)",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_an_image_that_is_no_rgb_of_all_sensors_is_refused(what: str):
    images, sentence = BAD[what]
    with pytest.raises(UserError, match=sentence):
        xstars_views(recipe("s2-ls", **SMALL), images(), generator())


def test_without_msad_a_sample_needs_one_of_the_sensors():
    settings = recipe("s2-ls", **SMALL, msad="off")
    assert "global" in xstars_views(settings, sample("landsat"), generator())
    with pytest.raises(UserError, match="missing in a sample that has bdortho"):
        xstars_views(settings, sample("bdortho"), generator())
