"""What the GEO-Bench reader says to damaged, malicious, incomplete or contradictory directories: one clear line."""

import json
import os
import pickle
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from models.common.errors import UserError
from tasks.data.dataset import DatasetCard
from tasks.data.geobench import open_dataset
from tasks.data.geobench_cards import CARDS
from tests.tasks.data.geobench_directory import SMALL, write


@pytest.fixture
def eurosat(tmp_path):
    """A small m-eurosat directory with the released band-name error."""
    return write(tmp_path / "classification_v1.0" / "m-eurosat", SMALL["class"])


@pytest.fixture
def cashew(tmp_path):
    """A small m-cashew-plant directory; every band carries a date, the label does not."""
    dated = tuple(one.key for one in SMALL["mask"].bands)
    return write(tmp_path / "segmentation_v1.0" / "m-cashew-plant", SMALL["mask"], dated)


def use(card: DatasetCard, directory: Path) -> None:
    """Open a directory and take every image and label of it."""
    data = open_dataset(card, directory)
    for name in (name for names in data.splits.values() for name in names):
        data.read(name, [one.name for one in data.bands])
        data.label(name)


def complain(card: DatasetCard, directory: Path, *words: str) -> None:
    """Using the directory must end in a complaint of one line that holds these words."""
    with pytest.raises(UserError) as caught:
        use(card, directory)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize("share", [0.0, 0.01, 0.2, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_one_clear_line(share, eurosat):
    path = eurosat / "id_0002.hdf5"
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    complain(SMALL["class"], eurosat, "id_0002.hdf5", "truncated", "fetch")


def test_a_file_that_is_no_hdf5_is_one_clear_line(cashew):
    (cashew / "id_0002.hdf5").write_text("<html>404</html>")
    complain(SMALL["mask"], cashew, "id_0002.hdf5", "no readable HDF5")


def replace_dataset(path: Path, key: str, values: object) -> None:
    with h5py.File(path, "a") as file:
        del file[key]
        file[key] = values


def test_another_size_or_dtype_than_the_cards_is_one_clear_line(eurosat):
    path = eurosat / "id_0004.hdf5"
    replace_dataset(path, "04 - Red", np.zeros((9, 8), np.int16))
    complain(SMALL["class"], eurosat, "id_0004.hdf5", "'04 - Red'", "(9, 8)", "(8, 8)")
    replace_dataset(path, "04 - Red", np.full((8, 8), b"text"))
    complain(SMALL["class"], eurosat, "id_0004.hdf5", "'04 - Red'", "|S4")
    replace_dataset(path, "04 - Red", np.zeros((8, 8), np.complex64))
    complain(SMALL["class"], eurosat, "id_0004.hdf5", "'04 - Red'", "complex64")
    with h5py.File(path, "a") as file:
        del file["04 - Red"]
        file.create_dataset("04 - Red", (8, 8), dtype=h5py.string_dtype())
    complain(SMALL["class"], eurosat, "id_0004.hdf5", "'04 - Red'", "object")


def test_a_missing_band_or_mask_is_named_with_what_is_there(cashew):
    with h5py.File(cashew / "id_0001.hdf5", "a") as file:
        del file["label"]
    complain(SMALL["mask"], cashew, "id_0001.hdf5", "'label'", "'04 - Red_2019-11-05'")
    with h5py.File(cashew / "id_0000.hdf5", "a") as file:
        del file["08 - NIR_2019-11-05"]
    complain(SMALL["mask"], cashew, "id_0000.hdf5", "'08 - NIR'")


def rewrite_attribute(path: Path, content: object) -> None:
    with h5py.File(path, "a") as file:
        file.attrs["pickle"] = content


class Payload:
    """What an attacker pickles: rebuilding it runs a command."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("place", ["a sample", "task_specs.pkl"])
def test_a_malicious_pickle_is_refused_and_never_run(place, eurosat, tmp_path):
    marker = tmp_path / "was-here"
    payload = pickle.dumps({"label": Payload(marker)})
    pickle.loads(payload)
    assert marker.exists()  # the payload works
    marker.unlink()
    if place == "a sample":
        rewrite_attribute(eurosat / "id_0005.hdf5", str(payload))
        complain(SMALL["class"], eurosat, "id_0005.hdf5", "foreign pickle", "nothing was run", "system")
    else:
        (eurosat / "task_specs.pkl").write_bytes(payload)
        complain(SMALL["class"], eurosat, "task_specs.pkl", "foreign pickle", "nothing was run", "system")
    assert not marker.exists()


@pytest.mark.parametrize(
    "content", ["__import__('os').getcwd()", "b'", "[1, 2]", "b'not a pickle'", str(pickle.dumps([1])), 7]
)
def test_a_damaged_attribute_is_one_clear_line(content, eurosat):
    rewrite_attribute(eurosat / "id_0005.hdf5", content)
    complain(SMALL["class"], eurosat, "id_0005.hdf5", "pickle")


@pytest.mark.parametrize("label", [10, -1, "Forest", None, 2.5, np.array([1, 0]), [3], 10**30])
def test_a_class_out_of_range_or_of_another_kind_is_one_clear_line(label, eurosat):
    rewrite_attribute(eurosat / "id_0005.hdf5", str(pickle.dumps({"label": label})))
    complain(SMALL["class"], eurosat, "id_0005.hdf5", "label")


@pytest.mark.parametrize("label", [3, np.full(43, 2), np.full(42, 1), np.full(43, 0.5)])
def test_a_multilabel_vector_out_of_range_or_too_short_is_one_clear_line(label, tmp_path):
    directory = write(tmp_path / "set", SMALL["multilabel"])
    rewrite_attribute(directory / "id_0005.hdf5", str(pickle.dumps({"label": label})))
    complain(SMALL["multilabel"], directory, "id_0005.hdf5", "label")


def test_a_mask_out_of_range_is_one_clear_line_unless_the_card_ignores_that_value(cashew):
    mask = np.zeros((8, 8), np.int64)
    mask[0, 0] = 255
    replace_dataset(cashew / "id_0003.hdf5", "label", mask)
    complain(SMALL["mask"], cashew, "id_0003.hdf5", "0..255", "0..6")
    assert open_dataset(replace(SMALL["mask"], ignore=255), cashew).label("id_0003").max() == 255
    replace_dataset(cashew / "id_0003.hdf5", "label", np.zeros((8, 8)))
    complain(SMALL["mask"], cashew, "id_0003.hdf5", "float64", "integer")


def change_partition(directory: Path, name: str = "default", **splits: object) -> None:
    path = directory / f"{name}_partition.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **splits}))


def test_absent_samples_are_counted_and_the_first_is_named(eurosat):
    change_partition(eurosat, valid=["id_0006", "gone", "../id_0000", "gone"])
    complain(SMALL["class"], eurosat, "default_partition.json", "2 absent samples", "'gone'", "data fetch m-eurosat")


def test_absent_samples_of_a_train_fraction_are_named_too(eurosat):
    change_partition(eurosat, "0.50x_train", train=["id_0000", "gone"])
    complain(SMALL["class"], eurosat, "0.50x_train_partition.json", "'gone'")


def test_real_samples_as_found_name_an_absent_sample(shared):
    directory = shared / "data" / "geobench_samples" / "cvpr_chesapeake_landcover"
    complain(CARDS["m-chesapeake-landcover"], directory, "default_partition.json", "2 absent samples", "'id_000184'")


def test_an_empty_or_missing_split_is_one_clear_line(eurosat):
    change_partition(eurosat, test=[])
    complain(SMALL["class"], eurosat, "default_partition.json", "the split test is empty")
    (eurosat / "default_partition.json").write_text(json.dumps({"train": ["id_0000"], "test": ["id_0001"]}))
    complain(SMALL["class"], eurosat, "default_partition.json", "the split val is empty")


def test_a_directory_without_a_default_partition_says_how_to_get_one(eurosat, tmp_path):
    (eurosat / "default_partition.json").unlink()
    complain(SMALL["class"], eurosat, "no default_partition.json", "python -m harness data fetch m-eurosat")
    complain(SMALL["class"], tmp_path / "nowhere", "no default_partition.json")


@pytest.mark.parametrize("name", ["default_partition.json", "0.50x_train_partition.json", "band_stats.json"])
@pytest.mark.parametrize(
    "content", [b"{", b"[]", b"\xff\xfe", b"[" * 100_000, b'{"train": 3}', b'{"train": {"a": "b"}}']
)
def test_malformed_json_is_one_clear_line(name, content, eurosat):
    (eurosat / name).write_bytes(content)
    complain(SMALL["class"], eurosat, name)


def test_an_unknown_split_offers_the_known_ones(eurosat):
    change_partition(eurosat, validation=["id_0000"])
    complain(SMALL["class"], eurosat, "default_partition.json", "'validation'", "valid")


def test_a_sample_in_two_splits_is_a_warning(eurosat):
    change_partition(eurosat, valid=["id_0006", "id_0000"], test=["id_0007", "id_0007"])
    change_partition(eurosat, "0.50x_train", train=["id_0007", "id_0001"])
    assert open_dataset(SMALL["class"], eurosat).warnings == [
        "default_partition.json: 1 samples of train are in val too, e.g. id_0000",
        "default_partition.json: 1 samples stand in test more than once",
        "0.50x_train_partition.json: 1 samples of train are in test too, e.g. id_0007",
        "1.00x_train_partition.json: 1 samples of train are in val too, e.g. id_0000",
    ]


def test_task_specifications_that_contradict_the_card_are_one_clear_line(eurosat):
    complain(replace(SMALL["class"], size=64), eurosat, "task_specs.pkl", "patch size (8, 8)", "(64, 64)")
    complain(replace(SMALL["class"], label="multilabel"), eurosat, "task_specs.pkl", "label class", "multilabel")
    complain(replace(SMALL["class"], classes=("a", "b")), eurosat, "task_specs.pkl", "number of classes 10", "2")
    complain(replace(CARDS["m-pv4ger"], size=8), eurosat, "task_specs.pkl", "number of classes 10")
    complain(replace(SMALL["class"], bands=CARDS["m-pv4ger"].bands), eurosat, "task_specs.pkl", "'Red'")
    (eurosat / "task_specs.pkl").write_bytes(pickle.dumps({"label_type": 3}))
    complain(SMALL["class"], eurosat, "task_specs.pkl", "holds a dict")


def test_keys_that_the_card_does_not_declare_are_left_unread_and_said(eurosat):
    data = open_dataset(replace(SMALL["class"], bands=SMALL["class"].bands[:4]), eurosat)
    assert data.read("id_0000", [one.name for one in data.bands]).shape == (4, 8, 8)
    assert any("12 - SWIR of the files are not read" in note for note in data.notes)
