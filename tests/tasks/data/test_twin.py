"""The synthetic twin: read alike by geobench and by our reader, the same every time, neither trivial nor hopeless."""

import json
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import rasterio
from geobench.dataset import GeobenchDataset
from geobench.task import load_task_specs

from models.common.errors import UserError
from tasks.data import geobench, scenes, twin
from tasks.data.geobench_cards import EUROSAT_ORDER

ROOT = Path(__file__).resolve().parents[3]
RGB = ("S2:B04", "S2:B03", "S2:B02")
GEOBENCH_TWINS = [name for name, card in twin.DEMO_CARDS.items() if card.family == "geobench"]


@pytest.fixture(scope="module")
def data_root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("data")
    twin.write(root / "twin")
    return root


def ours(data_root: Path, name: str, band_names: str = "corrected") -> geobench.GeobenchDataset:
    card = twin.DEMO_CARDS[name]
    assert geobench.present(card, data_root) == data_root / card.location
    return geobench.open_dataset(card, data_root / card.location, band_names)


def theirs(data_root: Path, name: str, split: str) -> GeobenchDataset:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the wrong names, which are meant
        return GeobenchDataset(data_root / twin.DEMO_CARDS[name].location, split=split)


def stack(data, split: str, bands) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, C, H, W) float64 and labels of one split."""
    images = np.stack([data.read(name, bands) for name in data.splits[split]]).astype(np.float64)
    return images, np.stack([data.label(name) for name in data.splits[split]])


def features(images: np.ndarray) -> np.ndarray:
    """Per-band mean and standard deviation: (N, C, H, W) -> (N, 2 C)."""
    return np.concatenate([images.mean((2, 3)), images.std((2, 3))], axis=1)


def neighbours(bank: np.ndarray, labels: np.ndarray, queries: np.ndarray, k: int = 5) -> np.ndarray:
    """Plain k-NN votes on features standardised with the bank."""
    mean, std = bank.mean(0), bank.std(0)
    distances = (((queries - mean) / std)[:, None] - ((bank - mean) / std)[None]) ** 2
    nearest = labels[np.argsort(distances.sum(-1), axis=1, kind="stable")[:, :k]]
    return np.array([np.bincount(row).argmax() for row in nearest])


def ridge(bank: np.ndarray, targets: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Scores (Q, classes) of a least-squares classifier with ridge 3 on standardised features and a constant."""
    mean, std = bank.mean(0), bank.std(0)
    train, test = (np.c_[(rows - mean) / std, np.ones(len(rows))] for rows in (bank, queries))
    return test @ np.linalg.solve(train.T @ train + 3 * np.eye(train.shape[1]), train.T @ targets)


@pytest.mark.parametrize("name", GEOBENCH_TWINS)
@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_geobench_and_our_reader_see_equal_arrays_labels_and_statistics(data_root, name, split):
    reference = theirs(data_root, name, "valid" if split == "val" else split)
    data = ours(data_root, name)
    assert len(reference) == len(data.splits[split])
    keys = {band.key: band.name for band in data.bands}
    for number, sample in enumerate(data.splits[split][:12]):
        expected = reference[number]
        assert expected.sample_name == sample
        array, names = expected.pack_to_3d(band_names=expected.band_names)
        got = data.read(sample, [keys[key] for key in names])
        np.testing.assert_array_equal(got, np.moveaxis(array, 2, 0))
        assert got.dtype == array.dtype
        label = getattr(expected.label, "data", expected.label) if data.card.label == "mask" else expected.label
        np.testing.assert_array_equal(data.label(sample), label)
    for band in data.bands:
        assert band.mean == reference.band_stats[band.key].mean
        assert band.std == reference.band_stats[band.key].std


def test_two_twins_are_the_same_bytes_and_the_second_writing_of_one_does_nothing(data_root, tmp_path):
    seen = []
    np.random.seed(1)
    state = np.random.get_state()[1].copy()
    twin.write(tmp_path / "again", lambda done, total: seen.append((done, total)))
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # the caller's generator is as it was
    assert seen[-1] == (300, 300)
    files = sorted(path.relative_to(data_root / "twin") for path in (data_root / "twin").rglob("*") if path.is_file())
    assert files == sorted(p.relative_to(tmp_path / "again") for p in (tmp_path / "again").rglob("*") if p.is_file())
    assert len(files) > 300
    for file in files:
        assert (data_root / "twin" / file).read_bytes() == (tmp_path / "again" / file).read_bytes(), file
    before = (tmp_path / "again" / "twin.json").stat().st_mtime_ns
    twin.write(tmp_path / "again", lambda done, total: pytest.fail("a whole twin is not written again"))
    assert (tmp_path / "again" / "twin.json").stat().st_mtime_ns == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again"]


def test_a_twin_that_was_interrupted_leaves_nothing(tmp_path):
    def interrupt(done: int, total: int) -> None:
        if done > 150:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        twin.write(tmp_path / "twin", interrupt)
    assert list(tmp_path.iterdir()) == []


