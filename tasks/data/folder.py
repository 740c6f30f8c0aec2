"""Images of one's own: a folder of GeoTIFF, PNG or JPEG files, described by one small TOML file.

    name = "my-fields"
    layout = "class-folders"             # <class>/<file>; or "image-mask"; or "before-after-label" for pairs of dates
    bands = ["RGB:red", "RGB:green", "RGB:blue"]   # in the order of the files; or [{name = "S2:B04", unit = "dn"}, ...]
    unit = "uint8"
    split = {rule = "every-nth", test = 3, val = 4}

Optional: `title`; `root` (below the TOML file's own folder, the default); `classes` (class folders: their names in
the order of the labels, sorted by default; masks: what the values 0, 1, ... mean); `gsd` in metres; `size` in pixels;
`modality` (`optical` or `ms`); `drop_alpha = true` (a channel after the last band is not read); `licence`; `citation`.
A band `"-"` is a channel of the files that is never read: `bands = ["L8:B4", "-", "L8:B5", "-"]` reads two of four.
`nodata = -9999` declares the value that stands for absence: an image that holds it anywhere in a band that is read is
left out, with a warning, once it is known which bands are read. Nothing is filled in, and no value is special unless
it is declared here.

Class folders may name their files by a pattern, `images = "*.tif"`. An image-mask set has `images` and `masks`, a
before-after-label set `before`, `after` and `label`: folders whose files pair by their stem, or patterns with one `*`
each that pair by what the star stands for (`"img/*_rgb.tif"`, `"gt/*_mask.png"`); `mask_values = [0, 255]` maps stored
values to classes, `ignore = 255` (a stored value) is no class. A label of change has the classes no change and change.

`split` is one of three:
`{rule = "every-nth", test = 3, val = 4}`: files are sorted by path; every third (the 3rd, 6th, ...) is test, and of
those left every fourth is validation. Without `val` there is no validation split: enough for k-NN, not for a head.
`{folders = {train = "training", val = "validation", test = "testing"}}`: each holds the layout (below `root`).
`{lists = {train = "train.txt", val = "val.csv", test = "test.txt"}}`: files beside the TOML file; a name a line, or a
CSV column `name`; a name is the image's path below `root`, or its file name, with or without suffix. Instead of a file
the names themselves: `train = ["img/north_*", "img/tile_[1-4].png"]`, paths below `root` in which `*` stands for
anything and `[1-4]` for one of these characters.
"""

import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import nan
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.common.errors import UserError, choose
from models.common.spectral import COMMON
from tasks.data.dataset import SPLITS, DatasetCard
from tasks.data.description import Entry, declared_bands, digest, index, load
from tasks.data.reader import Reader

if TYPE_CHECKING:
    import numpy as np
    from rasterio.io import DatasetReader


PNG = b"\x89PNG\r\n\x1a\n"
LABELS = {"class-folders": "class", "image-mask": "mask", "before-after-label": "change"}


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
        label=LABELS[description["layout"]],
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
        channels=len(description["bands"]),
        drop_alpha=description.get("drop_alpha", False),
        mask_values=tuple(description.get("mask_values", range(card.num_classes))),
        nodata=description.get("nodata"),
    )
    return dataset.checked()


