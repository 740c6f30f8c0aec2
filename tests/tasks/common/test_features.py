"""One pass over the images: what is stored is what was computed, whichever way it came to be."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from models.common.backbone import Backbone, Batch
from models.common.bands import Transform, compile_transform
from models.common.card import Card, Checkpoint, Divide, Mode
from models.common.errors import UserError
from models.common.spectral import band
from tasks.common.augmentation import epoch_features
from tasks.common.features import Compute, Table, extract
from tasks.data.dataset import DatasetCard
from tasks.switches import LinearProbe

BANDS = tuple(replace(band(name, name, "dn"), mean=1000.0, std=100.0) for name in ("S2:B02", "S2:B03"))
CARD = Card(
    "toy",
    "a toy",
    (Mode("ms", ("S2:B03", "S2:B02"), "dn", (Divide(1000.0),), 0, 1),),
    Checkpoint("none"),
    (2, 2, 2, 2),
    (1, 1, 1, 1),
    6,
    "MIT",
    "none",
)


class Toy(Backbone):
    """A convolution with dropout: enough to tell eval from train mode, and one image from another."""

    def __init__(self) -> None:
        super().__init__(CARD)
        generator = torch.Generator().manual_seed(0)
        self.weight = torch.nn.Parameter(torch.randn(6, 2, 3, 3, generator=generator))
        self.dropout = torch.nn.Dropout(0.5)
        self.batches: list[int] = []

    def encode(self, batch: Batch):
        image = batch.images["optical"]
        self.batches.append(len(image))
        maps = self.dropout(torch.nn.functional.conv2d(image, self.weight).relu())
        return (maps,) * 4, {"default": maps.mean(dim=(2, 3)), "raw": maps.amax(dim=(2, 3))}


class Noise:
    """A data set of reproducible noise; sample `n` is 8 pixels square, or wider where the name says so."""

    card = DatasetCard("noise", "noise", "class", ("a", "b"), BANDS, 8, 10.0, "ms", "noise", "")
    root = Path()
    bands = BANDS
    version = "1"

    def __init__(self, names: Sequence[str]) -> None:
        self.splits = {"train": tuple(names), "val": (), "test": ()}
        self.warnings: list[str] = []
        self.reads = 0
        self.fail_at: str | None = None

    def read(self, name: str, bands: Sequence[str]) -> np.ndarray:
        if name == self.fail_at:
            raise KeyboardInterrupt
        self.reads += 1
        width = 12 if name.startswith("wide") else 8
        pixels = np.random.default_rng(int(name[-3:])).normal(1500, 200, (2, 8, width)).astype(np.int16)
        return pixels[[["S2:B02", "S2:B03"].index(name) for name in bands]]

    def label(self, name: str) -> int:
        return int(name[-1]) % 2

    def partitions(self) -> dict[str, tuple[str, ...]]:
        return {}


NAMES = [f"n{index:03}" for index in range(50)]


def transform() -> Transform:
    return compile_transform(CARD, BANDS, input_size="native")


def collect(store: Path, data: Noise, model: Backbone | None = None, names: Sequence[str] = NAMES, **more) -> Table:
    settings = {
        "pooled": "default",
        "weights_digest": "random-0",
        "card_revision": "toy 1",
        "compute": Compute(batch=4),
    }
    built = (model or Toy()).freeze()
    return extract(
        lambda: built, data, names, transform(), store=store, progress=lambda *_: None, **{**settings, **more}
    )


def test_stored_features_are_the_features_of_a_direct_call(tmp_path: Path):
    data, model = Noise(NAMES), Toy().freeze()
    table = collect(tmp_path, data)
    for row, name in zip(table.features, NAMES, strict=True):
        patch = torch.from_numpy(data.read(name, transform().read)[None].astype(np.float32))
        assert np.allclose(row, model(transform().batch(patch, 10.0)).pooled.numpy(), atol=1e-6)


def test_a_second_call_reads_no_image_and_builds_no_model(tmp_path: Path):
    data = Noise(NAMES)
    first = collect(tmp_path, data)

    def never() -> Backbone:
        raise AssertionError("the model was built although its features were stored")

    again = extract(
        never,
        data,
        NAMES,
        transform(),
        pooled="default",
        weights_digest="random-0",
        card_revision="toy 1",
        store=tmp_path,
        compute=Compute(),
        progress=lambda *_: None,
    )
    assert np.array_equal(first.features, again.features)
    assert (first.extracted, again.extracted, data.reads) == (50, 0, 50)


@pytest.mark.parametrize(
    "change",
    [{"pooled": "raw"}, {"weights_digest": "random-1"}, {"card_revision": "toy 2"}, {"names": NAMES[:49]}],
    ids=lambda change: next(iter(change)),
)
def test_whatever_can_change_a_feature_makes_it_another_one(tmp_path: Path, change: dict):
    data = Noise(NAMES)
    collect(tmp_path, data)
    collect(tmp_path, data, **change)
    assert data.reads == 50 + len(change.get("names", NAMES))


def test_batch_size_and_readers_change_nothing(tmp_path: Path):
    one = collect(tmp_path / "a", Noise(NAMES), compute=Compute(batch=1, workers=1))
    many = collect(tmp_path / "b", Noise(NAMES), compute=Compute(batch=32, workers=4))
    assert np.allclose(one.features, many.features, atol=1e-6)


def test_an_interrupted_extraction_goes_on_and_ends_the_same(tmp_path: Path):
    data = Noise(NAMES * 2 + [f"m{index:03}" for index in range(200)])
    names = [*NAMES, *(f"m{index:03}" for index in range(200))]
    whole = collect(tmp_path / "whole", data, names=names)
    data.reads, data.fail_at = 0, "m100"
    with pytest.raises(KeyboardInterrupt):
        collect(tmp_path / "cut", data, names=names)
    data.fail_at = None
    rest = collect(tmp_path / "cut", data, names=names)
    assert np.array_equal(whole.features, rest.features)
    assert 0 < rest.extracted < len(names)
    assert whole.warnings == rest.warnings


def test_images_of_several_sizes_are_encoded_one_by_one(tmp_path: Path):
    names = [*NAMES[:3], "wide007"]
    table = collect(tmp_path, Noise(names), names=names)
    alone = collect(tmp_path, Noise(names), names=names[3:])
    assert np.allclose(table.features[3], alone.features[0], atol=1e-6)


def test_what_a_canary_says_enters_the_table_and_stops_a_strict_run(tmp_path: Path):
    class Dark(Noise):
        def read(self, name, bands):
            return np.zeros((2, 8, 8), np.int16)

    assert any("constant in 50 of 50" in line for line in collect(tmp_path, Dark(NAMES)).warnings)
    with pytest.raises(UserError, match="--strict"):
        collect(tmp_path, Dark(NAMES), strict=True)  # also when the features are already stored


def test_an_unknown_pooled_vector_is_refused_with_those_there_are(tmp_path: Path):
    with pytest.raises(UserError, match=r"no pooled vector of toy 'cls'.*default, raw"):
        collect(tmp_path, Noise(NAMES), pooled="cls")


def test_augmented_epochs_differ_from_each_other_but_not_from_themselves():
    data, model = Noise(NAMES), Toy().freeze()
    switches = LinearProbe(augmentation="flips", backbone_mode="train")

    def epoch(seed: int, number: int, batch: int = 8) -> torch.Tensor:
        return epoch_features(
            model,
            data,
            NAMES,
            transform(),
            pooled="default",
            switches=switches,
            seed=seed,
            epoch=number,
            compute=Compute(batch=batch),
            progress=lambda *_: None,
        )

    first = epoch(0, 0)
    assert torch.equal(first, epoch(0, 0))
    assert not torch.equal(first, epoch(0, 1))
    assert not torch.equal(first, epoch(1, 0))
    assert not model.training


def test_flips_alone_do_not_depend_on_the_batch_size():
    data, model = Noise(NAMES), Toy().freeze()
    switches = LinearProbe(augmentation="flips_rotation")
    rows = [
        epoch_features(
            model,
            data,
            NAMES,
            transform(),
            pooled="default",
            switches=switches,
            seed=0,
            epoch=0,
            compute=Compute(batch=batch),
            progress=lambda *_: None,
        )
        for batch in (1, 16)
    ]
    assert torch.allclose(rows[0], rows[1], atol=1e-6)