def test_a_twin_replaces_an_older_one_and_the_remains_of_one_that_was_killed(tmp_path):
    code = (
        "import os; from pathlib import Path; from tasks.data import twin; "
        f"twin.write(Path({str(tmp_path / 'twin')!r}), lambda done, total: done == 150 and os.kill(os.getpid(), 9))"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True)
    assert run.returncode == -9
    assert not (tmp_path / "twin").exists()
    assert any(tmp_path.rglob("*.hdf5"))
    (tmp_path / "twin").mkdir()
    (tmp_path / "twin" / "twin.json").write_text(json.dumps({"version": 0}))
    (tmp_path / "twin" / "relic").touch()
    twin.write(tmp_path / "twin")
    assert [path.name for path in tmp_path.iterdir()] == ["twin"]
    assert not (tmp_path / "twin" / "relic").exists()
    images = {"m-eurosat": 140, "m-bigearthnet": 80, "m-cashew-plant": 40, "demo-pairs": 40}
    assert twin.marker(tmp_path / "twin") == {"version": twin.VERSION, "seed": twin.SEED, "images": images}


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="the synthetic data cannot be written to"):
        twin.write(tmp_path / "file" / "twin")


def test_a_folder_that_is_no_twin_is_left_alone(tmp_path):
    (tmp_path / "twin").mkdir()
    (tmp_path / "twin" / "precious").touch()
    with pytest.raises(UserError, match="is not empty and holds no twin"):
        twin.write(tmp_path / "twin")
    assert [path.name for path in tmp_path.rglob("*")] == ["twin", "precious"]


def test_a_full_disk_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 1000))
    with pytest.raises(UserError, match="the disk is full: the synthetic data need 64 MiB"):
        twin.write(tmp_path / "twin")
    assert list(tmp_path.iterdir()) == []


def test_the_released_band_name_error_is_in_the_twin_and_corrected(data_root):
    as_released, corrected = ours(data_root, "demo-eurosat", "as-released"), ours(data_root, "demo-eurosat")
    holds = {"S2:B8A": "S2:B09", "S2:B09": "S2:B10", "S2:B10": "S2:B11", "S2:B11": "S2:B12", "S2:B12": "S2:B8A"}
    sample = corrected.splits["train"][0]
    for wrong, right in holds.items():
        np.testing.assert_array_equal(as_released.read(sample, [wrong]), corrected.read(sample, [right]))
    for name in ("S2:B01", "S2:B04", "S2:B08"):
        np.testing.assert_array_equal(as_released.read(sample, [name]), corrected.read(sample, [name]))
    means = {band.name: band.mean for band in corrected.bands}
    assert 5 < means["S2:B10"] < 20
    assert 400 < means["S2:B09"] < 1500


def test_partitions_grow_and_are_those_of_geobench(data_root):
    data = ours(data_root, "demo-eurosat")
    names = [f"{fraction:.2f}x_train" for fraction in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1)]
    assert sorted(data.partitions()) == names
    assert [len(data.partitions()[name]) for name in names] == [10, 10, 10, 10, 14, 35, 70]
    assert sorted(data.label(sample) for sample in data.partitions()["0.01x_train"]) == list(range(10))
    assert set(data.partitions()["1.00x_train"]) == set(data.splits["train"])
    assert set(theirs(data_root, "demo-eurosat", "train").list_partitions()) == {"default", *names}


@pytest.mark.parametrize("name", GEOBENCH_TWINS)
def test_cards_say_what_is_there_and_that_it_is_synthetic(data_root, name):
    data = ours(data_root, name)
    assert data.card.splits == tuple(len(data.splits[split]) for split in ("train", "val", "test"))
    assert data.card.location.startswith("twin/")
    assert "ynthetic" in data.card.notes
    specs = load_task_specs(data.root)
    assert specs.patch_size == (data.card.size, data.card.size)
    assert [band.name for band in specs.bands_info or ()] == [band.key for band in data.card.bands]
    assert specs.label_type is not None
    assert specs.label_type.n_classes == data.card.num_classes
    assert (specs.get_label_map() is None) == (data.card.label != "class")
    assert (specs.label_stats() is None) == (data.card.label == "class")


def test_thirteen_bands_tell_the_ten_classes_apart_and_rgb_does_much_worse(data_root):
    data = ours(data_root, "demo-eurosat")
    accuracy = {}
    for kind, bands in (("all", [band.name for band in data.bands]), ("rgb", RGB)):
        (train, labels), (test, truth) = stack(data, "train", bands), stack(data, "test", bands)
        accuracy[f"knn {kind}"] = (neighbours(features(train), labels, features(test)) == truth).mean()
        scores = ridge(features(train), np.eye(10)[labels], features(test))
        accuracy[f"ridge {kind}"] = (scores.argmax(1) == truth).mean()
    assert 0.55 <= accuracy["knn all"] <= 0.9, accuracy
    assert 0.65 <= accuracy["ridge all"] <= 0.95, accuracy
    assert accuracy["knn rgb"] <= accuracy["knn all"] - 0.15, accuracy
    assert accuracy["ridge rgb"] <= accuracy["ridge all"] - 0.15, accuracy


