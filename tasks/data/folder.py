"""Images of one's own: a folder of GeoTIFF, PNG or JPEG files, described by one small TOML file.

    name = "my-fields"
    layout = "class-folders"             # <class>/<file>, or "image-mask"
    bands = ["RGB:red", "RGB:green", "RGB:blue"]   # in the order of the files; or [{name = "S2:B04", unit = "dn"}, ...]
    unit = "uint8"
    split = {rule = "every-nth", test = 3, val = 4}

Optional: `title`; `root` (below the TOML file's own folder, the default); `classes` (class folders: their names in
the order of the labels, sorted by default; masks: what the values 0, 1, ... mean); `gsd` in metres; `size` in pixels;
`modality` (`optical` or `ms`); `drop_alpha = true` (a channel after the last band is not read); `licence`; `citation`.
Class folders may name their files by a pattern, `images = "*.tif"`. An image-mask set has `images` and `masks`: folders
whose files pair by their stem, or patterns with one `*` each that pair by what the star stands for
(`"img/*_rgb.tif"`, `"gt/*_mask.png"`); `mask_values = [0, 255]` maps stored values to classes, `ignore = 255` (a stored
value) is no class.

`split` is one of three:
`{rule = "every-nth", test = 3, val = 4}`: files are sorted by path; every third (the 3rd, 6th, ...) is test, and of
those left every fourth is validation. Without `val` there is no validation split: enough for k-NN, not for a head.
`{folders = {train = "training", val = "validation", test = "testing"}}`: each holds the layout (below `root`).
`{lists = {train = "train.txt", val = "val.csv", test = "test.txt"}}`: files beside the TOML file; a name a line, or a
CSV column `name`; a name is the image's path below `root`, or its file name, with or without suffix.
"""

import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import nan
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.common.errors import UserError, choose
from models.common.spectral import COMMON, Band
from tasks.data.dataset import SPLITS, DatasetCard
from tasks.data.description import Entry, declared_bands, digest, index, load

if TYPE_CHECKING:
    import numpy as np
    from rasterio.io import DatasetReader


def card(path: Path) -> DatasetCard:
    """The card of the set that the TOML file describes; files are listed but not opened. Raises `UserError`.

    `size` is 0 where the description does not give it; `open_dataset` fills it in.
    """
    description, root = load(path)
    classes, splits = index(path, description, root)
    bands = declared_bands(path, description)
    visible = all(any(entry.name in names for names in COMMON.values()) for entry in bands)
    modality = description.get("modality", "optical" if visible else "ms")
    return DatasetCard(
        name=description["name"],
        title=description.get("title", description["name"]),
        label="class" if description["layout"] == "class-folders" else "mask",
        classes=classes,
        bands=bands,
        size=description.get("size", 0),
        gsd=float(description.get("gsd", nan)),
        modality=choose(f"modality in {path.name}", modality, ("optical", "ms")),
        family="folder",
        location=str(path.resolve()),
        splits=(len(splits["train"]), len(splits["val"]), len(splits["test"])),
        ignore=description.get("ignore", -1),
        licence=description.get("licence", ""),
        citation=description.get("citation", ""),
    )


def open_dataset(card: DatasetCard, path: Path) -> "FolderDataset":
    """Open what `card(path)` described: every file's header is compared with it; no pixels are read yet."""
    description, root = load(path)
    _, splits = index(path, description, root)
    entries = {entry.name: entry for split in splits.values() for entry in split}
    dataset = FolderDataset(
        card=card,
        root=root,
        splits={split: tuple(entry.name for entry in splits[split]) for split in SPLITS},
        version=digest(path, root, entries.values()),
        entries=entries,
        drop_alpha=description.get("drop_alpha", False),
        mask_values=tuple(description.get("mask_values", range(card.num_classes))),
    )
    sizes = dataset.check()
    if len(sizes) > 1:
        (short, narrow), (tall, wide) = min(sizes), max(sizes)
        dataset.warnings.append(f"images of {len(sizes)} different sizes, {short}x{narrow} to {tall}x{wide} pixels")
    if not card.size:
        dataset.card = replace(card, size=max(max(size) for size in sizes))
    return dataset


