"""PASTIS and PASTIS-R (Garnot and Landrieu, ICCV 2021): Sentinel-2 series of 2433 patches, read as their median.

Read is the published layout: `DATA_S2/S2_<id>.npy` (T, 10, 128, 128) int16, `ANNOTATIONS/TARGET_<id>.npy` whose first
layer holds the classes, and `metadata.geojson` with the fold of each patch (1-3 train, 4 validation, 5 test).
The median over the dates is the lower of the two middle ones where T is even, as `torch.median` takes it in DEO's
evaluation (wolfilip/satmae_experiments): every value is one that was measured, in the stored dtype.
torchgeo's `PASTIS` gives whole series as float tensors and needs the folder's name; it is not used, a test compares.

Reading a patch costs a file of 11 to 20 MB and a partial sort over its dates: about a tenth of a second once the file
is in memory. Nothing is cached here: features are stored after the first pass, and a run that reads images again and
again (augmentation) pays it again. The statistics of the bands are those of the medians and need one pass over train.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.common.errors import UserError, choose, one_line
from models.common.spectral import band
from tasks.data.dataset import DatasetCard
from tasks.data.reader import Reader, digest, incomplete, missing

if TYPE_CHECKING:
    import numpy as np

FOLDS = {"train": (1, 2, 3), "val": (4,), "test": (5,)}
BANDS = "B02 B03 B04 B05 B06 B07 B08 B8A B11 B12"
FOLDERS = ("PASTIS-R", "PASTIS", "pastis")
CLASSES = (
    "background; meadow; soft winter wheat; corn; winter barley; winter rapeseed; spring barley; sunflower; grapevine; "
    "beet; winter triticale; winter durum wheat; fruits, vegetables, flowers; potatoes; leguminous fodder; soybeans; "
    "orchard; mixed cereal; sorghum; void"
)
CARDS = {
    "pastis": DatasetCard(
        name="pastis",
        title="Crop types of France, a median over the dates of a year",
        label="mask",
        classes=tuple(CLASSES.split("; ")),
        bands=tuple(band(f"S2:{name}", str(number), "dn") for number, name in enumerate(BANDS.split())),
        size=128,
        gsd=10,
        modality="ms",
        family="pastis",
        location="PASTIS-R",
        splits=(1455, 482, 496),
        licence="Etalab open licence 2.0",
        citation="Garnot and Landrieu, ICCV 2021",
        origin="https://github.com/VSainteuf/pastis-benchmark; Copernicus Sentinel-2 L2A of 2018 and 2019",
        notes="Void (19: parcels mostly outside their patch) is a class here, as DEO counts its twenty; the data set's "
        "authors ignore it. Scores are given with and without it.",
        no_data=19,
        split_note="The authors' five folds; 1-3, 4 and 5 as in the first of their five rotations.",
        checksums=(("PASTIS-R.zip", "md5:4887513d6c2d2b07fa935d325bd53e09"),),
    )
}


def present(card: DatasetCard, root: Path) -> Path | None:
    """The set's directory below the data root, or None."""
    return next((root / name for name in FOLDERS if (root / name).is_dir()), None)


def open_dataset(card: DatasetCard, path: Path, band_names: str = "") -> "Pastis":
    """Open the directory: folds, names and one array's header are read. Raises `UserError`. `band_names` is not used."""
    metadata = path / "metadata.geojson"
    if not metadata.is_file():
        raise UserError(f"{path} has no metadata.geojson, which holds the folds; fetch the set again")
    try:
        rows = [one["properties"] for one in json.loads(metadata.read_bytes())["features"]]
        folds = [(int(row["Fold"]), str(int(row["ID_PATCH"]))) for row in rows]
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{metadata} gives no Fold and ID_PATCH per patch ({one_line(error)})") from error
    splits = {
        split: tuple(name for wanted in chosen for fold, name in folds if fold == wanted)
        for split, chosen in FOLDS.items()
    }
    warnings = incomplete(card, splits)
    files = [file for _, name in folds for file in (_series(path, name), _target(path, name))]
    missing(card, files)
    size = _array(_target(path, folds[0][1])).shape[-1]
    return Pastis(
        card=replace(card, size=size),
        root=path,
        splits=splits,
        version=digest(card, splits, path, [metadata, *files]),
        warnings=warnings,
    )


def lower_median(series: "np.ndarray") -> "np.ndarray":
    """The median over the first axis of (T, ...), of an even number the lower of the two middle values."""
    import numpy as np

    middle = (len(series) - 1) // 2
    return np.partition(series, middle, axis=0)[middle]


def _series(root: Path, name: str) -> Path:
    return root / "DATA_S2" / f"S2_{name}.npy"


def _target(root: Path, name: str) -> Path:
    return root / "ANNOTATIONS" / f"TARGET_{name}.npy"


def _array(file: Path) -> Any:
    """An array on disk, mapped into memory, so that only the bands that are asked for are read."""
    import numpy as np

    try:
        return np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{file} cannot be read; it is truncated or no array ({one_line(error)})") from error


class Pastis(Reader):
    """PASTIS, opened; names are the patches' numbers."""

    def read(self, name: str, bands: Sequence[str]) -> "np.ndarray":
        """The median over the dates, (C, H, W) int16, in the order of `bands`. Raises `UserError` on a damaged file."""
        keys = {one.name: int(one.key) for one in self.card.bands}
        wanted = [keys[choose(f"band of {self.card.name}", one, keys)] for one in bands]
        file = _series(self.root, name)
        series = _array(file)
        if series.ndim != 4 or series.shape[1] != len(keys) or not len(series):
            raise UserError(f"{file} is of shape {series.shape}, not (dates, {len(keys)}, rows, columns)")
        return lower_median(series[:, wanted])

    def label(self, name: str) -> "np.ndarray":
        """The mask (H, W) of classes 0..19, int64. Raises `UserError` on other values."""
        import numpy as np

        file = _target(self.root, name)
        stored = _array(file)
        if stored.ndim != 3:
            raise UserError(f"{file} is of shape {stored.shape}, not (layers, rows, columns)")
        mask = np.asarray(stored[0]).astype(np.int64)
        if mask.min() < 0 or mask.max() >= self.card.num_classes:
            raise UserError(f"{file} holds {mask.min()}..{mask.max()}; classes are 0..{self.card.num_classes - 1}")
        return mask
