"""Real folders under descriptions that a user would write: masks, pairs, mixed RGB and RGBA, near-labels left unread."""

from pathlib import Path

import numpy as np
import pytest
import rasterio

from tasks.data import folder
from tasks.data.dataset import SPLITS, usable
from tasks.data.folder import FolderDataset

DESCRIPTIONS = Path(__file__).resolve().parents[2] / "data_sets"


def open_real(name: str) -> FolderDataset:
    path = DESCRIPTIONS / f"{name}.toml"
    return folder.open_dataset(folder.card(path), path)


def everything_changed(data: FolderDataset, names: list[str]) -> float:
    """F1 of calling every pixel changed, over all pixels."""
    share = np.mean([data.label(name).mean() for name in names])
    return float(2 * share / (1 + share))


def test_buildings_mix_rgb_and_rgba_and_no_ground_is_in_two_splits(shared):
    data = open_real("buildings_oam")
    assert [len(data.splits[split]) for split in SPLITS] == [28, 10, 18]
    assert data.warnings == []
    alpha, disguised, ground = 0, 0, {}
    for split in SPLITS:
        for name in data.splits[split]:
            with rasterio.open(data.root / name) as source:
                alpha += source.count == 4
                disguised += source.driver == "JPEG"  # named .png
                np.testing.assert_array_equal(
                    data.read(name, ["RGB:blue", "RGB:red"]), source.read([3, 1]), err_msg=name
                )
            column, row, zoom = map(int, Path(name).stem.removeprefix("OAM-").split("-"))
            scale = 2 ** (zoom - 20)
            ground.setdefault(split, set()).add((column // scale, row // scale))
            assert set(np.unique(data.label(name))) <= {0, 1}
    assert (alpha > 0, disguised) == (True, 10)
    assert not ground["train"] & ground["test"] | ground["train"] & ground["val"] | ground["val"] & ground["test"]


def test_water_is_found_as_well_as_published_and_near_labels_are_out_of_reach(shared):
    data = usable(open_real("water_hls12"), [f"L8:B{number}" for number in range(1, 8)])
    assert [len(data.splits[split]) for split in SPLITS] == [23, 7, 15]
    assert data.warnings == []  # -9999 is in channel 9 alone, which is not read
    assert [band.key for band in data.card.bands] == list("1234567")
    hits = union = 0
    for name in (name for split in SPLITS for name in data.splits[split]):
        green, swir = data.read(name, ["L8:B3", "L8:B6"]).astype(np.float64)
        index = np.divide(green - swir, green + swir, out=np.zeros_like(green), where=green + swir != 0)
        water, found = data.label(name) == 1, index > 0  # the modified water index (Xu, 2006)
        hits, union = hits + (water & found).sum(), union + (water | found).sum()
    assert hits / union == pytest.approx(0.54, abs=0.01)


def test_pairs_of_cropland_are_the_dates_in_order_and_change_as_much_as_published(shared):
    data = open_real("clcd")
    assert [len(data.splits[split]) for split in SPLITS] == [10, 2, 4]
    assert data.splits["val"] == ("val/time1/00390.png", "val/time1/00450.png")
    found = data.read("val/time1/00390.png", ["RGB:green", "RGB:blue"])
    for date, image in zip(("time1", "time2"), found, strict=True):
        with rasterio.open(data.root / "val" / date / "00390.png") as source:
            np.testing.assert_array_equal(image, source.read([2, 3]))
    assert everything_changed(data, list(data.splits["train"])) == pytest.approx(0.20, abs=0.005)


def test_pairs_of_buildings_are_the_dates_in_order_and_one_has_no_change(shared):
    data = open_real("levir_cd_samples")
    assert [len(data.splits[split]) for split in SPLITS] == [4, 1, 3]
    name = "A/test_55_0256_0000.png"
    for date, image in zip("AB", data.read(name, ["RGB:red", "RGB:green", "RGB:blue"]), strict=True):
        with rasterio.open(data.root / name.replace("A/", f"{date}/", 1)) as source:
            np.testing.assert_array_equal(image, source.read())
    assert data.label("A/train_386_0512_0768.png").max() == 0
    assert 0 < everything_changed(data, list(data.splits["train"])) < 1
