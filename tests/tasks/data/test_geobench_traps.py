"""Traps of GEO-Bench that change numbers without a word: order, units, dead bands, absent classes, names, dates.

That keys stand in geobench's order is tested with the cards, that names are corrected only on proof with the reader.
"""

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

import models
from models.common.bands import compile_transform
from models.common.errors import UserError
from models.common.spectral import matches
from tasks.common.canaries import RANGES
from tasks.common.confusion import confusion, segmentation_scores
from tasks.data import catalogue
from tasks.data.dataset import DatasetCard
from tasks.data.geobench import open_dataset, present
from tasks.data.geobench_cards import CARDS
from tests.tasks.data.geobench_directory import NAMES, write


def numbered(directory: Path, card: DatasetCard, dated: tuple[str, ...] = ()) -> Path:
    """A directory in which every band of every sample is filled with the band's place in the card, from 1."""
    write(directory, card, dated)
    for file in directory.glob("*.hdf5"):
        with h5py.File(file, "r+") as opened:
            for place, one in enumerate(card.bands, 1):
                key = next(key for key in opened if key == one.key or key.startswith(f"{one.key}_2"))
                opened[key][...] = place
    return directory


# m-so2sat


def test_so2sat_has_eight_radar_bands_first_and_they_are_never_taken_for_optical_ones(tmp_path):
    card = replace(CARDS["m-so2sat"], size=8)
    assert [one.name.partition(":")[0] for one in card.bands] == ["S1"] * 8 + ["S2"] * 10
    data = open_dataset(card, numbered(tmp_path / "m-so2sat", card))
    red, green, blue = ("S2:B04", "S2:B03", "S2:B02")
    patch = data.read("id_0000", [red, green, blue])
    assert patch[:, 0, 0].tolist() == [11, 10, 9]  # the eight of Sentinel-1, then B02, B03, B04
    transform = compile_transform(models.card("dinov2"), data.bands)
    assert transform.read == (red, green, blue)


def test_so2sat_is_reflectance_and_is_rendered_as_such():
    bands = CARDS["m-so2sat"].bands
    optical = [one for one in bands if one.name.startswith("S2:")]
    assert {one.unit for one in optical} == {"reflectance"}
    assert RANGES["reflectance"][1] >= 2.8  # saturated pixels of the release are no error
    transform = compile_transform(models.card("deo"), bands)
    assert {channel.rendering for channel in transform.channels} == {"reflectance -> dn"}
    patch = torch.full((1, len(transform.read), 32, 32), 0.1)
    in_dn = compile_transform(models.card("deo"), [replace(one, unit="dn") for one in optical])
    torch.testing.assert_close(transform(patch), in_dn(patch * 10000))


def test_the_radar_bands_of_so2sat_have_no_unit_that_a_model_could_ask_for():
    radar = [one for one in CARDS["m-so2sat"].bands if one.name.startswith("S1:")]
    assert {one.unit for one in radar} == {"undocumented"}
    with pytest.raises(UserError, match="the data set has no S1:VV"):
        compile_transform(models.card("croma"), radar)  # VV.Real and VV.LEE are no VV in dB


# m-SA-crop-type


def test_values_of_sa_crop_are_no_digital_numbers_and_no_model_takes_them_for_such():
    bands = tuple(replace(one, mean=40.0, std=20.0) for one in CARDS["m-SA-crop-type"].bands)
    assert {one.unit for one in bands} == {"undocumented"}
    with pytest.raises(UserError, match="unit 'undocumented' and no rendering leads to 'uint8'"):
        compile_transform(models.card("dinov2"), bands)
    assert compile_transform(models.card("deo"), bands).mode.name == "rgb"  # whose scaling is each image's own maximum
    transform = compile_transform(models.card("deo"), bands, normalisation="dataset")
    patch = torch.full((1, len(transform.read), 32, 32), 60.0)
    assert transform(patch)[0, :, 0, 0].tolist() == [1.0] * len(transform.read)


def test_a_cloud_channel_without_variance_is_not_divided_by_zero():
    bands = [
        replace(one, mean=0.0, std=0.0 if one.name.startswith("CLOUD") else 1.0)
        for one in CARDS["m-SA-crop-type"].bands
    ]
    with_cloud = replace(models.card("imagestats").inputs[0], unit="undocumented")
    card = replace(models.card("imagestats"), inputs=(with_cloud,))
    transform = compile_transform(card, bands, normalisation="dataset")
    assert transform.read[-1] == "CLOUD:probability"
    assert "CLOUD:probability has standard deviation 0 in the statistics; divided by 1 instead" in transform.notes
    out = transform(torch.zeros(1, len(bands), 16, 16))
    assert bool(torch.isfinite(out).all())


