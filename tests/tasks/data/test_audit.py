"""`data check` under the hood: real faults of real files, faults made here one by one, and the twins, which have none."""

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from tasks.data import catalogue, geobench
from tasks.data.audit import audit
from tasks.data.audit_facts import Audit, as_json
from tasks.data.folder import pixels as pixels_of
from tests.tasks.data.geobench_directory import NAMES, SMALL, write
from tests.tasks.data.test_folder import MASKS, TOY, describe, image, roofs, save, toy

SEN1FLOODS11 = """
name = "s1"
root = "{data}/sen1floods11"
layout = "image-mask"
images = "S1Hand/*_S1Hand.tif"
masks = "LabelHand/*_LabelHand.tif"
classes = ["land", "water"]
ignore = -1
bands = ["S1:VV", "S1:VH"]
unit = "db"
split = {{rule = "every-nth", test = 3, val = 2}}
"""
RGB = """
name = "images"
root = "{data}/{folder}"
layout = "{layout}"
bands = ["RGB:red", "RGB:green", "RGB:blue"]
unit = "uint8"
split = {{rule = "every-nth", test = 3, val = 4}}
"""


def folder_audit(path: Path, limit: int | None = None) -> Audit:
    card = catalogue.card(str(path))
    found = catalogue.find(card, path.parent)
    assert found is not None
    return audit(card, found, limit)


def said(found: Audit) -> list[str]:
    return [complaint.text for complaint in found.complaints]


def about(found: Audit, words: str) -> tuple[str, ...]:
    """The samples of the one complaint that holds these words."""
    complaints = [complaint for complaint in found.complaints if words in complaint.text]
    assert len(complaints) == 1, said(found)
    return complaints[0].samples


def noisy(root: Path, text: str = TOY) -> Path:
    """The toy set with pixels that differ, within an image and between images."""
    path = toy(root, text)
    for number, file in enumerate(sorted(root.rglob("*.png"))):
        save(file, np.random.default_rng(number).integers(0, 256, (3, 8, 8)).astype(np.uint8))
    return path


# Real faults


def test_the_real_chip_that_is_all_nan_is_named(shared, tmp_path):
    found = folder_audit(describe(tmp_path, SEN1FLOODS11.format(data=shared / "data")))
    assert about(found, "S1: nothing but NaN in 1 of 5 samples") == ("S1Hand/Paraguay_34417_S1Hand.tif",)
    assert len(found.complaints) == 1
    assert found.bands[0].low == pytest.approx(-48.27, abs=0.01)  # dB; a filled NaN would not show, but a zero would
    assert found.bands[0].high == pytest.approx(25.65, abs=0.01)


def test_a_chip_without_one_sensor_is_still_read_in_the_other(shared, tmp_path):
    (tmp_path / "sen1floods11").symlink_to(shared / "data" / "sen1floods11")
    card = catalogue.card("sen1floods11")
    found = audit(card, tmp_path / "sen1floods11")
    assert about(found, "a run leaves out: Sentinel-1 is NaN everywhere") == ("Paraguay_34417",)
    assert len(about(found, "a run leaves out: they have no S2Hand")) == 4
    assert {band.dtypes for band in found.bands if band.name.startswith("S2")} == {("int16",)}
    assert {band.dtypes for band in found.bands if band.name.startswith("S1")} == {("float32",)}


def test_real_images_of_odd_sizes_are_named_with_them(shared, tmp_path):
    text = RGB.format(data=shared / "data", folder="ucmerced", layout="class-folders")
    found = folder_audit(describe(tmp_path, text))
    assert about(found, "3 of 51 images are not 256x256 like the others") == (
        "buildings/buildings96.tif 247x247",
        "baseballdiamond/baseballdiamond15.tif 253x256",
        "beach/beach57.tif 256x252",
    )
    assert found.sizes[256, 256] == 48
    assert len(found.complaints) == 1


def test_real_rgba_among_rgb_is_counted_and_the_images_are_read_all_the_same(shared, tmp_path):
    text = RGB.format(data=shared / "data", folder="buildings_oam", layout="image-mask")
    text += 'images = "images"\nmasks = "masks_derived"\nclasses = ["ground", "building"]\n'
    found = folder_audit(describe(tmp_path, text))
    assert "it cannot be opened" in said(found)[0]
    assert len(about(found, "46 of 56 images have 4 bands where 3 are declared (RGBA among RGB)")) == 46
    assert found.read == 56
    assert sum(found.sizes.values()) == 56
    dropped = folder_audit(describe(tmp_path, text + "drop_alpha = true\n"))
    assert dropped.complaints == []
    assert (
        "46 of 56 images have 4 bands where 3 are declared (RGBA among RGB); the last one is not read" in dropped.notes
    )


