"""EuroSAT RGB (Helber et al. 2019) with the published lists of Neumann et al. (arXiv 1911.06721).

2750/<class>/<class>_<n>.jpg                              EuroSAT.zip, 64 px
eurosat-train.txt, eurosat-val.txt, eurosat-test.txt      names, as torchgeo's `EuroSAT` reads them
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path

from models.common.errors import choose
from tasks.data.dataset import SPLITS, DatasetCard
from tasks.data.rgb_scenes import Scene, SceneDataset, assemble, listing

IMAGES = "2750"


def present(card: DatasetCard, root: Path) -> Path | None:
    """The set's directory below the data root, or None if it is not there."""
    path = root / card.location
    return path if (path / IMAGES).is_dir() else None


def open_dataset(card: DatasetCard, root: Path, band_names: str = "corrected") -> SceneDataset:
    """Open the set in `root`. Raises `UserError`: a list that is missing or names no class, an empty split."""
    scenes = list(_scenes(card, root))
    published = dict(card.checksums)
    other = [path.name for path in _lists(root) if _checksum(path) != published[path.name]]
    warnings = [f"{card.name}: not the published lists: {', '.join(other)}"] if other else []
    return assemble(card, root, scenes, warnings, exact=True)


def _lists(root: Path) -> list[Path]:
    return [root / f"eurosat-{split}.txt" for split in SPLITS]


def _checksum(path: Path) -> str:
    return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def _scenes(card: DatasetCard, root: Path) -> Iterator[Scene]:
    """What the lists name and the disk has. The class is the folder, which every name repeats (`River_12.jpg`)."""
    for split, path in zip(SPLITS, _lists(root), strict=True):
        for line in listing(path, card).split():
            file = line.replace(".tif", ".jpg")  # the lists serve the thirteen-band set too
            label = choose(f"class in {path}:", file.rpartition("_")[0], card.classes)
            if (root / IMAGES / label / file).is_file():
                yield Scene(f"{IMAGES}/{label}/{file}", split, label)
