"""LEVIR-CD (Chen and Shi, Remote Sensing 2020): 637 pairs of 1024 x 1024 pixels, cut into 256-pixel tiles on the fly.

Sixteen tiles per pair, no overlap, give the 7120/1024/2048 of the papers, whose copies (the hub's
`ericyu/LEVIRCD_Cropped256`, BIT, ChangeFormer) hold the same pixels. Read are: the published `train/A`, `train/B`,
`train/label` (and `val`, `test`); one folder `A`, `B`, `label` with the split in each file's name, as torchgeo unpacks
it; and, in either form, images that are cut already. A hub copy in Parquet is not read: fetch the originals.
torchgeo's `LEVIRCD` is not used because it has no tiles and decodes a whole pair for every access; a test compares.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from models.common.errors import UserError
from models.common.spectral import band
from tasks.data import description
from tasks.data.dataset import SPLITS, DatasetCard
from tasks.data.folder import opened, pixels
from tasks.data.reader import digest, incomplete
from tasks.data.tiled import Tile, TiledPairs, one_shape, tiles

if TYPE_CHECKING:
    import numpy as np

PARTS = ("A", "B", "label")
FOLDERS = ("levir-cd", "LEVIR-CD", "LEVIRCD", "levir_cd")
CARDS = {
    "levir-cd": DatasetCard(
        name="levir-cd",
        title="Buildings that came or went in Texas",
        label="change",
        classes=("no change", "change"),
        bands=tuple(
            band(f"RGB:{name}", str(number), "uint8") for number, name in enumerate(("red", "green", "blue"), 1)
        ),
        size=256,
        gsd=0.5,
        modality="optical",
        family="levir_cd",
        location="levir-cd",
        splits=(7120, 1024, 2048),
        aliases=("levircd",),
        ignore=255,
        licence="non-commercial academic research only",
        citation="Chen and Shi, Remote Sensing 12(10):1662, 2020",
        origin="https://github.com/justchenhao/STANet; Google Earth imagery of 2002 to 2018",
        notes="Originals of 1024 pixels, cut into tiles of 256 without overlap.",
        split_note="The authors' splits of 445/64/128 pairs; sixteen tiles each, as in every published tiling.",
        checksums=(
            ("train.zip", "md5:a638e71f480628652dea78d8544307e4"),
            ("val.zip", "md5:f7b857978524f9aa8c3bf7f94e3047a4"),
            ("test.zip", "md5:07d5dd89e46f5c1359e2eca746989ed9"),
        ),
    )
}


def present(card: DatasetCard, root: Path) -> Path | None:
    """The set's directory below the data root, or None."""
    return next((root / name for name in FOLDERS if (root / name).is_dir()), None)


def open_dataset(card: DatasetCard, path: Path, band_names: str = "") -> "LevirCd":
    """Open the directory: headers are read, no pixels. Raises `UserError`. `band_names` is not used."""
    files: dict[str, tuple[Path, Path, Path]] = {}
    found: dict[str, Tile] = {}
    splits: dict[str, tuple[str, ...]] = {}
    for split in SPLITS:
        names = []
        for before in _images(path, split):
            places = tuple(before.parent.parent / part / before.name for part in PARTS)
            absent = [place for place in places if not place.is_file()]
            if absent:
                raise UserError(f"{before} has no {absent[0]}; fetch the set again")
            files[before.stem] = (places[0], places[1], places[2])
            rows, columns = one_shape(str(before), [_shape(place) for place in places])
            here = dict(tiles(before.stem, rows, columns, card.size))
            if before.stem in found or found.keys() & here.keys():
                raise UserError(f"{path}: {before.stem} is there twice")
            found.update(here)
            names += here
        splits[split] = tuple(names)
    if not files:
        kind = (
            "it is a copy in Parquet, which is not read: fetch the originals"
            if any(path.rglob("*.parquet"))
            else ("look for train/A, train/B, train/label (and val, test), or A, B, label with train_*.png")
        )
        raise UserError(f"{path} holds no LEVIR-CD images; {kind}")
    warnings = incomplete(card, splits)
    version = digest(card, splits, path, (place for places in files.values() for place in places))
    return LevirCd(card=card, root=path, splits=splits, version=version, warnings=warnings, tiles=found, files=files)


def _images(path: Path, split: str) -> list[Path]:
    if (path / split / "A").is_dir():
        return description.images_in(path / split / "A")
    return description.images_in(path / "A", f"{split}_*") if (path / "A").is_dir() else []


def _shape(path: Path) -> tuple[int, int]:
    with opened(path) as source:
        return source.shape


@dataclass(kw_only=True)
class LevirCd(TiledPairs):
    """LEVIR-CD, opened; `files` holds before, after and label by the stem of the image."""

    files: dict[str, tuple[Path, Path, Path]]

    def pair(self, image: str, bands: Sequence[str]) -> "np.ndarray":
        """Both dates of an original, (2, C, H, W) uint8."""
        import numpy as np

        numbers = [int(one.key) for name in bands for one in self.card.bands if one.name == name]
        return np.stack([pixels(file, numbers) for file in self.files[image][:2]])

    def change(self, image: str) -> "np.ndarray":
        """The label of an original, (H, W): 255 is change."""
        import numpy as np

        stored = pixels(self.files[image][2], [1])[0]
        values = np.unique(stored)
        if not set(values.tolist()) <= {0, 255}:
            raise UserError(f"{self.files[image][2]} holds {values.max()}; a label is 0 (no change) or 255 (change)")
        return (stored == 255).astype(np.int64)