# m-cashew-plantation


def test_a_class_that_is_absent_from_the_test_split_does_not_pull_the_mean_down():
    """Six classes right and class 0 in no label: 1 over those present, 6/7 where an absent class counts as zero."""
    classes = CARDS["m-cashew-plantation"].classes
    label = torch.arange(1, 7).repeat(6).reshape(1, 6, 6)
    counts = confusion(label, label, 7, -1, names=("id",)).numpy()
    scores = segmentation_scores(counts, classes)
    assert scores["miou_macro_present_native"] == 1.0
    assert scores["miou_macro_zero_native"] == pytest.approx(6 / 7)
    assert "iou_0_no_data_native" not in scores
    # One pixel predicted as the absent class costs its true class a little, not a whole class its IoU.
    prediction = label.clone()
    prediction[0, 0, 0] = 0
    slip = segmentation_scores(confusion(prediction, label, 7, -1, names=("id",)).numpy(), classes)
    assert slip["miou_macro_present_native"] == pytest.approx((5 / 6 + 5) / 6)
    assert slip["miou_macro_all_native"] == pytest.approx((0 + 5 / 6 + 5) / 7)


# Names and dates


@pytest.mark.parametrize(
    ("alias", "name", "folder"),
    [
        ("m-cashew-plant", "m-cashew-plantation", "segmentation_v1.0/m-cashew-plant"),
        ("m-chesapeake", "m-chesapeake-landcover", "segmentation_v1.0/m-chesapeake"),
    ],
)
def test_both_names_of_a_set_mean_one_set_whichever_its_folder_has(tmp_path, alias, name, folder):
    card = catalogue.card(alias)
    assert card is catalogue.card(name)
    assert card.location == folder
    for place in (alias, name):
        (tmp_path / place / place).mkdir(parents=True)
        assert present(card, tmp_path / place) == tmp_path / place / place


@pytest.mark.parametrize("name", ["m-forestnet", "m-nz-cattle", "m-cashew-plantation"])
def test_dates_in_the_keys_do_not_hide_a_band(tmp_path, name):
    card = replace(CARDS[name], size=8)
    dated = ("label", *(one.key for one in card.bands))
    data = open_dataset(card, numbered(tmp_path / name, card, dated))
    with h5py.File(data.root / "id_0000.hdf5") as file:
        assert not {one.key for one in card.bands} & set(file)
    patch = data.read("id_0000", [one.name for one in card.bands])
    assert patch[:, 0, 0].tolist() == list(range(1, len(card.bands) + 1))


def test_forestnet_gives_an_rgb_model_red_green_and_blue_of_landsat():
    transform = compile_transform(models.card("dinov2"), CARDS["m-forestnet"].bands)
    assert transform.read == ("L8:B4", "L8:B3", "L8:B2")


@pytest.mark.parametrize(
    ("name", "band", "key", "instead"),
    [
        ("m-eurosat", "S2:B12", "11 - SWIR", "12 - SWIR"),
        ("m-eurosat", "S2:B8A", "12 - SWIR", "08A - Vegetation Red Edge"),
        ("m-brick-kiln", "S2:B12", "09 - Water vapour", "12 - SWIR"),
        ("m-brick-kiln", "S2:B8A", "07 - Vegetation Red Edge", "08A - Vegetation Red Edge"),
    ],
)
def test_a_wrongly_named_band_is_read_from_where_it_truly_is(tmp_path, name, band, key, instead):
    card = replace(CARDS[name], size=8)
    directory = write(tmp_path / name, card)
    for file in directory.glob("*.hdf5"):
        with h5py.File(file, "r+") as opened:
            for one in card.bands:
                if one.name.startswith("TCI:"):
                    opened[one.key][...] = 200  # a true-colour composite ends at 255
    (directory / "band_stats.json").unlink()
    sample = NAMES["train"][0]
    with h5py.File(directory / f"{sample}.hdf5") as file:
        truth, named = file[key][()], file[instead][()]
    corrected, released = (open_dataset(card, directory, names) for names in ("corrected", "as-released"))
    np.testing.assert_array_equal(corrected.read(sample, [band])[0], truth)
    np.testing.assert_array_equal(released.read(sample, [band])[0], named)


def test_a_brick_kiln_model_of_ten_bands_misses_what_is_not_there_instead_of_reading_another_band():
    names = [one.name for one in CARDS["m-brick-kiln"].bands]
    assert not {"S2:B06", "S2:B09", "S2:B10"} & set(names)
    assert [name for name in names if matches("red", name)] == ["S2:B04"]  # not the composite's red beside it
    with pytest.raises(UserError, match="S2:B06"):
        compile_transform(models.card("croma"), CARDS["m-brick-kiln"].bands)
