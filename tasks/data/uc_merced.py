"""UC-Merced (Yang and Newsam 2010): 2100 aerial images in 21 class folders, with a split of ours.

    UCMerced_LandUse/Images/<class>/<class><nn>.tif      nn = 00..99, 256 px, 44 of them a little less

Layout: UCMerced_LandUse.zip, as torchgeo's `UCMerced` reads it. torchgeo resizes the odd ones; here images are read as
they are, and the protocol's own resizing applies to them.
"""

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path

from models.common.errors import UserError
from tasks.data.dataset import DatasetCard
from tasks.data.rgb_scenes import Scene, SceneDataset, assemble

IMAGES = ("UCMerced_LandUse/Images", "Images")
LIST = Path(__file__).with_name("splits") / "uc_merced.csv"


def present(card: DatasetCard, root: Path) -> Path | None:
    """The set's directory below the data root, or None if it is not there."""
    path = root / card.location
    return path if any((path / images).is_dir() for images in IMAGES) else None


def open_dataset(card: DatasetCard, root: Path, band_names: str = "corrected") -> SceneDataset:
    """Open the set in `root`; headers are read for their sizes. Raises `UserError`: a damaged image, an empty split."""
    scenes = list(_scenes(root))
    return assemble(card, root, scenes, _odd_sizes(card, root, [scene.name for scene in scenes]))


def _scenes(root: Path) -> Iterator[Scene]:
    top = next(images for images in IMAGES if (root / images).is_dir())
    for row in csv.DictReader(LIST.read_text(encoding="utf-8").splitlines()):
        label = row["name"].rstrip("0123456789")
        name = f"{top}/{label}/{row['name']}.tif"
        if (root / name).is_file():
            yield Scene(name, row["split"], label)


def _odd_sizes(card: DatasetCard, root: Path, names: Iterable[str]) -> list[str]:
    from PIL import Image, UnidentifiedImageError

    sides = []
    for name in names:
        try:
            with Image.open(root / name) as image:
                sides.append(image.size)
        except (OSError, UnidentifiedImageError) as error:
            raise UserError(
                f"{root / name} cannot be read; it is damaged or no image ({type(error).__name__})"
            ) from None
    odd = [size for size in sides if size != (card.size, card.size)]
    if not odd:
        return []
    smallest = min(min(size) for size in odd)
    return [f"{card.name}: {len(odd)} of {len(sides)} images are not {card.size} px square, down to {smallest} px"]