def test_a_real_partition_that_names_absent_files_is_said_with_their_names(shared):
    card = catalogue.card("m-chesapeake")
    found = audit(card, shared / "data" / "geobench_samples" / "cvpr_chesapeake_landcover")
    assert about(found, "default_partition.json names 2 absent samples of 5") == ("id_000184", "id_000367")
    assert found.read == 3  # the others are read all the same
    assert found.bands[0].high == 1.0
    assert len(about(found, "3 samples of train are in val too")) == 3


def test_the_cloud_channel_of_real_crops_is_said_to_be_dead(shared):
    found = audit(catalogue.card("m-SA-crop-type"), shared / "data" / "geobench_samples" / "southAfricaCropType")
    assert "CLOUD:probability: constant in 2 of 2 images" in said(found)
    assert {band.high for band in found.bands if band.name == "S2:B04"} == {255.0}  # no digital number ends there


# What has no fault


@pytest.mark.parametrize("name", ["demo-eurosat", "demo-bigearthnet", "demo-cashew", "demo-change"])
def test_the_twin_is_clean(demo_data, name):
    card = catalogue.card(name)
    found = audit(card, demo_data / card.location)
    assert said(found) == []
    assert tuple(found.splits.values()) == card.splits == tuple(found.whole.values())
    assert found.read == sum(card.splits)


def test_what_an_audit_counts_is_what_is_there(demo_data):
    card = catalogue.card("demo-cashew")
    found = audit(card, demo_data / card.location)
    data = catalogue.open_dataset(card, demo_data / card.location, "corrected")
    masks = [data.label(name) for name in data.splits["val"]]
    for index, name in enumerate(card.classes):
        images, pixels = found.classes["val"][name]
        assert images == sum((mask == index).any() for mask in masks)
        assert pixels == sum(int((mask == index).sum()) for mask in masks)
    red = [data.read(name, ["S2:B04"]) for names in data.splits.values() for name in names]
    facts = next(band for band in found.bands if band.name == "S2:B04")
    assert (facts.low, facts.high) == (min(one.min() for one in red), max(one.max() for one in red))


def test_a_limit_reads_less_and_says_so(demo_data):
    card = catalogue.card("demo-eurosat")
    calls = []
    found = audit(card, demo_data / card.location, 2, lambda done, total: calls.append((done, total)))
    assert (found.read, found.splits["train"]) == (6, 70)
    assert calls[-1] == (6, 6)
    assert any("(of the first 2 per split)" in note for note in found.notes)
    assert not any("whole set" in text for text in said(found))


# Faults made one by one


def test_bad_files_are_all_listed_and_the_others_read(tmp_path):
    path = noisy(tmp_path)
    for name in ("f1", "f4"):
        file = tmp_path / "field" / f"{name}.png"
        file.write_bytes(file.read_bytes()[:-20])
    found = folder_audit(path)
    bad = [complaint for complaint in found.complaints if "cannot be read" in complaint.text]
    assert [complaint.samples for complaint in bad] == [("field/f1.png",), ("field/f4.png",)]
    assert sum(found.sizes.values()) == 10


def test_the_same_pixels_in_two_splits_are_found_under_other_names(tmp_path):
    path = noisy(tmp_path)
    # Every third file is test, every fourth of the rest validation: f0, f1 train, f2 test, f3 train, f4 val.
    shutil.copy(tmp_path / "field" / "f0.png", tmp_path / "field" / "f2.png")
    shutil.copy(tmp_path / "field" / "f1.png", tmp_path / "field" / "f3.png")
    found = folder_audit(path)
    assert about(found, "the same pixels stand in train and test: 1 images") == ("field/f0.png = field/f2.png",)
    assert "1 images repeat the pixels of another one in the same split" in found.notes
    assert len(found.complaints) == 1


def test_an_empty_image_is_named_and_is_no_copy_of_another_one(tmp_path):
    path = noisy(tmp_path)
    for name in ("f0", "f2"):
        save(tmp_path / "field" / f"{name}.png", image(0))
    found = folder_audit(path)
    assert about(found, "2 of 12 samples hold one value per band") == ("field/f0.png", "field/f2.png")
    assert not any("same pixels" in text for text in said(found))


