"""The GEO-Bench reader against geobench itself, on directories written by geobench's writer and on real files."""

import json
import pickle
import shutil
import subprocess
import sys
from dataclasses import replace

import h5py
import numpy as np
import pytest

from models.common.errors import UserError
from tasks.data.geobench import open_dataset, present
from tasks.data.geobench_cards import CARDS
from tests.tasks.data.geobench_directory import SMALL, write

REAL = {
    "eurosat": "m-eurosat",
    "brick_kiln_v1.0": "m-brick-kiln",
    "cvpr_chesapeake_landcover": "m-chesapeake-landcover",
    "southAfricaCropType": "m-SA-crop-type",
}


@pytest.fixture
def eurosat(tmp_path):
    """A small m-eurosat directory with the released band-name error."""
    return write(tmp_path / "classification_v1.0" / "m-eurosat", SMALL["class"])


@pytest.fixture
def cashew(tmp_path):
    """A small m-cashew-plant directory; every band carries a date, the label does not."""
    dated = tuple(one.key for one in SMALL["mask"].bands)
    return write(tmp_path / "segmentation_v1.0" / "m-cashew-plant", SMALL["mask"], dated)


# Equal to geobench


@pytest.mark.parametrize("kind", SMALL)
@pytest.mark.parametrize("dated", ["nothing", "bands and label"])
def test_written_by_geobench_and_read_alike_for_any_subset_of_bands(kind, dated, tmp_path):
    import geobench as gb

    card = SMALL[kind]
    keys = () if dated == "nothing" else ("label", *(one.key for one in card.bands))
    directory = write(tmp_path / "set", card, keys)
    ours = open_dataset(card, directory, band_names="as-released")
    random = np.random.default_rng(1)
    subsets = [[one] for one in ours.bands] + [
        list(random.permutation(np.array(ours.bands, object))[:k]) for k in (2, 3)
    ]
    for split, released in (("train", "train"), ("val", "valid"), ("test", "test")):
        theirs = gb.GeobenchDataset(directory, split=released)
        assert list(ours.splits[split]) == theirs.active_partition.partition_dict[released]
        for name, sample in zip(ours.splits[split], (theirs[i] for i in range(len(theirs))), strict=True):
            for subset in [*subsets, list(ours.bands)]:
                expected, _ = sample.pack_to_3d([one.key for one in subset])
                found = ours.read(name, [one.name for one in subset])
                assert found.dtype == expected.dtype
                np.testing.assert_array_equal(found, np.moveaxis(expected, 2, 0))
            label = ours.label(name)
            expected = sample.label.data if isinstance(sample.label, gb.Band) else sample.label
            assert type(label) is type(expected)
            np.testing.assert_array_equal(label, expected)


@pytest.mark.parametrize("kind", SMALL)
def test_statistics_partitions_and_class_names_are_those_of_geobench(kind, tmp_path):
    import geobench as gb

    directory = write(tmp_path / "set", SMALL[kind])
    ours, theirs = open_dataset(SMALL[kind], directory), gb.GeobenchDataset(directory)
    for one in ours.bands:
        assert (one.mean, one.std) == (theirs.band_stats[one.key].mean, theirs.band_stats[one.key].std)
        assert one.statistics == "band_stats.json of the release"
    partitions = {name: theirs.load_partition(name).partition_dict["train"] for name in theirs.list_partitions()}
    expected = {name: tuple(names) for name, names in partitions.items() if name != "default" and names}
    assert ours.partitions() == expected
    assert list(expected) != []
    assert ours.card.classes == SMALL[kind].classes
    assert ours.warnings == []


@pytest.mark.parametrize("folder", REAL)
def test_real_samples_are_read_as_geobench_reads_them(folder, shared, tmp_path):
    from geobench.dataset import Band, load_sample_hdf5

    directory, card = tmp_path / folder, CARDS[REAL[folder]]
    shutil.copytree(shared / "data" / "geobench_samples" / folder, directory)
    names = sorted(path.stem for path in directory.glob("*.hdf5"))
    (directory / "default_partition.json").write_text(json.dumps({"train": names, "valid": names, "test": names}))
    data = open_dataset(card, directory)
    assert data.splits["train"] == tuple(names)
    for name in names:
        sample = load_sample_hdf5(directory / f"{name}.hdf5")
        by_key = {band.band_info.name: band.data for band in sample.bands}
        assert sorted(by_key) == sorted(one.key for one in data.bands)
        found = data.read(name, [one.name for one in data.bands])
        assert found.dtype == next(iter(by_key.values())).dtype
        np.testing.assert_array_equal(found, np.stack([by_key[one.key] for one in data.bands]))
        expected = sample.label.data if isinstance(sample.label, Band) else sample.label
        np.testing.assert_array_equal(data.label(name), expected)


