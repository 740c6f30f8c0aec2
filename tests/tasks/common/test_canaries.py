"""What the canaries say, and that they change nothing but broken pixels."""

from dataclasses import replace

import numpy as np
import pytest
import rasterio

from models.common.spectral import band
from tasks.common.canaries import Canary

RED = replace(band("S2:B04", "red", "dn"), mean=1000.0)


def patches(value: float, spread: float = 50.0) -> np.ndarray:
    return (value + spread * np.random.default_rng(0).standard_normal((4, 1, 8, 8))).astype(np.float32)


def test_an_ordinary_image_passes_unchanged_and_unremarked():
    canary = Canary([RED])
    images = patches(1500)
    assert np.array_equal(canary.watch(images), images)
    assert canary.warnings() == []


def test_non_finite_pixels_are_counted_and_filled_with_the_bands_mean():
    canary = Canary([RED])
    images = patches(1500)
    images[2, 0, 0, 0] = np.nan
    images[2, 0, 0, 1] = np.inf
    watched = canary.watch(images)
    assert watched[2, 0, 0, 0] == watched[2, 0, 0, 1] == 1000
    assert np.array_equal(watched[3], images[3])
    assert canary.warnings() == ["S2:B04: non-finite pixels in 1 of 4 images, filled with the band's mean"]


def test_a_constant_band_is_counted():
    canary = Canary([RED])
    images = patches(1500)
    images[1] = 700
    canary.watch(images)
    assert canary.warnings() == ["S2:B04: constant in 1 of 4 images"]


@pytest.mark.parametrize(
    ("unit", "value", "words"),
    [
        ("dn", 0.15, "looks like reflectance"),
        ("dn", 120.0, "looks like uint8"),
        ("uint8", 3000.0, "leave the range 0..255"),
        ("uint8", 0.5, "looks like fraction"),
        ("fraction", 130.0, "leave the range 0..1"),
        ("reflectance", 2500.0, "leave the range -0.5..4"),
        ("db", 900.0, "leave the range -90..60"),
    ],
)
def test_values_that_contradict_the_unit_are_named(unit: str, value: float, words: str):
    canary = Canary([replace(RED, unit=unit)])
    canary.watch(patches(value, spread=value / 100))
    assert any(words in warning for warning in canary.warnings()), canary.warnings()


def test_counting_goes_on_from_a_saved_state():
    whole, first = Canary([RED]), Canary([RED])
    images = patches(0.2, 0.01)
    images[0] = 5
    whole.watch(images)
    whole.watch(images)
    first.watch(images)
    second = Canary([RED], first.state)
    second.watch(images)
    assert second.warnings() == whole.warnings()
    assert second.state == whole.state


def test_real_eurosat_tiles_in_their_true_unit_raise_no_alarm(shared):
    files = sorted((shared / "data/eurosat_ms").glob("*/*.tif"))[::10]
    names = ["S2:B01", *(f"S2:B0{i}" for i in range(2, 10)), "S2:B10", "S2:B11", "S2:B12", "S2:B8A"]
    right, wrong = (Canary([band(name, name, unit) for name in names]) for unit in ("dn", "uint8"))
    for file in files:
        with rasterio.open(file) as image:
            pixels = image.read()[None]
        right.watch(pixels)
        wrong.watch(pixels)
    assert right.warnings() == []
    assert len(wrong.warnings()) >= 12
