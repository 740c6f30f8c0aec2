"""The shape of a data set: a card that plans without opening anything, and a reader that gives patches in sensor units."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from models.common.spectral import Band

if TYPE_CHECKING:
    import numpy as np

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class DatasetCard:
    """What a data set is, readable without opening it.

    `label`: `class` (one integer), `multilabel` (0/1 vector), `mask` (integer map) or `change` (mask of a pair of dates).
    `bands` stand in the order of the files. `size` is the native patch size in pixels, `gsd` that of the pixels in
    metres. `modality` is the column group of the rank table: `optical` or `ms`. `splits` counts images per split (0:
    unknown). `family` names the reader, `location` the folder below the data root, `ignore` the label that is no class
    (-1: none). `no_data` is a class that means absence of data, where such pixels count as a class (-1: none): scores
    are given with and without it. `fractions` are those of the training subsets that the set itself ships. `split_note`
    says whose splits these are and what the publication leaves open. `bytes` is the size on disk (0: unknown), `checksums`
    those of the published archives as (file, "md5:..." or "sha256:..."). `revision` rises when the reader is corrected.
    """

    name: str
    title: str
    label: str
    classes: tuple[str, ...]
    bands: tuple[Band, ...]
    size: int
    gsd: float
    modality: str
    family: str
    location: str
    splits: tuple[int, int, int] = (0, 0, 0)
    aliases: tuple[str, ...] = ()
    ignore: int = -1
    licence: str = ""
    citation: str = ""
    origin: str = ""
    notes: str = ""
    revision: int = 1
    no_data: int = -1
    fractions: tuple[str, ...] = ()
    split_note: str = ""
    bytes: int = 0
    checksums: tuple[tuple[str, str], ...] = ()

    @property
    def num_classes(self) -> int:
        return len(self.classes)


class Dataset(Protocol):
    """An opened data set. `splits` holds sample names per split, in a fixed order; nothing is shuffled here.

    `bands` are those of the card as found and corrected, with their statistics; `version` is a digest of what was
    found on disk (it enters the run's identity); `warnings` go into every row; `root` is where it was found.
    A reader may also have `select(bands)` and `val_from_train`: see `usable` and `with_validation`.
    """

    card: DatasetCard
    root: Path
    splits: dict[str, tuple[str, ...]]
    version: str
    warnings: list[str]

    @property
    def bands(self) -> tuple[Band, ...]:
        """The bands with their statistics; a reader may compute these when they are first asked for."""
        ...

    def read(self, name: str, bands: Sequence[str]) -> "np.ndarray":
        """One patch in sensor units, (C, H, W) in the order of `bands` (canonical names), in the stored dtype.

        Of a set whose label is `change`: (2, C, H, W), before, then after.
        """
        ...

    def label(self, name: str) -> Any:
        """The label of one sample: int, or an integer array (multi-label vector, or mask (H, W))."""
        ...

    def partitions(self) -> dict[str, tuple[str, ...]]:
        """Named training subsets that the data set itself ships (GEO-Bench: `0.01x_train` ...); empty if none."""
        ...


def usable(dataset: Dataset, bands: Sequence[str]) -> Dataset:
    """`dataset` for a model that reads `bands`: without the samples that cannot be read, which its warnings then name.

    Some sets hold samples that lack a sensor, or hold nothing but missing values in it. Finding them may open every
    file once, so that it is done for the bands that are read alone. Other sets come back as they are.
    """
    select = getattr(dataset, "select", None)
    return select(bands) if select else dataset


def with_validation(dataset: Dataset) -> dict[str, tuple[str, ...]]:
    """The splits, with a validation split of ours cut from train where the publication has none.

    A reader names the samples of that cut in `val_from_train` (OSCD); where it does not, or where there is a validation
    split, the splits are those of `dataset.splits`.
    """
    ours = set(getattr(dataset, "val_from_train", ()))
    if dataset.splits["val"] or not ours:
        return dict(dataset.splits)
    train = dataset.splits["train"]
    return {
        "train": tuple(name for name in train if name not in ours),
        "val": tuple(name for name in train if name in ours),
        "test": dataset.splits["test"],
    }