def test_only_the_bands_asked_for_are_read(eurosat):
    """A band whose bytes cannot be read (here: it is gone) disturbs nobody who does not ask for it."""
    data = open_dataset(SMALL["class"], eurosat)
    with h5py.File(eurosat / "id_0000.hdf5", "a") as file:
        del file["02 - Blue"]
    assert data.read("id_0000", ["S2:B04", "S2:B03"]).shape == (2, 8, 8)
    with pytest.raises(UserError, match="02 - Blue"):
        data.read("id_0000", ["S2:B02"])


def test_of_several_dates_the_last_one_is_read(cashew):
    with h5py.File(cashew / "id_0000.hdf5", "a") as file:
        later = file["04 - Red_2019-11-05"][()] + 1
        file["04 - Red_2020-01-04"] = later
        file["04 - Red_2018-12-30"] = later + 1
    data = open_dataset(SMALL["mask"], cashew)
    np.testing.assert_array_equal(data.read("id_0000", ["S2:B04"])[0], later)


# The band names


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


def test_real_eurosat_proves_the_correction(shared):
    directory = shared / "data" / "geobench_samples" / "eurosat"
    true, stored = (open_dataset(CARDS["m-eurosat"], directory, how) for how in ("corrected", "as-released"))
    for name in true.splits["train"]:
        b08, b8a, b10 = true.read(name, ["S2:B08", "S2:B8A", "S2:B10"]).astype(float)
        assert b10.mean() < 30
        assert correlation(b08, b8a) > 0.95
        assert 0.9 < b8a.mean() / b08.mean() < 1.25
        b8a, b10 = stored.read(name, ["S2:B8A", "S2:B10"]).astype(float)
        assert b10.mean() > 1000
        assert b8a.mean() / b08.mean() < 0.5
    assert any("'12 - SWIR' holds S2:B8A" in note and "geobench issue 28" in note for note in true.notes)
    assert all("more than once" not in line for line in true.warnings)
    assert len(true.warnings) == 3  # the samples were released with the same ids in all splits
    assert any("as released" in note for note in stored.notes)
    assert true.version == stored.version  # one content; the switch `band_names` tells the runs apart


def test_real_brick_kilns_prove_the_correction(shared, tmp_path):
    directory = tmp_path / "m-brick-kiln"
    shutil.copytree(shared / "data" / "geobench_samples" / "brick_kiln_v1.0", directory)
    names = sorted(path.stem for path in directory.glob("*.hdf5"))
    (directory / "default_partition.json").write_text(json.dumps({"train": names, "valid": names, "test": names}))
    true, stored = (open_dataset(CARDS["m-brick-kiln"], directory, how) for how in ("corrected", "as-released"))
    for name in names:
        for colour, sentinel in (("TCI:red", "S2:B04"), ("TCI:green", "S2:B03"), ("TCI:blue", "S2:B02")):
            composite, reflectance = true.read(name, [colour, sentinel])
            assert composite.max() <= 255
            assert correlation(composite, reflectance) > 0.98
        b08, b8a = true.read(name, ["S2:B08", "S2:B8A"])
        assert correlation(b08, b8a) > 0.8
        assert correlation(b08, stored.read(name, ["S2:B8A"])[0]) < 0.6
    assert {one.name: one.unit for one in true.bands}["TCI:red"] == "uint8"
    assert "geobench issue 29" in true.notes[0]


def test_statistics_follow_the_key_and_not_the_name(eurosat):
    true, stored = (open_dataset(SMALL["class"], eurosat, how) for how in ("corrected", "as-released"))
    for ours, theirs in zip(true.bands, stored.bands, strict=True):
        assert (ours.key, ours.mean, ours.std) == (theirs.key, theirs.mean, theirs.std)
    true_mean, stored_mean = ({one.name: one.mean for one in data.bands} for data in (true, stored))
    assert true_mean["S2:B10"] < 30 < 500 < stored_mean["S2:B10"]
    assert stored_mean["S2:B09"] == true_mean["S2:B10"]


def test_without_statistics_the_samples_themselves_are_the_fingerprint(eurosat):
    (eurosat / "band_stats.json").unlink()
    data = open_dataset(SMALL["class"], eurosat)
    assert data.bands[12].name == "S2:B8A"
    assert "corrected" in data.notes[0]
    assert "gives no mean and std" in data.warnings[0]
    assert np.isnan(data.bands[0].mean)
    assert data.bands[0].statistics == ""


