"""CV-BrCT (Machado et al. 2021), its aerial view alone: class folders, with a split of ours.

    aerial/<class>/<file>       500 px; the street view beside it, in folders of the same names, is not read

The names of the release's files are not known here: the split is a hash of `<class>/<file>` (`tasks.data.drawn`), and
the classes are the nine folders as they are called.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from models.common.errors import UserError
from tasks.data.dataset import DatasetCard
from tasks.data.description import folders, images_in
from tasks.data.drawn import drawn
from tasks.data.rgb_scenes import Scene, SceneDataset, assemble

IMAGES = "aerial"


def present(card: DatasetCard, root: Path) -> Path | None:
    """The set's directory below the data root, or None if it is not there."""
    path = root / card.location
    return path if (path / IMAGES).is_dir() else None


def open_dataset(card: DatasetCard, root: Path, band_names: str = "corrected") -> SceneDataset:
    """Open the set in `root`; no image is opened. Raises `UserError`: not nine class folders, or an empty split."""
    classes = tuple(folder.name for folder in folders(root / IMAGES))
    if len(classes) != card.num_classes:
        raise UserError(f"{root / IMAGES} has {len(classes)} class folders; {card.name} has {card.num_classes}")
    warnings = [f"{card.name}: the classes are called {', '.join(classes)}"] if classes != card.classes else []
    return assemble(replace(card, classes=classes), root, _scenes(root), warnings)


def _scenes(root: Path) -> Iterator[Scene]:
    for folder in folders(root / IMAGES):
        for path in images_in(folder):
            name = f"{folder.name}/{path.name}"
            yield Scene(f"{IMAGES}/{name}", drawn(name), folder.name)
