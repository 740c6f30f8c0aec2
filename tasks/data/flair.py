"""FLAIR #1 on the thirteen domains of GeoMultiTaskNet (Marsocci et al., CVPRW 2023): aerial RGB, a class per pixel.

    flair_aerial_train/<domain>_<year>/<zone>/img/IMG_<n>.tif     flair_1_aerial_test/...
    flair_labels_train/<domain>_<year>/<zone>/msk/MSK_<n>.tif     flair_1_labels_test/...

(github.com/IGNF/FLAIR-1, csv_full.) Images are 512 px of five bands: red, green, blue, near infrared, elevation. A
sample is the middle 256 px of one: X-STARS counts as many 256 px images as there are patches; its crop is not known.
Masks hold 1..19; 13 to 19 are one class, as in GeoMultiTaskNet (`modules/dataset.py`), here the class 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from models.common.errors import UserError, choose
from tasks.data.dataset import DatasetCard
from tasks.data.description import folders
from tasks.data.drawn import drawn
from tasks.data.folder import pixels
from tasks.data.reader import Reader, digest, missing

if TYPE_CHECKING:
    import numpy as np

FOLDERS = {  # images and masks of the domains that are trained on, and of those that are tested on
    "train": ("flair_aerial_train", "flair_labels_train"),
    "test": ("flair_1_aerial_test", "flair_1_labels_test"),
}
DOMAINS = {
    "train": ("D006", "D008", "D013", "D017", "D023", "D029", "D033", "D058", "D067", "D074"),
    "test": ("D064", "D068", "D071"),
}
TESTED = 5350  # images of the test domains in the authors' list; those of the training domains are not known here
PATCH = 512
LAST_CLASS = 12  # 13 to 19 are rare or mixed
STORED = 19


@dataclass(kw_only=True)
class FlairDataset(Reader):
    """An opened FLAIR directory (see `tasks.data.dataset.Dataset`); names are the images' paths below the root."""

    def read(self, name: str, bands: Sequence[str]) -> "np.ndarray":
        """The middle of one patch (C, 256, 256), uint8. Raises `UserError` on a damaged file or another size."""
        keys = {band.name: int(band.key) for band in self.card.bands}
        wanted = [keys[choose(f"band of {self.card.name}", band, keys)] for band in bands]
        return self._middle(self.root / name, wanted)

    def label(self, name: str) -> "np.ndarray":
        """The middle of the mask (256, 256) of classes, int64. Raises `UserError` on a value that is no class."""
        import numpy as np

        path = self.root / mask_of(name)
        stored = self._middle(path, [1])[0].astype(np.int64)
        if stored.size and not 1 <= stored.min() <= stored.max() <= STORED:
            raise UserError(f"{path} holds {stored.min()}..{stored.max()}; FLAIR's classes are 1..{STORED}")
        return np.where(stored > LAST_CLASS, 0, stored)

    def _middle(self, path: Path, numbers: list[int]) -> "np.ndarray":
        found = pixels(path, numbers)
        if found.shape[1:] != (PATCH, PATCH):
            raise UserError(f"{path} is {found.shape[1]}x{found.shape[2]}; FLAIR's patches are {PATCH} px square")
        edge = (PATCH - self.card.size) // 2
        return found[:, edge : edge + self.card.size, edge : edge + self.card.size]


def present(card: DatasetCard, root: Path) -> Path | None:
    """The set's directory below the data root, or None if it is not there."""
    path = root / card.location
    return path if (path / FOLDERS["train"][0]).is_dir() else None


def open_dataset(card: DatasetCard, root: Path, band_names: str = "corrected") -> FlairDataset:
    """Open the set in `root`; no image is opened. Domains other than the thirteen are not read.

    Raises `UserError`: a domain, a mask or a whole split that is missing.
    """
    splits: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for part, (top, _) in FOLDERS.items():
        below = folders(root / top) if (root / top).is_dir() else []
        domains = {folder.name.partition("_")[0]: folder for folder in below}
        absent = [domain for domain in DOMAINS[part] if domain not in domains]
        if absent:
            raise UserError(f"{root / top} lacks the domains {', '.join(absent)} of {card.name}; see {card.origin}")
        for domain in DOMAINS[part]:
            for zone in folders(domains[domain]):
                split = drawn(f"{domain}/{zone.name}", test=0, val=0.1) if part == "train" else part
                splits[split] += sorted(path.relative_to(root).as_posix() for path in zone.glob("img/IMG_*.tif"))
    ordered = {split: tuple(names) for split, names in splits.items()}
    if empty := [split for split, names in ordered.items() if not names]:
        raise UserError(f"{root}: no image of the {' and '.join(empty)} split of {card.name} is there; fetch the set")
    files = [root / name for names in ordered.values() for name in names]
    masks = [root / mask_of(name) for names in ordered.values() for name in names]
    missing(card, masks)
    found = len(ordered["test"])
    warnings = [] if found == TESTED else [f"{card.name}: {found} test images where the whole set has {TESTED}"]
    version = digest(card, ordered, root, [*files, *masks])
    return FlairDataset(card=card, root=root, splits=ordered, version=version, warnings=warnings)


def mask_of(image: str) -> str:
    """The path of an image's mask: the same below the labels' folder, `msk/MSK_` for `img/IMG_`."""
    top, _, rest = image.partition("/")
    labels = dict(FOLDERS.values())[top]
    return f"{labels}/{rest.replace('/img/IMG_', '/msk/MSK_')}"
