"""What readers share: statistics against numpy, samples left out with a reason, our validation split."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from models.common.errors import UserError
from models.common.spectral import band
from tasks.data import reader
from tasks.data.dataset import DatasetCard, usable, with_validation
from tasks.data.reader import Reader

CARD = DatasetCard(
    name="toy",
    title="toy",
    label="mask",
    classes=("no", "yes"),
    bands=(band("S2:B04", "0", "dn"), band("S1:VV", "1", "db")),
    size=4,
    gsd=10,
    modality="ms",
    family="toy",
    location="toy",
    splits=(3, 1, 1),
)
SPLITS = {"train": ("a", "b", "c"), "val": ("d",), "test": ("e",)}


@dataclass(kw_only=True)
class Toy(Reader):
    """Sample `b` has no radar."""

    def read(self, name, bands):
        number = ord(name)
        image = np.stack([np.full((4, 4), number), np.full((4, 4), np.nan if name == "b" else -number)])
        return image[[["S2:B04", "S1:VV"].index(one) for one in bands]]

    def unusable(self, name, bands):
        return "no radar" if name == "b" and "S1:VV" in bands else ""


def toy() -> Toy:
    return Toy(card=CARD, root=Path("toy"), splits=SPLITS, version="1")


def test_statistics_are_those_of_all_finite_pixels_of_both_dates():
    rng = np.random.default_rng(0)
    images = [rng.normal(1e4, 1, (2, 3, 5, size)) for size in (4, 7)]
    images[0][0, 1, 0, 0] = np.nan
    got = np.array(reader.statistics(3, images))
    pixels = [np.concatenate([image[:, number].ravel() for image in images]) for number in range(3)]
    np.testing.assert_allclose(got[:, 0], [np.nanmean(values) for values in pixels], rtol=1e-12)
    np.testing.assert_allclose(got[:, 1], [np.nanstd(values) for values in pixels], rtol=1e-10)
    assert np.isnan(reader.statistics(1, [np.full((1, 2, 2), np.nan)])).all()


def test_a_sample_that_cannot_be_read_is_left_out_for_the_models_that_read_it_alone():
    data = toy()
    optical, radar = usable(data, ["S2:B04"]), usable(data, ["S1:VV"])
    assert optical.splits == SPLITS
    assert optical.warnings == []
    assert radar.splits["train"] == ("a", "c")
    assert radar.warnings == ["1 of 5 samples left out: no radar (b)"]
    assert radar.refused == ["b"]
    assert data.splits == SPLITS
    assert data.refused == []
    assert np.isfinite(optical.bands[0].mean)
    assert np.isnan(optical.bands[1].mean)
    assert radar.bands[1].mean == -(ord("a") + ord("c")) / 2


def test_a_split_that_loses_every_sample_is_an_error_that_says_why():
    data = replace(toy(), splits={"train": ("a",), "val": ("b",), "test": ("c",)})
    with pytest.raises(
        UserError, match=r"toy: the val split has no sample left; 1 of 3 samples left out: no radar \(b\)"
    ):
        data.select(["S1:VV"])


def test_an_empty_split_is_refused_and_another_size_is_said():
    assert reader.incomplete(CARD, SPLITS) == []
    small = {**SPLITS, "train": ("a",)}
    assert reader.incomplete(CARD, small) == ["toy: 1/1/1 samples (train/val/test) where the whole set has 3/1/1"]
    with pytest.raises(UserError, match="the val split is empty; the whole set has 1 samples"):
        reader.incomplete(CARD, {**SPLITS, "val": ()})


def test_a_validation_split_is_cut_only_where_there_is_none():
    data = toy()
    data.val_from_train = ("b",)
    assert with_validation(data) == SPLITS
    data.splits = {**SPLITS, "val": ()}
    assert with_validation(data) == {"train": ("a", "c"), "val": ("b",), "test": ("e",)}
