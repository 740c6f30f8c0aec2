"""Sen1Floods11 (Bonafilia et al., CVPR Workshops 2020): 446 hand-labelled chips of Sentinel-1 and Sentinel-2.

Read are the published folders (`v1.1/data/flood_events/HandLabeled/{S1Hand,S2Hand,LabelHand}` with the lists in
`v1.1/splits/flood_handlabeled/flood_{train,valid,test}_data.csv`; the fifteen chips of Bolivia are in no split), and
the three folders alone. Without lists the split is ours: of every five chips in the order of their names three are
train, the fourth validation, the fifth test. torchgeo 0.10 has no reader of this set.

A model takes one sensor or both: `read` opens only the files that hold the bands it is asked for. Chips that lack a
sensor's file, or are missing everywhere in it (Paraguay_34417 is NaN throughout Sentinel-1), are left out by `select`,
which looks for a finite value in the first rows and reads on only where there is none. Sentinel-1 may hold single NaN.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from models.common.errors import UserError, choose
from models.common.spectral import band
from tasks.data.dataset import DatasetCard
from tasks.data.folder import opened, pixels
from tasks.data.reader import Reader, digest, incomplete

if TYPE_CHECKING:
    import numpy as np

HAND = Path("data") / "flood_events" / "HandLabeled"
LISTS = Path("splits") / "flood_handlabeled"
CSV = {"train": "flood_train_data.csv", "val": "flood_valid_data.csv", "test": "flood_test_data.csv"}
SENTINEL2 = "B01 B02 B03 B04 B05 B06 B07 B08 B8A B09 B10 B11 B12"
FOLDERS = ("sen1floods11", "Sen1Floods11")
CARDS = {
    "sen1floods11": DatasetCard(
        name="sen1floods11",
        title="Water in eleven floods",
        label="mask",
        classes=("no water", "water"),
        bands=(
            *(band(f"S2:{name}", f"S2Hand:{number}", "dn") for number, name in enumerate(SENTINEL2.split(), 1)),
            band("S1:VV", "S1Hand:1", "db"),
            band("S1:VH", "S1Hand:2", "db"),
        ),
        size=512,
        gsd=10,
        modality="ms",
        family="sen1floods11",
        location="sen1floods11",
        splits=(252, 89, 90),
        ignore=255,
        licence="CC BY 4.0 (as commonly given; the repository states none)",
        citation="Bonafilia et al., CVPR Workshops 2020",
        origin="https://github.com/cloudtostreet/Sen1Floods11; Copernicus Sentinel-1 and Sentinel-2 L1C",
        notes="The stored label -1 (no data) becomes 255, which is ignored. DEO counts it as a third class and ignores it.",
        split_note="The official split of the hand-labelled chips, without Bolivia.",
    )
}


def present(card: DatasetCard, root: Path) -> Path | None:
    """The set's directory below the data root, or None."""
    return next((root / name for name in FOLDERS if (root / name).is_dir()), None)


def open_dataset(card: DatasetCard, path: Path, band_names: str = "") -> "Sen1Floods11":
    """Open the directory: lists and one header are read, no pixels. Raises `UserError`. `band_names` is not used."""
    versioned = path / "v1.1" if (path / "v1.1").is_dir() else path
    chips = versioned / HAND if (versioned / HAND).is_dir() else versioned
    labels = sorted((chips / "LabelHand").glob("*_LabelHand.tif"))
    if not labels:
        raise UserError(f"{path} holds no chips; look for {HAND}/LabelHand/*_LabelHand.tif, or LabelHand/ alone")
    names = [file.name.removesuffix("_LabelHand.tif") for file in labels]
    lists, warnings = versioned / LISTS, []
    if lists.is_dir():
        splits = {split: _listed(lists / file, names) for split, file in CSV.items()}
        warnings = incomplete(card, splits)
    else:
        places = {"train": (0, 1, 2), "val": (3,), "test": (4,)}
        splits = {
            split: tuple(name for number, name in enumerate(names) if number % 5 in chosen)
            for split, chosen in places.items()
        }
        warnings.append(f"{card.name}: no official lists at {lists}; {len(names)} chips are split by a rule of ours")
    with opened(labels[0]) as source:
        card = replace(card, size=max(source.shape))
    sensors = ("LabelHand", "S1Hand", "S2Hand")
    candidates = [_file(chips, sensor, name) for chosen in splits.values() for name in chosen for sensor in sensors]
    version = digest(card, splits, path, [file for file in candidates if file.is_file()])
    return Sen1Floods11(card=card, root=path, splits=splits, version=version, warnings=warnings, chips=chips)


