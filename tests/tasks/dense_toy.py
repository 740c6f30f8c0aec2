"""A data set of a few small scenes that live in memory, and the scenes that a head trains on: for tests of dense tasks."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import models
from models.common.backbone import Backbone, Batch
from models.common.bands import compile_transform
from models.common.card import Card, Checkpoint, Mode
from models.common.spectral import band
from tasks.common.features import Compute
from tasks.common.scenes import Fuse, Scenes
from tasks.common.stage_maps import StageMaps
from tasks.data.dataset import SPLITS, DatasetCard
from tasks.switches import Dense

COLOURS = ("RGB:red", "RGB:green", "RGB:blue")


class ToyDataset:
    """Images (3, H, W) or pairs (2, 3, H, W) and masks (H, W), by name."""

    def __init__(
        self, images: dict[str, np.ndarray], labels: dict[str, np.ndarray], splits: dict[str, list[str]], **facts
    ):
        kind = "change" if next(iter(images.values())).ndim == 4 else "mask"
        plain = {"classes": ("ground", "water"), "size": 32, "gsd": 10.0, "modality": "optical", "label": kind}
        self.card = DatasetCard(
            name="toy",
            title="toy",
            bands=tuple(band(name, name, "uint8") for name in COLOURS),
            family="toy",
            location="",
            **(plain | facts),
        )
        self.bands, self.root, self.version, self.warnings = self.card.bands, Path(), "1", []
        self.images, self.labels = images, labels
        self.splits = {split: tuple(splits[split]) for split in SPLITS}

    def read(self, name, bands):
        return self.images[name][..., [COLOURS.index(one) for one in bands], :, :]

    def label(self, name):
        return self.labels[name]

    def partitions(self):
        return {}


def names(count: int = 12) -> dict[str, list[str]]:
    """Two thirds train, the rest halved into val and test."""
    every = [f"image{number:02d}" for number in range(count)]
    return {
        "train": every[: count * 2 // 3],
        "val": every[count * 2 // 3 : count * 5 // 6],
        "test": every[count * 5 // 6 :],
    }


def lakes(count: int = 12, side: int = 32, seed: int = 0, **facts) -> ToyDataset:
    """Bright ground with a dark rectangle of water, at least a quarter of a side long: told by brightness alone."""
    rng = np.random.default_rng(seed)
    splits = names(count)
    images, labels = {}, {}
    for name in [name for split in splits.values() for name in split]:
        water = np.zeros((side, side), dtype=np.int64)
        top, left = rng.integers(0, side // 2, 2)
        tall, wide = rng.integers(side // 4, side // 2, 2)
        water[top : top + tall, left : left + wide] = 1
        image = np.where(water, 40, 180) + rng.integers(-20, 20, (3, side, side))
        images[name], labels[name] = image.astype(np.uint8), water
    return ToyDataset(images, labels, splits, **({"size": side} | facts))


def floods(count: int = 12, side: int = 32, seed: int = 0, **facts) -> ToyDataset:
    """Pairs: the water of the second date is the change."""
    after = lakes(count, side, seed)
    rng = np.random.default_rng(seed + 1)
    pairs = {
        name: np.stack([rng.integers(160, 200, image.shape).astype(np.uint8), image])
        for name, image in after.images.items()
    }
    splits = {split: list(names) for split, names in after.splits.items()}
    return ToyDataset(pairs, after.labels, splits, **({"size": side, "classes": ("no change", "change")} | facts))


TINY = Card(
    name="tiny",
    title="Four convolutions",
    inputs=(Mode("rgb", ("red", "green", "blue"), "uint8", (), size=32, multiple=32),),
    checkpoint=Checkpoint("none"),
    channels=(4, 6, 8, 10),
    strides=(4, 8, 16, 32),
    width=10,
    licence="MIT",
    paper="none",
)


class TinyBackbone(Backbone):
    """A hierarchical network with stochastic depth's stand-in, dropout, and a stem that is never used."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__(TINY)
        widths = (3, *TINY.channels)
        self.unused = nn.Conv2d(10, 4, 4)
        self.steps = nn.ModuleList(nn.Conv2d(i, o, s, s) for i, o, s in zip(widths, widths[1:], (4, 2, 2, 2)))
        self.dropout = nn.Dropout2d(dropout)

    def encode(self, batch: Batch) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
        x, stages = batch.images["optical"] / 255, []
        for step in self.steps:
            x = self.dropout(step(x).relu())
            stages.append(x)
        return tuple(stages), {"default": x.mean(dim=(2, 3))}


def tiny(dropout: float = 0.0) -> Backbone:
    """The same tiny network each time."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        return TinyBackbone(dropout).freeze()


def scenes(
    dataset: ToyDataset,
    switches: Dense,
    backbone: Backbone | None = None,
    fuse: Fuse | None = None,
    store: Path | None = None,
) -> Scenes:
    """Scenes of `imagestats`, or of another backbone; stage maps in memory, or in a store as the switches say."""
    model = backbone or models.build("imagestats")
    size = switches.input_size
    transform = compile_transform(model.card, dataset.bands, input_size=size, fit=switches.fit)
    compute = Compute(batch=4, workers=1)

    def maps(encode, keys):
        kind = switches.stage_store if store else "none"
        return StageMaps(encode, keys, compute.batch, kind=kind, store=store, key={"toy": 1})

    return Scenes(dataset, transform, lambda: model, switches, compute, maps, dataset.splits, fuse)


def silent(what: str, done: int, total: int) -> None:
    """A report that nobody reads."""
