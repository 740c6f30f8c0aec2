"""Chesapeake Land Cover (Robinson et al., CVPR 2019), its Landsat 8 layer alone, with the NLCD 2011 classes.

    <state>_1m_<year>_extended-debuffered-<split>_tiles/<tile>_landsat-leaf-on.tif    9 bands, float32
    <state>_1m_<year>_extended-debuffered-<split>_tiles/<tile>_nlcd.tif               NLCD codes, uint8

Layout: lila.science, as torchgeo's `ChesapeakeCVPR` reads it. Landsat bands are 1 to 7 (surface reflectance x 10000),
10 and 11 (brightness temperature x 10), as the tile beside the authors' code shows (calebrob6/land-cover, `tests`). All
layers are resampled to 1 m there, about 6000 x 7500 pixels a tile. A sample is the middle square of a tile read as
200 x 200 pixels of about 30 m, the nearest stored value each: one per tile, as X-STARS counts them. torchgeo's reader
gives windows at 1 m.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from models.common.errors import UserError, choose
from tasks.data.dataset import SPLITS, DatasetCard
from tasks.data.folder import opened
from tasks.data.reader import Reader, digest, missing
from tasks.data.xstars_cards import NLCD

if TYPE_CHECKING:
    import numpy as np

IMAGE, MASK = "_landsat-leaf-on.tif", "_nlcd.tif"
UNLABELLED = (0, 127, 128, 255)  # of NLCD: no data


@dataclass(kw_only=True)
class ChesapeakeDataset(Reader):
    """An opened directory (see `tasks.data.dataset.Dataset`); names are the Landsat files' paths below the root."""

    def read(self, name: str, bands: Sequence[str]) -> "np.ndarray":
        """One tile (C, 200, 200), float32, reflectance x 10000. Raises `UserError` on a damaged file."""
        keys = {band.name: int(band.key) for band in self.card.bands}
        wanted = [keys[choose(f"band of {self.card.name}", band, keys)] for band in bands]
        return middle(self.root / name, wanted, self.card.size)

    def label(self, name: str) -> "np.ndarray":
        """The classes (200, 200), int64; 255 where NLCD has none. Raises `UserError` on a code of no class here."""
        import numpy as np

        path = self.root / mask_of(name)
        stored = middle(path, [1], self.card.size)[0]
        classes = np.full(stored.shape, self.card.ignore, np.int64)
        known = np.isin(stored, UNLABELLED)
        for number, code in enumerate(NLCD):
            classes[stored == code] = number
            known |= stored == code
        if not known.all():
            raise UserError(f"{path} holds {stored[~known][0]}; NLCD's codes here are {', '.join(map(str, NLCD))}")
        return classes


def present(card: DatasetCard, root: Path) -> Path | None:
    """The set's directory below the data root, or None if it is not there."""
    path = root / card.location
    return path if any(path.glob("*_extended-debuffered-train_tiles")) else None


def open_dataset(card: DatasetCard, root: Path, band_names: str = "corrected") -> ChesapeakeDataset:
    """Open the set in `root`; no image is opened. Raises `UserError`: an empty split, or a tile without its classes."""
    splits = {
        split: tuple(
            path.relative_to(root).as_posix()
            for folder in sorted(root.glob(f"*_extended-debuffered-{split}_tiles"))
            for path in sorted(folder.glob(f"*{IMAGE}"))
        )
        for split in SPLITS
    }
    if empty := [split for split in SPLITS if not splits[split]]:
        raise UserError(f"{root}: no {IMAGE} of the {' and '.join(empty)} split of {card.name} is there; fetch the set")
    names = [name for split in SPLITS for name in splits[split]]
    masks = [root / mask_of(name) for name in names]
    missing(card, masks)
    version = digest(card, splits, root, [*masks, *(root / name for name in names)])
    return ChesapeakeDataset(card=card, root=root, splits=splits, version=version)


def mask_of(image: str) -> str:
    """The path of the classes of a Landsat file."""
    return image.removesuffix(IMAGE) + MASK


def middle(path: Path, numbers: list[int], size: int) -> "np.ndarray":
    """The middle square of a file, read as `size` x `size` pixels, each the nearest one stored."""
    from rasterio.enums import Resampling
    from rasterio.windows import Window

    with opened(path) as source:
        side = min(source.shape)
        if side < size or source.count < max(numbers):
            raise UserError(f"{path} has {source.count} bands of {source.height}x{source.width}; a tile is larger")
        window = Window((source.width - side) // 2, (source.height - side) // 2, side, side)  # type: ignore[call-arg]
        shape = (len(numbers), size, size)
        return source.read(numbers, window=window, out_shape=shape, resampling=Resampling.nearest)
