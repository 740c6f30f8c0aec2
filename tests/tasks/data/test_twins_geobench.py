"""The twins of GEO-Bench: they open as the real sets would, geobench reads them alike, and each holds its set's trap."""

import hashlib
import json
import warnings
from pathlib import Path

import h5py
import numpy as np
import pytest
from geobench.dataset import GeobenchDataset
from geobench.task import load_task_specs

from models.common.errors import UserError
from tasks.data import catalogue, twins
from tasks.data.geobench import GeobenchDataset as Ours
from tasks.data.geobench import open_dataset
from tasks.data.geobench_cards import CARDS, misnamed
from tasks.data.twins import geobench

NAMES = sorted(CARDS)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("geobench")
    for name in NAMES:
        twins.write(name, root)
    return root


def opened(root: Path, name: str, band_names: str = "corrected") -> Ours:
    return open_dataset(CARDS[name], root / CARDS[name].location, band_names)


def keys(root: Path, name: str) -> list[set[str]]:
    """The keys of every file of one set."""
    found = []
    for path in sorted((root / CARDS[name].location).glob("*.hdf5")):
        with h5py.File(path) as file:
            found.append(set(file))
    return found


def planes(data: Ours, split: str, bands: list[str]) -> np.ndarray:
    return np.stack([data.read(name, bands) for name in data.splits[split]])


@pytest.mark.parametrize("name", NAMES)
def test_every_twin_opens_under_its_own_card_without_a_warning(root, name):
    card = CARDS[name]
    assert catalogue.find(card, root) == root / card.location
    data = opened(root, name)
    assert data.warnings == []
    assert tuple(len(names) for names in data.splits.values()) == geobench.RECIPES[Path(card.location).name].splits
    bands = [band.name for band in data.bands]
    assert bands == [band.name for band in card.bands]
    assert all(np.isfinite([band.mean, band.std]).all() for band in data.bands)
    for split, names in data.splits.items():
        seen: set[int] = set()
        for sample in names:
            image, label = data.read(sample, bands), data.label(sample)
            assert image.shape == (len(bands), card.size, card.size)
            if card.label == "mask":
                assert label.shape == image.shape[1:]
            seen |= set((np.flatnonzero(label) if card.label == "multilabel" else np.unique(label)).tolist())
        assert len(seen) >= 2, split
        assert seen <= set(range(card.num_classes))
    sizes = [path.stat().st_size for path in (root / card.location).iterdir()]
    assert sum(sizes) < 10e6


@pytest.mark.parametrize("name", NAMES)
def test_geobench_reads_the_arrays_labels_and_partitions_that_our_reader_reads(root, name):
    data = opened(root, name, "as-released")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the wrong names, which are meant
        theirs = GeobenchDataset(data.root, split="test")
        assert set(theirs.list_partitions()) == {"default", *data.partitions()}
        sample = theirs[0]
    assert sample.sample_name == data.splits["test"][0]
    array, names = sample.pack_to_3d(band_names=[band.key for band in data.bands])
    assert names == [band.key for band in data.bands]
    got = data.read(sample.sample_name, [band.name for band in data.bands])
    np.testing.assert_array_equal(got, np.moveaxis(array, 2, 0))
    assert got.dtype == array.dtype
    np.testing.assert_array_equal(data.label(sample.sample_name), getattr(sample.label, "data", sample.label))
    specs = load_task_specs(data.root)
    assert specs.patch_size == (data.card.size, data.card.size)
    assert [info.name for info in specs.bands_info or ()][: len(data.bands)] == [band.key for band in data.card.bands]


@pytest.mark.parametrize("name", NAMES)
def test_the_seven_training_fractions_grow_up_to_all_images(root, name):
    data = opened(root, name)
    sizes = [len(data.partitions()[f"{fraction}_train"]) for fraction in (*data.card.fractions, "1.00x")]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[-1] == len(data.splits["train"])