@dataclass(kw_only=True)
class FolderDataset(Reader):
    """An opened folder (see `tasks.data.dataset.Dataset`); names are the images' paths below `root`.

    `channels` of the files include those that are never read; `nodata` is the declared value of absence, if any.
    """

    entries: dict[str, Entry]
    channels: int
    drop_alpha: bool = False
    mask_values: tuple[int, ...] = ()
    nodata: float | None = None

    def checked(self) -> "FolderDataset":
        """This set after `check`, with a warning where sizes differ, and the largest as its card's size if it had none."""
        sizes = self.check()
        if len(sizes) > 1:
            (short, narrow), (tall, wide) = min(sizes), max(sizes)
            self.warnings.append(f"images of {len(sizes)} different sizes, {short}x{narrow} to {tall}x{wide} pixels")
        if not self.card.size:
            self.card = replace(self.card, size=max(max(size) for size in sizes))
        return self

    def check(self) -> set[tuple[int, int]]:
        """Compare every header with the description and the first one; return the sizes (rows, columns) that occur."""
        first, sizes = "", set()
        for entry in self.entries.values():
            shapes = []
            for image in entry.images:
                dtype, shape = self._header(image)
                first = first or dtype
                if dtype != first:
                    raise UserError(f"{image} holds {dtype} where the images before it hold {first}")
                shapes.append(shape)
            shape = shapes[0]
            if shapes[-1] != shape:
                (rows, columns), (others, wide) = shapes
                raise UserError(
                    f"{entry.images[-1]} is {others}x{wide} where the earlier date, {entry.image.name}, is {rows}x{columns}"
                )
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

    def _header(self, image: Path) -> tuple[str, tuple[int, int]]:
        with opened(image) as source:
            count, dtype, shape = source.count, source.dtypes[0], source.shape
        if count != self.channels and not (self.drop_alpha and count == self.channels + 1):
            alpha = "; `drop_alpha = true` ignores the last one" if count == self.channels + 1 else ""
            raise UserError(f"{image} has {count} bands where the description declares {self.channels}{alpha}")
        return dtype, shape

    def read(self, name: str, bands: Sequence[str]) -> "np.ndarray":
        """One image in sensor units, (C, H, W) in the order of `bands` (canonical names), in the stored dtype.

        Of a pair: (2, C, H, W), before and after. Raises `UserError` where a band holds the declared `nodata`.
        """
        found = self._stored(name, bands)
        if self.nodata is not None and (found == self.nodata).any():
            raise UserError(f"{self.entries[name].image} holds the declared nodata, {self.nodata:g}")
        return found

    def _stored(self, name: str, bands: Sequence[str]) -> "np.ndarray":
        import numpy as np

        numbers = {band.name: int(band.key) for band in self.card.bands}
        wanted = [numbers[choose(f"band of {self.card.name}", band, numbers)] for band in bands]
        dates = [pixels(image, wanted) for image in self.entries[name].images]
        return dates[0] if len(dates) == 1 else np.stack(dates)

    def unusable(self, name: str, bands: Sequence[str]) -> str:
        """Said of images that hold the declared `nodata`; opens them only where one is declared."""
        if self.nodata is not None and (self._stored(name, bands) == self.nodata).any():
            return f"they hold the declared nodata, {self.nodata:g}"
        return ""

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


@contextmanager
def opened(path: Path) -> "Iterator[DatasetReader]":
    """Open an image; whatever goes wrong with it becomes a `UserError` that names it."""
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning, RasterioError

    # For the whole process: restoring filters afterwards is not safe where several threads read.
    warnings.filterwarnings("ignore", category=NotGeoreferencedWarning)
    try:
        with rasterio.open(path) as source:
            yield source
    except RasterioError as error:
        raise UserError(f"{path} cannot be read; it is truncated, damaged or no image ({error})") from error


def pixels(path: Path, numbers: Sequence[int]) -> "np.ndarray":
    """Bands of a file by number from 1: (C, H, W), as stored. Raises `UserError` on a damaged file."""
    if path.is_file() and not png_is_whole(path):
        raise UserError(f"{path} cannot be read; it is truncated or damaged")
    with opened(path) as source:
        return source.read(list(numbers))


def png_is_whole(path: Path) -> bool:
    """False if a PNG lacks a chunk or holds a wrong checksum (GDAL fills what is missing with zeros, without a word).

    True of every other format: what a file is, its first bytes say, not its suffix (JPEG tiles are often named .png).
    """
    with open(path, "rb") as file:
        if file.read(len(PNG)) != PNG:
            return True
        content, at = PNG + file.read(), len(PNG)
    while at + 12 <= len(content):
        end = at + 8 + int.from_bytes(content[at : at + 4])
        if zlib.crc32(content[at + 4 : end]) != int.from_bytes(content[end : end + 4]):
            return False
        if content[at + 4 : at + 8] == b"IEND":
            return True
        at = end + 4
    return False
