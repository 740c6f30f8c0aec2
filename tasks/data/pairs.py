"""Reader of pairs of dates with split lists: before/, after/ and label/ of GeoTIFF, and train.txt, val.txt, test.txt.

The layout of the synthetic twin's change set. Pairs of one's own are described by a TOML file instead (`folder.py`),
which reads the same files.
"""

from pathlib import Path

from tasks.data import description
from tasks.data.dataset import SPLITS, DatasetCard
from tasks.data.folder import FolderDataset

LAYOUT = {"layout": "before-after-label", "before": "before", "after": "after", "label": "label"}


def present(card: DatasetCard, root: Path) -> Path | None:
    """The set's directory below the data root, or None."""
    return path if (path := root / card.location).is_dir() else None


def open_dataset(card: DatasetCard, path: Path, band_names: str = "") -> FolderDataset:
    """Open the directory: lists and headers are read, no pixels. Raises `UserError`. `band_names` is not used."""
    entries = sorted(description.samples(path, LAYOUT, path, path, card.classes))
    splits = {split: description.listed(path / f"{split}.txt", entries) for split in SPLITS}
    known = {entry.name: entry for split in splits.values() for entry in split}
    dataset = FolderDataset(
        card=card,
        root=path,
        splits={split: tuple(entry.name for entry in splits[split]) for split in SPLITS},
        version=description.digest(path / "train.txt", path, known.values()),
        entries=known,
        channels=len(card.bands),
        mask_values=(0, 1),
    )
    return dataset.checked()