@pytest.mark.parametrize("statistics", ["in band_stats.json", "absent"])
def test_a_fingerprint_that_disagrees_leaves_the_names_as_stored_and_warns(statistics, tmp_path):
    repaired = replace(SMALL["class"], bands=tuple(replace(one, name=f"X:{one.key}") for one in SMALL["class"].bands))
    directory = write(tmp_path / "m-eurosat", repaired)  # no key with a mean of twelve
    if statistics == "absent":
        (directory / "band_stats.json").unlink()
    data = open_dataset(SMALL["class"], directory)
    assert data.bands[12].name == "S2:B12"
    assert data.bands[9].name == "S2:B09"
    assert "left as stored" in data.warnings[0]
    assert "'09 - Water vapour'" in data.warnings[0]
    assert not data.notes


def test_a_misspelt_switch_or_band_offers_the_nearest(eurosat):
    with pytest.raises(UserError, match="did you mean 'corrected'"):
        open_dataset(SMALL["class"], eurosat, "correct")
    with pytest.raises(UserError, match="did you mean 'S2:B8A'"):
        open_dataset(SMALL["class"], eurosat).read("id_0000", ["S2:8A"])


# Where the set is, and what it was


def test_a_set_is_found_under_its_names_and_folders(tmp_path):
    card = CARDS["m-chesapeake-landcover"]
    assert present(card, tmp_path) is None
    for place in ("m-chesapeake-landcover", "m-chesapeake", "segmentation_v1.0/m-chesapeake"):
        (tmp_path / place).mkdir(parents=True)
        assert present(card, tmp_path) == tmp_path / place
        if place != "segmentation_v1.0/m-chesapeake":
            (tmp_path / place).rmdir()


def test_a_twin_whose_folder_is_named_like_the_real_set_is_not_taken_for_it(tmp_path):
    demo = replace(CARDS["m-eurosat"], name="demo-eurosat", location="twin/classification_v1.0/m-eurosat")
    (tmp_path / "classification_v1.0" / "m-eurosat").mkdir(parents=True)
    assert present(demo, tmp_path) is None
    (tmp_path / "twin" / "classification_v1.0" / "m-eurosat").mkdir(parents=True)
    assert present(demo, tmp_path) == tmp_path / demo.location


def test_asking_for_presence_imports_neither_numpy_nor_geobench(tmp_path):
    code = (
        "import sys, pathlib; from tasks.data import geobench, geobench_cards as cards;"
        f"print([geobench.present(card, pathlib.Path({str(tmp_path)!r})) for card in cards.CARDS.values()].count(None),"
        "[m for m in ('numpy', 'h5py', 'geobench', 'torch') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split(maxsplit=1) == ["12", "[]\n"]


def test_the_version_names_the_content_and_not_the_place(eurosat, tmp_path):
    version = open_dataset(SMALL["class"], eurosat).version
    moved = tmp_path / "elsewhere"
    shutil.copytree(eurosat, moved)
    assert open_dataset(SMALL["class"], moved).version == version
    assert open_dataset(replace(SMALL["class"], revision=2), moved).version != version
    for name in ("default_partition.json", "0.50x_train_partition.json", "band_stats.json"):
        kept = (moved / name).read_text()
        (moved / name).write_text(kept + " ")
        assert open_dataset(SMALL["class"], moved).version != version, name
        (moved / name).write_text(kept)
    with (moved / "id_0003.hdf5").open("ab") as file:
        file.write(b"\0")
    assert open_dataset(SMALL["class"], moved).version != version


def test_an_opened_set_can_be_sent_to_a_worker(eurosat):
    data = open_dataset(SMALL["class"], eurosat)
    copy = pickle.loads(pickle.dumps(data))
    np.testing.assert_array_equal(copy.read("id_0001", ["S2:B02"]), data.read("id_0001", ["S2:B02"]))


def test_class_names_of_the_files_win_and_a_silent_card_is_filled_in(eurosat):
    silent = open_dataset(replace(SMALL["class"], classes=(), size=0), eurosat).card
    assert (silent.classes, silent.size) == (SMALL["class"].classes, 8)
    other = open_dataset(replace(SMALL["class"], classes=tuple("abcdefghij")), eurosat)
    assert other.card.classes == SMALL["class"].classes
    assert any("class names" in note for note in other.notes)
