"""The twins: the same bytes for the same seed, and every one opens, reads and labels like the set that it stands for."""

import hashlib
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from tasks.data import catalogue
from tasks.data.dataset import SPLITS, usable, with_validation

NAMES = ("sen1floods11", "pastis", "spacenet1", "spacenet1-8band", "levir-cd", "oscd")
A_FILE = {
    "sen1floods11": "USA_905409_S2Hand.tif",
    "pastis": "S2_10000.npy",
    "spacenet1": "Geo_AOI_1_RIO_img7.geojson",
    "spacenet1-8band": "8band_AOI_1_RIO_img7.tif",
    "levir-cd": "val_1.png",
    "oscd": "B8A.tif",
}


def content(root: Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("name", [name for name in NAMES if name != "spacenet1-8band"])
def test_one_seed_gives_the_same_bytes_and_another_seed_others(twins, tmp_path, name):
    card = catalogue.card(name)
    module = import_module(f"tasks.data.twins.{card.family}")
    module.write(tmp_path / "again")
    module.write(tmp_path / "other", seed=1)
    first, again, other = (content(root) for root in (twins / card.location, tmp_path / "again", tmp_path / "other"))
    assert first == again
    assert first.keys() == other.keys()
    assert first != other


@pytest.mark.parametrize("name", NAMES)
def test_every_sample_of_a_twin_is_read_in_the_shape_of_its_label(twins, name):
    card = catalogue.card(name)
    path = catalogue.find(card, twins)
    assert path is not None
    data = catalogue.open_dataset(card, path, "corrected")
    bands = [band.name for band in card.bands]
    data = usable(data, bands)
    dates = (2,) if card.label == "change" else ()
    seen: set[int] = set()
    for split, names in with_validation(data).items():
        assert names, split
        for sample in names:
            image, label = data.read(sample, bands), data.label(sample)
            assert image.shape == (*dates, len(bands), *label.shape)
            assert label.dtype == np.int64
            seen |= set(np.unique(label).tolist())
    assert seen - {card.ignore} <= set(range(card.num_classes))
    assert len(seen - {card.ignore}) >= 2
    assert set(data.partitions()) <= {f"{one}_train" for one in card.fractions}
    assert all(np.isfinite([band.mean, band.std]).all() and band.std > 0 for band in data.bands)
    assert any("where the whole set has" in line for line in data.warnings)


@pytest.mark.parametrize("name", NAMES)
def test_a_band_subset_is_the_same_pixels_in_the_order_that_was_asked_for(twins, name):
    card = catalogue.card(name)
    data = catalogue.open_dataset(card, catalogue.find(card, twins), "corrected")
    bands = [band.name for band in card.bands]
    sample = data.splits["test"][0]
    everything = data.read(sample, bands)
    some = [bands[2], bands[0]]
    np.testing.assert_array_equal(data.read(sample, some), everything[..., [2, 0], :, :])


@pytest.mark.parametrize("name", NAMES)
def test_the_version_changes_with_the_files_and_with_nothing_else(twins, tmp_path, name):
    card = catalogue.card(name)
    copy = Path(shutil.copytree(twins / card.location, tmp_path / "copy"))
    first, again = (catalogue.open_dataset(card, path, "corrected").version for path in (twins / card.location, copy))
    assert first == again
    changed = next(copy.rglob(A_FILE[name]))
    changed.write_bytes(changed.read_bytes() + b" ")
    assert catalogue.open_dataset(card, copy, "corrected").version != first


@pytest.mark.parametrize("name", [*NAMES, "demo-change"])
def test_a_set_that_is_not_on_this_machine_is_not_found(tmp_path, name):
    assert catalogue.find(catalogue.card(name), tmp_path) is None


def test_the_demonstration_pairs_open_under_their_name(demo_data):
    card = catalogue.card("demo-change")
    path = catalogue.find(card, demo_data)
    assert path is not None
    data = catalogue.open_dataset(card, path, "corrected")
    assert tuple(len(data.splits[split]) for split in SPLITS) == card.splits
    assert data.warnings == []
    image = data.read(data.splits["val"][0], ["S2:B04", "S2:B10"])
    assert image.shape == (2, 2, 64, 64)
    assert image[:, 1].mean() < 30 < image[:, 0].mean()  # the cirrus band sees almost nothing
    assert set(np.unique(data.label(data.splits["val"][0]))) == {0, 1}


def test_the_cards_are_listed_without_numpy_rasterio_torch_or_torchgeo():
    code = (
        "import sys; from tasks.data import catalogue; assert len(catalogue.names()) >= 22; "
        "print([name for name in ('numpy', 'rasterio', 'torch', 'torchgeo', 'pandas') if name in sys.modules])"
    )
    root = Path(__file__).resolve().parents[3]
    run = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