@pytest.mark.parametrize("name", ["m-pv4ger", "m-forestnet", "m-NeonTree"])
def test_one_seed_gives_the_same_bytes_and_another_seed_others(root, tmp_path, name):
    def content(folder: Path) -> dict[str, str]:
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}

    first = content(root / CARDS[name].location)
    again, other = (content(twins.write(name, tmp_path / str(seed), seed)) for seed in (0, 1))
    assert first == again
    assert first.keys() == other.keys()
    assert first != other


def test_a_directory_that_geobench_does_not_have_is_refused(tmp_path):
    with pytest.raises(UserError, match="m-eurosat"):
        geobench.write(tmp_path / "m-eurosta")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["m-eurosat", "m-brick-kiln"])
def test_wrong_band_names_are_corrected_by_what_the_files_hold(root, name):
    right, wrong = opened(root, name), opened(root, name, "as-released")
    sample = right.splits["train"][0]
    truth = {band.key: band.name for band in right.bands}
    for key, released in misnamed(CARDS[name]).items():
        np.testing.assert_array_equal(wrong.read(sample, [released]), right.read(sample, [truth[key]]))
    assert any("band names corrected" in note for note in right.notes)


def test_the_composite_of_brick_kiln_is_the_visible_bands_rendered_to_255(root):
    data = opened(root, "m-brick-kiln")
    composite = planes(data, "train", ["TCI:red", "TCI:green", "TCI:blue"])
    visible = planes(data, "train", ["S2:B04", "S2:B03", "S2:B02"])
    assert composite.dtype == np.float64
    assert composite.max() <= 255
    assert np.corrcoef(composite.ravel(), visible.ravel())[0, 1] > 0.99


def test_so2sat_has_eight_unbounded_radar_channels_first_and_reflectance_after(root):
    data = opened(root, "m-so2sat")
    bands = [band.name for band in data.bands]
    assert [name.startswith("S1:") for name in bands] == [True] * 8 + [False] * 10
    assert {band.unit for band in data.bands[8:]} == {"reflectance"}
    radar, optical = np.split(planes(data, "train", bands), [8], axis=1)
    assert 0 < optical.min() < optical.max() < 2.8
    assert radar[:, :4].min() < -1
    np.testing.assert_array_less(0, radar[:, 4:6])


def test_crop_type_has_values_of_255_and_a_cloud_channel_without_deviation(root):
    data = opened(root, "m-SA-crop-type")
    cloud = data.bands[-1]
    assert (cloud.name, cloud.mean, cloud.std) == ("CLOUD:probability", 0.0, 0.0)
    stored = json.loads((data.root / "band_stats.json").read_text())["Cloud Probability"]
    assert (stored["min"], stored["max"], stored["std"]) == (0.0, 0.0, 0.0)
    values = planes(data, "train", [band.name for band in data.bands[:-1]])
    assert 0 <= values.min() < values.max() <= 255
    assert {band.unit for band in data.bands} == {"undocumented"}


@pytest.mark.parametrize(
    ("name", "dated_mask"), [("m-forestnet", None), ("m-cashew-plantation", False), ("m-nz-cattle", True)]
)
def test_keys_carry_a_date_that_differs_from_sample_to_sample(root, name, dated_mask):
    found = keys(root, name)
    first = CARDS[name].bands[0].key
    assert {next(key for key in file if key.startswith(first)) for file in found} >= {
        f"{first}_2013-01-01",
        f"{first}_2016-01-01",
    }
    masks = {key.partition("_")[2] != "" for file in found for key in file if key.startswith("label")}
    assert masks == (set() if dated_mask is None else {dated_mask})


def test_class_0_is_in_the_train_split_of_cashew_and_absent_from_its_test_split(root):
    data = opened(root, "m-cashew-plantation")
    found = {split: set(np.unique([data.label(name) for name in names])) for split, names in data.splits.items()}
    assert 0 in found["train"]
    assert 0 not in found["test"]
    assert len(found["test"]) >= 4


def test_chesapeake_is_fractions_that_saturate_and_no_pixel_is_of_class_0(root):
    data = opened(root, "m-chesapeake-landcover")
    image = planes(data, "train", [band.name for band in data.bands])
    assert image.dtype == np.float32
    assert 0 <= image.min() < image.max() == 1
    for names in data.splits.values():
        assert set(np.unique([data.label(name) for name in names])) == {1, 2, 3, 4, 5, 6}