def test_what_was_learnt_on_the_right_bands_fails_on_wrongly_named_ones(data_root):
    right, wrong = ours(data_root, "demo-eurosat"), ours(data_root, "demo-eurosat", "as-released")
    bands = sorted(band.name for band in right.bands)
    train, labels = stack(right, "train", bands)
    hits = {}
    for kind, data in (("right", right), ("wrong", wrong)):
        test, truth = stack(data, "test", bands)
        hits[kind] = (neighbours(features(train), labels, features(test)) == truth).mean()
    assert hits["wrong"] <= hits["right"] - 0.3, hits


def test_several_labels_are_learnable_from_all_bands_and_less_from_rgb(data_root):
    data = ours(data_root, "demo-bigearthnet")
    occurring = [number for number, name in enumerate(data.card.classes) if name in scenes.COVERS]
    assert len(occurring) == 8
    precision = {}
    for kind, bands in (("all", [band.name for band in data.bands]), ("rgb", RGB)):
        (train, labels), (test, truth) = stack(data, "train", bands), stack(data, "test", bands)
        assert labels.shape == (40, 43)
        assert np.delete(labels, occurring, axis=1).sum() == 0
        assert labels[:, occurring].sum(0).min() >= 5
        scores = ridge(features(train), labels[:, occurring], features(test))
        pairs = zip(scores.T, truth[:, occurring].T, strict=True)
        precision[kind] = np.mean([average_precision(score, present) for score, present in pairs])
    chance = truth[:, occurring].mean()
    assert 0.6 <= precision["all"] <= 0.97, precision
    assert precision["all"] >= chance + 0.25
    assert precision["rgb"] <= precision["all"] - 0.08, precision


def average_precision(scores: np.ndarray, truth: np.ndarray) -> float:
    ranked = truth[np.argsort(-scores, kind="stable")]
    return float((np.cumsum(ranked) / np.arange(1, len(ranked) + 1))[ranked == 1].mean())


def test_pixels_of_plantations_are_learnable_one_by_one(data_root):
    data = ours(data_root, "demo-cashew")
    bands = [band.name for band in data.bands if band.name.startswith("S2:")]
    (train, labels), (test, truth) = stack(data, "train", bands), stack(data, "test", bands)
    assert set(np.unique(labels)) <= set(range(7))
    pixels, queries = (np.moveaxis(images, 1, -1).reshape(-1, len(bands)) for images in (train, test))
    predicted = ridge(pixels, np.eye(7)[labels.ravel()], queries).argmax(1)
    accuracy, majority = (predicted == truth.ravel()).mean(), np.bincount(truth.ravel()).max() / truth.size
    assert majority + 0.2 <= accuracy <= 0.9, (accuracy, majority)


def test_pairs_change_where_the_label_says(data_root):
    directory = data_root / "twin" / "change" / "demo-pairs"
    lists = {split: (directory / f"{split}.txt").read_text().split() for split in ("train", "val", "test")}
    assert {split: len(names) for split, names in lists.items()} == {"train": 10, "val": 4, "test": 6}
    assert len({name for names in lists.values() for name in names}) == 20
    contrast = []
    for name in lists["train"]:
        with rasterio.open(directory / "before" / f"{name}.tif") as before:
            assert before.descriptions == scenes.BANDS
            assert before.crs.to_epsg() == 32631
            one = before.read().astype(np.float64)
        with rasterio.open(directory / "after" / f"{name}.tif") as after:
            two = after.read().astype(np.float64)
        with rasterio.open(directory / "label" / f"{name}.tif") as label:
            changed = label.read(1)
        assert set(np.unique(changed)) == {0, 1}
        assert 0.02 <= changed.mean() <= 0.3
        moved = np.abs(two - one).mean(0)
        contrast.append(moved[changed == 1].mean() / moved[changed == 0].mean())
    assert np.median(contrast) > 1.5, contrast


def test_numbers_per_band_are_those_of_real_level_1c_tiles(data_root, shared):
    real = []
    for path in sorted((shared / "data" / "eurosat_ms").glob("*/*.tif"))[::4]:
        with rasterio.open(path) as source:
            real.append(source.read().mean((1, 2)))
    order = [f"S2:{name}" for name in EUROSAT_ORDER.split()]
    synthetic = {band.name: band.mean for band in ours(data_root, "demo-eurosat").bands}
    ratio = np.array([synthetic[name] for name in order]) / np.mean(real, axis=0)
    assert 0.75 < ratio.min() < ratio.max() < 1.35, dict(zip(order, ratio.round(2), strict=True))


def test_the_twin_imports_without_numpy_geobench_or_torch():
    code = (
        "import sys; from tasks.data import twin; assert len(twin.DEMO_CARDS) == 4; "
        "print([name for name in ('numpy', 'geobench', 'h5py', 'rasterio', 'torch') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