def test_values_on_another_scale_than_declared_are_said(tmp_path):
    path = toy(tmp_path, TOY.replace('"uint8"', '"fraction"'))
    assert "RGB:red: values 10..105 leave the range 0..1 of unit fraction" in said(folder_audit(path))


def test_label_values_outside_the_classes_are_said_and_the_image_is_read(tmp_path):
    path = roofs(tmp_path, roof=7)
    found = folder_audit(path)
    assert [text for text in said(found) if "holds 7; classes are 0, 1" in text]
    assert found.bands[0].low == 0


def test_a_class_without_a_training_sample_is_a_complaint_and_without_a_test_sample_a_note(tmp_path):
    splits = '{lists = {train = ["field/f0.png", "field/f1.png"], val = ["field/f2.png"], test = ["water/*"]}}'
    path = noisy(tmp_path, TOY.replace('{rule = "every-nth", test = 3, val = 4}', splits))
    found = folder_audit(path)
    assert said(found) == ["no training sample of water, which other splits hold"]
    assert "no test sample of field" in found.notes
    assert found.classes["test"] == {"field": (0, 0), "water": (6, 0)}


def test_images_with_the_declared_nodata_are_grouped(tmp_path):
    path = noisy(tmp_path, "nodata = 300\n" + TOY)
    for file in (tmp_path / "field").glob("*.png"):
        file.unlink()
    for number in range(6):
        pixels = np.random.default_rng(number).integers(0, 256, (3, 8, 8)).astype(np.uint16)
        pixels[0, 0, 0] = 300 if number < 2 else 0
        save(tmp_path / "field" / f"f{number}.tif", pixels)
    for file in (tmp_path / "water").glob("*.png"):
        save(file.with_suffix(".tif"), pixels_of(file, [1, 2, 3]).astype(np.uint16))
        file.unlink()
    found = folder_audit(path)
    assert about(found, "a run leaves out: they hold the declared nodata, 300") == ("field/f0.tif", "field/f1.tif")


def test_a_mask_of_another_size_is_said(tmp_path):
    path = roofs(tmp_path, MASKS)
    save(tmp_path / "masks" / "t2.png", image(0, channels=1, size=6))
    assert about(folder_audit(path), "the mask is of another size than the image") == ("images/t2.png",)


def test_every_partition_is_looked_at_though_the_first_one_stops_a_run(tmp_path):
    directory = write(tmp_path / "m-eurosat", SMALL["class"])
    for name in ("id_0001", "id_0006"):
        (directory / f"{name}.hdf5").unlink()
    found = audit(SMALL["class"], directory)
    assert about(found, "default_partition.json names 2 absent samples of 9") == ("id_0001", "id_0006")
    assert about(found, "1.00x_train_partition.json names 2 absent samples of 9") == ("id_0001", "id_0006")
    assert found.read == 7


def test_a_sample_that_no_partition_names_is_said(tmp_path):
    directory = write(tmp_path / "m-eurosat", SMALL["class"])
    shutil.copy(directory / "id_0000.hdf5", directory / "stray.hdf5")
    assert about(audit(SMALL["class"], directory), "1 of 10 samples stand in no partition") == ("stray",)


def test_classes_that_a_released_subset_loses_are_said(tmp_path):
    directory = write(tmp_path / "m-eurosat", SMALL["class"])
    data = geobench.open_dataset(SMALL["class"], directory)
    subset = data.partitions()["0.50x_train"]
    lost = {data.label(name) for name in NAMES["train"]} - {data.label(name) for name in subset}
    notes = [note for note in audit(SMALL["class"], directory).notes if note.startswith("0.50x")]
    names = ", ".join(SMALL["class"].classes[one] for one in sorted(lost))
    assert notes == [f"0.50x_train_partition.json: its 3 training samples lose {names}"]


def test_a_truncated_file_and_a_dead_band_among_good_ones(tmp_path):
    directory = write(tmp_path / "m-eurosat", SMALL["class"])
    with h5py.File(directory / "id_0002.hdf5", "r+") as file:
        file["04 - Red"][...] = 0
    whole = (directory / "id_0003.hdf5").read_bytes()
    (directory / "id_0003.hdf5").write_bytes(whole[: len(whole) // 2])
    found = audit(SMALL["class"], directory)
    assert about(found, "is no readable HDF5 file") == ("id_0003",)
    assert "S2:B04: constant in 1 of 8 images" in said(found)


def test_an_audit_is_plain_json(demo_data):
    card = catalogue.card("demo-change")
    found = audit(card, demo_data / card.location, 2)
    assert json.loads(json.dumps(as_json(found)))["samples_read"] == 6
