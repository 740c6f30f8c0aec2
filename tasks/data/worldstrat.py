"""WorldStrat (Cornebise et al. 2022): the SPOT 6/7 scenes, and the land cover of their place as the class.

    hr_dataset/<tile>/<tile>_rgb.png                 8 bits, about 1054 px (hr_dataset.zip)
    stratified_train_val_test_split.csv              columns tile, IPCC Class, split and more

Layout: zenodo.org/records/15382551, as torchgeo's `WorldStrat` reads it. `IPCC Class` groups the LCCS class of the
place into seven (worldstrat/worldstrat, `StratificationDatasets.py`); rows without one have a class of no group.
"""

import csv
from collections.abc import Iterator
from pathlib import Path

from models.common.errors import UserError, choose
from tasks.data.dataset import SPLITS, DatasetCard
from tasks.data.rgb_scenes import Scene, SceneDataset, assemble, listing

IMAGES, LIST = "hr_dataset", "stratified_train_val_test_split.csv"


def present(card: DatasetCard, root: Path) -> Path | None:
    """The set's directory below the data root, or None if it is not there."""
    path = root / card.location
    return path if (path / IMAGES).is_dir() else None


def open_dataset(card: DatasetCard, root: Path, band_names: str = "corrected") -> SceneDataset:
    """Open the set in `root`. Raises `UserError`: the list is missing or damaged, or a split is empty."""
    return assemble(card, root, (scene for scene in _scenes(card, root) if (root / scene.name).is_file()))


def _scenes(card: DatasetCard, root: Path) -> Iterator[Scene]:
    """Rows of the authors' list that have a class; a tile of two splits counts for test before val before train."""
    path = root / LIST
    rows = csv.DictReader(listing(path, card).splitlines())
    if not {"tile", "IPCC Class", "split"} <= set(rows.fieldnames or ()):
        raise UserError(f"{path} lacks a column of tile, IPCC Class, split; fetch it again")
    found: dict[str, Scene] = {}
    for row in rows:
        if not row["IPCC Class"]:
            continue
        split = choose(f"split in {path}:", row["split"], SPLITS)
        scene = Scene(f"{IMAGES}/{row['tile']}/{row['tile']}_rgb.png", split, row["IPCC Class"])
        known = found.get(scene.name, scene)
        found[scene.name] = max(known, scene, key=lambda one: SPLITS.index(one.split))
    yield from found.values()