def _listed(file: Path, names: Sequence[str]) -> tuple[str, ...]:
    """The chips of a split, in the order of its list: rows of `<chip>_S1Hand.tif,<chip>_LabelHand.tif`, no header."""
    if not file.is_file():
        raise UserError(f"the list {file} is missing; fetch the set again")
    rows = [row for row in csv.reader(file.read_text(encoding="utf-8").splitlines()) if row]
    listed = tuple(row[0].strip().removesuffix("_S1Hand.tif") for row in rows)
    absent = [name for name in listed if name not in set(names)]
    if absent:
        raise UserError(f"{file} names {len(absent)} absent chips, first {absent[0]!r}; fetch the set again")
    return listed


def _file(chips: Path, sensor: str, name: str) -> Path:
    return chips / sensor / f"{name}_{sensor}.tif"


@dataclass(kw_only=True)
class Sen1Floods11(Reader):
    """Sen1Floods11, opened; `chips` is the folder that holds S1Hand, S2Hand and LabelHand."""

    chips: Path

    def read(self, name: str, bands: Sequence[str]) -> "np.ndarray":
        """One chip in sensor units, (C, H, W): int16 of Sentinel-2, float32 (dB) of Sentinel-1, or of both together.

        Raises `UserError` if a file is missing or damaged, or holds nothing but NaN.
        """
        import numpy as np

        planes: dict[str, np.ndarray] = {}
        for sensor, numbers in self._wanted(bands).items():
            found = pixels(_there(_file(self.chips, sensor, name)), list(numbers.values()))
            if not np.isfinite(found).any():
                raise UserError(f"{_file(self.chips, sensor, name)} holds nothing but NaN")
            planes.update(zip(numbers, found, strict=True))
        if len({plane.shape for plane in planes.values()}) > 1:
            raise UserError(f"{name}: Sentinel-1 and Sentinel-2 are of different sizes")
        return np.stack([planes[one] for one in bands])

    def label(self, name: str) -> "np.ndarray":
        """The mask (H, W), int64: 0 no water, 1 water, 255 no data."""
        import numpy as np

        file = _file(self.chips, "LabelHand", name)
        stored = pixels(file, [1])[0]
        if not set(np.unique(stored).tolist()) <= {-1, 0, 1}:
            raise UserError(f"{file} holds {stored.min()}..{stored.max()}; a label is -1 (no data), 0 or 1")
        return np.where(stored < 0, self.card.ignore, stored).astype(np.int64)

    def unusable(self, name: str, bands: Sequence[str]) -> str:
        """Said of chips without a file of a sensor that is read, or with nothing but NaN in Sentinel-1."""
        import numpy as np
        from rasterio.windows import Window

        for sensor in self._wanted(bands):
            file = _file(self.chips, sensor, name)
            if not file.is_file():
                return f"they have no {sensor}"
            if sensor == "S1Hand":
                with opened(file) as source:
                    first = source.read(window=Window(0, 0, source.width, 1))  # pyright: ignore[reportCallIssue]
                if not np.isfinite(first).any() and not np.isfinite(pixels(file, [1, 2])).any():
                    return "Sentinel-1 is NaN everywhere"
        return ""

    def _wanted(self, bands: Sequence[str]) -> dict[str, dict[str, int]]:
        """By folder, the number in the file of each band that is asked for."""
        keys = {one.name: one.key.split(":") for one in self.card.bands}
        wanted: dict[str, dict[str, int]] = {}
        for name in bands:
            sensor, number = keys[choose(f"band of {self.card.name}", name, keys)]
            wanted.setdefault(sensor, {})[name] = int(number)
        return wanted


def _there(file: Path) -> Path:
    if not file.is_file():
        raise UserError(f"{file} is missing; fetch the set again")
    return file