@dataclass
class FolderDataset:
    """An opened folder (see `tasks.data.dataset.Dataset`); names are the images' paths below `root`."""

    card: DatasetCard
    root: Path
    splits: dict[str, tuple[str, ...]]
    version: str
    entries: dict[str, Entry]
    drop_alpha: bool
    mask_values: tuple[int, ...]
    warnings: list[str] = field(default_factory=list)

    def check(self) -> set[tuple[int, int]]:
        """Compare every header with the description and the first one; return the sizes (rows, columns) that occur."""
        wanted, first, sizes = len(self.card.bands), "", set()
        for entry in self.entries.values():
            with opened(entry.image) as source:
                count, dtype, shape = source.count, source.dtypes[0], source.shape
            if count != wanted and not (self.drop_alpha and count == wanted + 1):
                alpha = "; `drop_alpha = true` ignores the last one" if count == wanted + 1 else ""
                raise UserError(f"{entry.image} has {count} bands where the description declares {wanted}{alpha}")
            first = first or dtype
            if dtype != first:
                raise UserError(f"{entry.image} holds {dtype} where the images before it hold {first}")
            sizes.add(shape)
            if entry.mask is None:
                continue
            with opened(entry.mask) as source:
                if source.shape != shape or source.count != 1:
                    found = f"{source.count} band(s) of {source.height}x{source.width}"
                    raise UserError(
                        f"{entry.mask} has {found}; a mask is one band of its image's {shape[0]}x{shape[1]}"
                    )
        return sizes

    def read(self, name: str, bands: Sequence[str]) -> "np.ndarray":
        """One image in sensor units, (C, H, W) in the order of `bands` (canonical names), in the stored dtype."""
        numbers = {entry.name: number for number, entry in enumerate(self.card.bands, 1)}
        return pixels(
            self.entries[name].image, [numbers[choose(f"band of {self.card.name}", band, numbers)] for band in bands]
        )

    def label(self, name: str) -> Any:
        """The class (int), or the mask (H, W) of classes, int64, `card.ignore` where there is none."""
        import numpy as np

        entry = self.entries[name]
        if entry.mask is None:
            return entry.number
        stored = pixels(entry.mask, [1])[0]
        classes = np.full(stored.shape, self.card.ignore, dtype=np.int64)
        known = stored == self.card.ignore
        for number, value in enumerate(self.mask_values):
            classes[stored == value] = number
            known |= stored == value
        if not known.all():
            listed = ", ".join(str(value) for value in self.mask_values)
            raise UserError(
                f"{entry.mask} holds {stored[~known][0]}; classes are {listed}, ignored is {self.card.ignore}"
            )
        return classes

    @property
    def bands(self) -> tuple[Band, ...]:
        """The card's bands with mean and standard deviation over all finite pixels of the train split (float64).

        The first call reads the train split.
        """
        return self._bands

    @cached_property
    def _bands(self) -> tuple[Band, ...]:
        import numpy as np

        names = [entry.name for entry in self.card.bands]
        count, mean, squares = np.zeros(len(names)), np.zeros(len(names)), np.zeros(len(names))
        for sample in self.splits["train"]:
            for number, values in enumerate(self.read(sample, names).astype(np.float64)):
                values = values[np.isfinite(values)]
                if values.size:  # the pairwise update of Chan, Golub and LeVeque (1983): no cancellation of large sums
                    total = count[number] + values.size
                    step = values.mean() - mean[number]
                    squares[number] += values.var() * values.size + step**2 * count[number] * values.size / total
                    mean[number] += step * values.size / total
                    count[number] = total
        std = np.sqrt(squares / np.maximum(count, 1))
        return tuple(
            replace(entry, mean=float(m) if n else nan, std=float(s) if n else nan, statistics="train split")
            for entry, n, m, s in zip(self.card.bands, count, mean, std, strict=True)
        )

    def partitions(self) -> dict[str, tuple[str, ...]]:
        """None: a folder ships no training subsets."""
        return {}


@contextmanager
def opened(path: Path) -> "Iterator[DatasetReader]":
    """Open an image; whatever goes wrong with it becomes a `UserError` that names it."""
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning, RasterioError

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        try:
            with rasterio.open(path) as source:
                yield source
        except RasterioError as error:
            raise UserError(f"{path} cannot be read; it is truncated, damaged or no image ({error})") from error


def pixels(path: Path, numbers: Sequence[int]) -> "np.ndarray":
    """Bands of a file by number from 1: (C, H, W), as stored. Raises `UserError` on a damaged file."""
    if path.suffix.lower() == ".png" and not png_is_whole(path):
        raise UserError(f"{path} cannot be read; it is truncated or damaged")
    with opened(path) as source:
        return source.read(list(numbers))


def png_is_whole(path: Path) -> bool:
    """True if every chunk is there with the right checksum (GDAL fills what is missing with zeros, without a word)."""
    content, at = path.read_bytes(), 8
    while at + 12 <= len(content):
        end = at + 8 + int.from_bytes(content[at : at + 4])
        if zlib.crc32(content[at + 4 : end]) != int.from_bytes(content[end : end + 4]):
            return False
        if content[at + 4 : at + 8] == b"IEND":
            return True
        at = end + 4
    return False
