"""The `folder` reader's pairs of dates, its channels that are never read, declared absence, and splits by name."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import rasterio

from models.common.errors import UserError
from tasks.data import folder
from tasks.data.dataset import usable
from tasks.data.folder import FolderDataset

PAIRS = """
name = "pairs"
layout = "before-after-label"
before = "A"
after = "B"
label = "label"
mask_values = [0, 255]
bands = ["RGB:red", "RGB:green", "RGB:blue"]
unit = "uint8"
split = {rule = "every-nth", test = 3}
"""
SKIPPING = """
name = "skipping"
layout = "image-mask"
images = "images"
masks = "masks"
classes = ["land", "water"]
bands = ["S2:B02", "-", "S2:B04", "-"]
unit = "dn"
split = {rule = "every-nth", test = 2}
"""


def save(path: Path, image: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    size = {"count": image.shape[0], "height": image.shape[1], "width": image.shape[2], "dtype": image.dtype}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with rasterio.open(path, "w", driver="PNG" if path.suffix == ".png" else "GTiff", **size) as target:
            target.write(image)
    return path


def image(value: int, channels: int = 3, size: int = 8, dtype: type = np.uint8) -> np.ndarray:
    return np.full((channels, size, size), value, dtype=dtype)


def pairs(root: Path, text: str = PAIRS) -> Path:
    """Six pairs of 8 x 8: before holds 10 + n, after 100 + n, and the lower half is change."""
    for number in range(6):
        label = image(0, channels=1)
        label[:, 4:] = 255
        save(root / "A" / f"p{number}.png", image(10 + number))
        save(root / "B" / f"p{number}.png", image(100 + number))
        save(root / "label" / f"p{number}.png", label)
    return describe(root, text)


def skipping(root: Path, text: str = SKIPPING) -> Path:
    """Four images of four channels that hold 1, 2, 3 and 4 (int16), with masks."""
    for number in range(4):
        stacked = np.concatenate([image(value, 1, dtype=np.int16) for value in (1, 2, 3, 4)])
        save(root / "images" / f"t{number}.tif", stacked)
        save(root / "masks" / f"t{number}.png", image(number % 2, channels=1))
    return describe(root, text)


def describe(root: Path, text: str) -> Path:
    path = root / "set.toml"
    path.write_text(text)
    return path


def open_at(path: Path) -> FolderDataset:
    return folder.open_dataset(folder.card(path), path)


def test_a_pair_is_read_before_then_after_and_its_label_is_the_change(tmp_path):
    data = open_at(pairs(tmp_path))
    assert data.card.label == "change"
    assert data.card.classes == ("no change", "change")
    assert data.splits["test"] == ("A/p2.png", "A/p5.png")
    found = data.read("A/p2.png", ["RGB:blue", "RGB:red"])
    assert found.shape == (2, 2, 8, 8)
    assert found.dtype == np.uint8
    assert [np.unique(date).tolist() for date in found] == [[12], [102]]
    label = data.label("A/p2.png")
    assert label.tolist() == [[0] * 8] * 4 + [[1] * 8] * 4
    assert label.dtype == np.int64


def test_statistics_are_over_both_dates(tmp_path):
    data = open_at(pairs(tmp_path))
    values = [value + number for number in (0, 1, 3, 4) for value in (10, 100)]  # train is p0, p1, p3, p4
    assert [band.mean for band in data.bands] == [pytest.approx(np.mean(values))] * 3
    assert [band.std for band in data.bands] == [pytest.approx(np.std(values))] * 3


def test_dates_and_labels_pair_by_what_the_star_stands_for(tmp_path):
    save(tmp_path / "x_2017.tif", image(1))
    save(tmp_path / "x_2019.tif", image(2))
    save(tmp_path / "y_2017.tif", image(3))
    save(tmp_path / "y_2019.tif", image(4))
    for name in "xy":
        save(tmp_path / "gt" / f"{name}.png", image(0, channels=1))
    text = PAIRS.replace('"A"', '"*_2017.tif"').replace('"B"', '"*_2019.tif"').replace('"label"', '"gt/*.png"')
    text = text.replace("mask_values = [0, 255]", "").replace("test = 3", "test = 2")
    data = open_at(describe(tmp_path, text))
    assert data.splits == {"train": ("x_2017.tif",), "val": (), "test": ("y_2017.tif",)}
    assert data.read("y_2017.tif", ["RGB:red"])[:, 0, 0, 0].tolist() == [3, 4]
    assert data.label("x_2017.tif").max() == 0


def after_is_smaller(root: Path) -> None:
    save(root / "B" / "p3.png", image(1, size=6))


def label_is_smaller(root: Path) -> None:
    save(root / "label" / "p3.png", image(0, channels=1, size=6))


def label_in_colour(root: Path) -> None:
    save(root / "label" / "p3.png", image(0))


def after_is_gone(root: Path) -> None:
    (root / "B" / "p3.png").unlink()


def label_is_gone(root: Path) -> None:
    (root / "label" / "p3.png").unlink()


def after_is_sixteen_bit(root: Path) -> None:
    save(root / "B" / "p3.png", image(1, dtype=np.uint16))


def nothing(root: Path) -> None:
    pass


@pytest.mark.parametrize(
    ("damage", "old", "new", "message"),
    [
        (after_is_smaller, "", "", r"B/p3\.png is 6x6 where the earlier date, p3\.png, is 8x8"),
        (label_is_smaller, "", "", r"label/p3\.png has 1 band\(s\) of 6x6; a mask is one band of its image's 8x8"),
        (label_in_colour, "", "", r"label/p3\.png has 3 band\(s\) of 8x8"),
        (after_is_gone, "", "", r"A/p3\.png has no later date .*B/p3\.png"),
        (label_is_gone, "", "", r"A/p3\.png has no label .*label/p3\.png"),
        (after_is_sixteen_bit, "", "", r"B/p3\.png holds uint16 where the images before it hold uint8"),
        (nothing, 'after = "B"', "", "lacks `after`"),
        (nothing, 'after = "B"', 'after = "later"', "the folder .*later is missing"),
        (nothing, 'after = "B"', 'after = "B/*.png"', "`before` and `after` and `label` are folders, or patterns"),
        (nothing, 'after = "B"', 'after = "/B"', "`after` is a path below `root`"),
        (nothing, "unit", 'classes = ["a", "b", "c"]\nmask_values = [0, 1, 2]\nunit', "are two, no change and change"),
        (nothing, '{rule = "every-nth", test = 3}', "{lists = {train = 3}}", "names no train and no val and no test"),
    ],
)
def test_a_mistake_gets_one_sentence_that_names_the_place(tmp_path, damage, old, new, message):
    path = pairs(tmp_path, PAIRS.replace(old, new, 1).replace("mask_values = [0, 255]\n", "", new.count("classes")))
    damage(tmp_path)
    with pytest.raises(UserError, match=message) as caught:
        open_at(path)
    assert "\n" not in str(caught.value)


def test_a_label_value_outside_the_two_is_refused(tmp_path):
    data = open_at(pairs(tmp_path))
    save(tmp_path / "label" / "p0.png", image(7, channels=1))
    with pytest.raises(UserError, match=r"label/p0\.png holds 7; classes are 0, 255"):
        data.label("A/p0.png")


def test_a_dash_is_a_channel_that_is_never_read(tmp_path):
    data = open_at(skipping(tmp_path))
    assert [band.name for band in data.card.bands] == ["S2:B02", "S2:B04"]
    assert data.read("images/t0.tif", ["S2:B04", "S2:B02"])[:, 0, 0].tolist() == [3, 1]
    assert [band.mean for band in data.bands] == [1, 3]
    with pytest.raises(UserError, match="no band of skipping '-'"):
        data.read("images/t0.tif", ["-"])


@pytest.mark.parametrize(
    ("bands", "message"),
    [
        ('["S2:B02", "-", "S2:B04"]', r"t0\.tif has 4 bands where the description declares 3"),
        ('["-", "-", "-", "-"]', "`bands` is empty or names a band twice"),
    ],
)
def test_skipped_channels_are_counted(tmp_path, bands, message):
    path = skipping(tmp_path, SKIPPING.replace('["S2:B02", "-", "S2:B04", "-"]', bands))
    with pytest.raises(UserError, match=message):
        open_at(path)


def test_an_image_with_declared_absence_in_a_band_that_is_read_is_left_out(tmp_path):
    path = skipping(tmp_path, "nodata = -9999\n" + SKIPPING)
    with rasterio.open(tmp_path / "images" / "t0.tif", "r+") as target:
        for channel in (1, 2):  # S2:B02, and one that is never read
            plane = target.read(channel)
            plane[0, 0] = -9999
            target.write(plane, channel)
    data = open_at(path)
    assert usable(data, ["S2:B04"]).splits["train"] == ("images/t0.tif", "images/t2.tif")
    blue = usable(data, ["S2:B02", "S2:B04"])
    assert blue.splits["train"] == ("images/t2.tif",)
    assert blue.warnings == ["1 of 4 samples left out: they hold the declared nodata, -9999 (images/t0.tif)"]
    with pytest.raises(UserError, match=r"t0\.tif holds the declared nodata, -9999"):
        data.read("images/t0.tif", ["S2:B02"])
    without = open_at(describe(tmp_path, SKIPPING))
    assert without.read("images/t0.tif", ["S2:B02"]).min() == -9999


def test_splits_may_name_their_images_by_patterns(tmp_path):
    named = '{lists = {train = ["A/p[01]*", "A/p4.png"], val = ["A/p2.png"], test = ["A/*[35].png"]}}'
    data = open_at(pairs(tmp_path, PAIRS.replace('{rule = "every-nth", test = 3}', named)))
    assert data.splits == {
        "train": ("A/p0.png", "A/p1.png", "A/p4.png"),
        "val": ("A/p2.png",),
        "test": ("A/p3.png", "A/p5.png"),
    }
    wrong = named.replace("A/p2.png", "A/q*")
    with pytest.raises(UserError, match=r"no image is named 'A/q\*'"):
        open_at(describe(tmp_path, PAIRS.replace('{rule = "every-nth", test = 3}', wrong)))
    twice = named.replace("A/p2.png", "A/p4.png")
    with pytest.raises(UserError, match=r"A/p4\.png is in the train and in the val split"):
        open_at(describe(tmp_path, PAIRS.replace('{rule = "every-nth", test = 3}', twice)))
