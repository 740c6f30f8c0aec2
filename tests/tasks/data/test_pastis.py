"""PASTIS: folds, the median over the dates (by hand, and as torch takes it), torchgeo's arrays, and damage."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from models.common.errors import UserError
from tasks.data import pastis

CARD = pastis.CARDS["pastis"]
ALL = [band.name for band in CARD.bands]


@pytest.fixture
def root(twins, tmp_path) -> Path:
    return Path(shutil.copytree(twins / CARD.location, tmp_path / "PASTIS-R"))


def test_folds_one_to_three_train_four_validates_and_five_tests(twins):
    data = pastis.open_dataset(CARD, twins / CARD.location)
    rows = json.loads((twins / CARD.location / "metadata.geojson").read_text())["features"]
    fold = {str(row["properties"]["ID_PATCH"]): row["properties"]["Fold"] for row in rows}
    found = {split: {fold[name] for name in names} for split, names in data.splits.items()}
    assert found == {"train": {1, 2, 3}, "val": {4}, "test": {5}}
    assert sum(map(len, data.splits.values())) == len(fold) == 10
    assert data.card.size == 32


def test_the_median_of_an_even_number_of_dates_is_the_lower_of_the_two_middle_ones():
    assert pastis.lower_median(np.array([4, 1, 9, 2])).tolist() == 2
    assert pastis.lower_median(np.array([[5, 1], [1, 1], [3, 8]])).tolist() == [3, 1]


@pytest.mark.parametrize("dates", [1, 2, 7, 8])
def test_the_median_is_that_of_torch(dates):
    series = np.random.default_rng(dates).integers(0, 10_000, (dates, 3, 5, 5)).astype(np.int16)
    expected, _ = torch.median(torch.from_numpy(series), dim=0)
    np.testing.assert_array_equal(pastis.lower_median(series), expected.numpy())


def test_series_and_labels_are_those_of_torchgeo(twins):
    from torchgeo.datasets import PASTIS

    theirs = PASTIS(twins, folds=(5,), checksum=False)
    data = pastis.open_dataset(CARD, twins / CARD.location)
    assert [str(name) for name in theirs.idxs] == list(data.splits["test"])
    assert theirs.classes[19] == "void_label"
    assert [f"S2:{name}" for name in theirs.s2_bands] == ALL
    for index, name in enumerate(data.splits["test"]):
        sample = theirs[index]
        image = data.read(name, ALL)
        assert image.dtype == np.int16
        np.testing.assert_array_equal(image, torch.median(sample["image"], dim=0)[0].numpy())
        np.testing.assert_array_equal(data.label(name), sample["mask"].numpy())


def test_clouds_on_one_date_in_four_do_not_reach_the_median(twins):
    data = pastis.open_dataset(CARD, twins / CARD.location)
    name = data.splits["train"][0]
    assert np.load(data.root / "DATA_S2" / f"S2_{name}.npy").max() > 6000
    assert data.read(name, ALL).max() < 6000


def test_void_is_a_class_of_its_own(twins):
    data = pastis.open_dataset(CARD, twins / CARD.location)
    assert CARD.num_classes == 20
    assert CARD.classes[CARD.no_data] == "void"
    assert CARD.ignore == -1
    assert any((data.label(name) == 19).any() for name in data.splits["train"])


def test_damage_gets_one_sentence_that_names_the_file(root):
    data = pastis.open_dataset(CARD, root)
    name = data.splits["train"][0]
    series, target = root / "DATA_S2" / f"S2_{name}.npy", root / "ANNOTATIONS" / f"TARGET_{name}.npy"
    np.save(target, np.full((3, 32, 32), 20, dtype=np.uint8))
    with pytest.raises(UserError, match=rf"TARGET_{name}\.npy holds 20\.\.20; classes are 0\.\.19"):
        data.label(name)
    np.save(series, np.zeros((7, 3, 32, 32), dtype=np.int16))
    with pytest.raises(UserError, match=rf"S2_{name}\.npy is of shape \(7, 3, 32, 32\), not \(dates, 10"):
        data.read(name, ALL)
    series.write_bytes(series.read_bytes()[:5000])
    with pytest.raises(UserError, match=rf"S2_{name}\.npy cannot be read; it is truncated"):
        data.read(name, ALL)
    np.save(series, np.array([{"code": "not run"}]), allow_pickle=True)
    with pytest.raises(UserError, match="cannot be read"):
        data.read(name, ALL)
    series.unlink()
    with pytest.raises(UserError, match=rf"pastis: 1 files are missing, first .*S2_{name}\.npy"):
        pastis.open_dataset(CARD, root)
    (root / "metadata.geojson").write_text("{}")
    with pytest.raises(UserError, match="gives no Fold and ID_PATCH"):
        pastis.open_dataset(CARD, root)
    (root / "metadata.geojson").unlink()
    with pytest.raises(UserError, match=r"has no metadata\.geojson"):
        pastis.open_dataset(CARD, root)