@pytest.mark.parametrize("name", ["m-pv4ger", "m-pv4ger-seg", "m-nz-cattle", "m-NeonTree"])
def test_aerial_pictures_are_bytes(root, name):
    data = opened(root, name)
    assert data.read(data.splits["train"][0], [band.name for band in data.bands]).dtype == np.uint8


def test_neon_tree_has_channels_of_another_size_that_are_named_and_left_unread(root):
    data = opened(root, "m-NeonTree")
    with h5py.File(data.root / f"{data.splits['train'][0]}.hdf5") as file:
        assert np.asarray(file["Canopy Height Model"]).shape == (40, 40, 1)
        assert np.asarray(file["Neon"]).shape == (40, 40, 369)
    assert data.notes == ["m-NeonTree: Canopy Height Model, Neon of the files are not read"]


def test_the_surroundings_of_forestnet_are_blended_with_white(root):
    data = opened(root, "m-forestnet")
    image = planes(data, "train", ["L8:B4"])[:, 0].astype(float)
    assert image[:, :20].min() >= 102  # 0.4 of white
    assert image[:, 140:190, 140:190].min() < 80


@pytest.mark.parametrize("name", [name for name in NAMES if CARDS[name].label == "mask"])
def test_pixels_show_their_class(root, name):
    """The class whose training mean is nearest, per pixel, is right more often than the commonest class."""
    data = opened(root, name)
    bands = [band.name for band in data.bands if band.std > 0]

    def pixels(split: str) -> tuple[np.ndarray, np.ndarray]:
        images = np.moveaxis(planes(data, split, bands).astype(float), 1, -1).reshape(-1, len(bands))
        return images[::97], np.stack([data.label(sample) for sample in data.splits[split]]).ravel()[::97]

    (train, classes), (test, truth) = pixels("train"), pixels("test")
    scale = train.std(0)
    present = np.unique(classes)
    means = np.stack([train[classes == one].mean(0) for one in present])
    predicted = present[(((test[:, None] - means) / scale) ** 2).sum(-1).argmin(1)]
    recall = np.mean([(predicted[truth == one] == one).mean() for one in np.unique(truth)])
    assert recall > 1.5 / len(present), recall


@pytest.mark.parametrize("name", ["m-eurosat", "m-so2sat", "m-forestnet"])
def test_images_show_their_class(root, name):
    """The training image nearest in mean, deviation and minimum per band has the right class far above chance."""
    data = opened(root, name)
    bands = [band.name for band in data.bands]

    def features(split: str) -> tuple[np.ndarray, np.ndarray]:
        images = planes(data, split, bands).astype(float)
        labels = np.array([data.label(sample) for sample in data.splits[split]])
        return np.concatenate([images.mean((2, 3)), images.std((2, 3)), images.min((2, 3))], axis=1), labels

    (train, labels), (test, truth) = features("train"), features("test")
    nearest = (((test[:, None] - train) / train.std(0)) ** 2).sum(-1).argmin(1)
    accuracy = (labels[nearest] == truth).mean()
    assert accuracy >= 4 / data.card.num_classes, accuracy


@pytest.mark.parametrize(
    ("name", "band", "quantile"), [("m-brick-kiln", "S2:B02", 0.98), ("m-pv4ger", "RGB:red", 0.03)]
)
def test_kilns_are_bright_in_blue_and_panels_dark_in_red(root, name, band, quantile):
    """Of an image with the object and one without, the quantile over the median of this band tells which is which."""
    data = opened(root, name)
    score: dict[int, list[float]] = {0: [], 1: []}
    for names in data.splits.values():
        for sample in names:
            plane = data.read(sample, [band]).astype(float)
            score[data.label(sample)].append(float(np.quantile(plane, quantile) / np.median(plane)))
    higher = np.array(score[1])[:, None] > np.array(score[0])[None]
    assert (higher if quantile > 0.5 else ~higher).mean() > 0.8
