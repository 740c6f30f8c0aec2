"""Sen1Floods11: the published folders (twin), the three folders alone, real chips, and the one that is NaN throughout."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio

from models.common.errors import UserError
from tasks.data import sen1floods11
from tasks.data.dataset import usable

CARD = sen1floods11.CARDS["sen1floods11"]
RADAR, OPTICAL = ["S1:VV", "S1:VH"], ["S2:B04", "S2:B8A", "S2:B12"]


@pytest.fixture
def root(twins, tmp_path) -> Path:
    """A copy of the twin that a test may damage."""
    return Path(shutil.copytree(twins / CARD.location, tmp_path / CARD.location))


def test_the_splits_are_the_official_lists_without_bolivia(twins):
    data = sen1floods11.open_dataset(CARD, twins / CARD.location)
    assert data.splits["val"] == ("Ghana_5079", "Pakistan_43105")
    assert "Bolivia_103757" not in {name for names in data.splits.values() for name in names}
    assert data.card.size == 64


def test_the_chip_that_is_nan_throughout_is_left_out_where_radar_is_read(twins):
    data = sen1floods11.open_dataset(CARD, twins / CARD.location)
    assert "Paraguay_34417" in usable(data, OPTICAL).splits["train"]
    radar = usable(data, RADAR)
    assert "Paraguay_34417" not in radar.splits["train"]
    assert radar.warnings[-1] == "1 of 9 samples left out: Sentinel-1 is NaN everywhere (Paraguay_34417)"
    with pytest.raises(UserError, match=r"Paraguay_34417_S1Hand\.tif holds nothing but NaN"):
        data.read("Paraguay_34417", RADAR)


def test_only_the_files_of_the_sensor_that_is_read_are_opened(root):
    shutil.rmtree(root / "v1.1" / sen1floods11.HAND / "S1Hand")
    data = sen1floods11.open_dataset(CARD, root)
    optical = usable(data, OPTICAL)
    assert optical.refused == []
    assert np.isfinite(optical.bands[3].mean)
    with pytest.raises(UserError, match=r"9 of 9 samples left out: they have no S1Hand"):
        usable(data, RADAR)
    with pytest.raises(UserError, match=r"_S1Hand\.tif is missing"):
        data.read("Ghana_5079", RADAR)


def test_both_sensors_come_together_in_the_order_that_was_asked_for(twins):
    data = sen1floods11.open_dataset(CARD, twins / CARD.location)
    both = data.read("Ghana_5079", ["S1:VH", "S2:B03", "S1:VV"])
    assert both.dtype == np.float32
    np.testing.assert_array_equal(both[[2, 0]], data.read("Ghana_5079", RADAR))
    np.testing.assert_array_equal(both[1], data.read("Ghana_5079", ["S2:B03"])[0])


def test_no_data_becomes_the_ignored_label_and_other_values_are_refused(root):
    data = sen1floods11.open_dataset(CARD, root)
    label = data.label("Ghana_5079")
    assert (label[:, :4] == 255).all()
    assert set(np.unique(label[:, 4:])) == {0, 1}
    file = root / "v1.1" / sen1floods11.HAND / "LabelHand" / "Ghana_5079_LabelHand.tif"
    with rasterio.open(file, "r+") as target:
        target.write(np.full((1, 64, 64), 2, dtype=np.int16))
    with pytest.raises(UserError, match=r"Ghana_5079_LabelHand\.tif holds 2\.\.2; a label is -1"):
        data.label("Ghana_5079")


def test_a_list_that_names_an_absent_chip_is_refused(root):
    (root / "v1.1" / sen1floods11.HAND / "LabelHand" / "USA_905409_LabelHand.tif").unlink()
    with pytest.raises(UserError, match=r"flood_train_data\.csv names 1 absent chips, first 'USA_905409'"):
        sen1floods11.open_dataset(CARD, root)
    (root / "v1.1" / sen1floods11.LISTS / "flood_train_data.csv").unlink()
    with pytest.raises(UserError, match=r"the list .*flood_train_data\.csv is missing"):
        sen1floods11.open_dataset(CARD, root)
    with pytest.raises(UserError, match="holds no chips"):
        sen1floods11.open_dataset(CARD, root / "v1.1" / "splits")


def test_real_chips_in_three_folders_alone_are_split_by_a_rule_of_ours(shared):
    data = sen1floods11.open_dataset(CARD, shared / "data" / "sen1floods11")
    assert data.card.size == 512
    assert data.splits == {
        "train": ("India_900498", "Mekong_333434", "Paraguay_34417"),
        "val": ("Spain_7370579",),
        "test": ("USA_905409",),
    }
    assert data.warnings[0].endswith("5 chips are split by a rule of ours")
    radar = usable(data, RADAR)
    assert radar.splits["train"] == ("India_900498", "Mekong_333434")
    assert radar.refused == ["Paraguay_34417"]
    assert "Sentinel-1 is NaN everywhere (Paraguay_34417)" in radar.warnings[-1]
    assert -30 < radar.bands[14].mean < radar.bands[13].mean < 0
    label = data.label("Mekong_333434")
    assert (label == 255).mean() == pytest.approx(0.22, abs=0.01)


def test_the_real_chip_with_both_sensors_keeps_names_and_values(shared):
    root = shared / "data" / "sen1floods11"
    data = sen1floods11.open_dataset(CARD, root)
    with rasterio.open(root / "S2Hand" / "Spain_7370579_S2Hand.tif") as source:
        stored, names = source.read(), source.descriptions
    order = [f"S2:B{name[1:]:0>2}" for name in names]
    assert order == [band.name for band in CARD.bands[:13]]
    np.testing.assert_array_equal(data.read("Spain_7370579", order), stored)
    with pytest.raises(
        UserError, match="the train split has no sample left; 4 of 5 samples left out: they have no S2Hand"
    ):
        usable(data, OPTICAL)
