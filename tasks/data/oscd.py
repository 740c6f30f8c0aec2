"""OSCD (Daudt et al., IGARSS 2018): Sentinel-2 pairs of 24 cities, cut into 96-pixel tiles on the fly.

Read are the 13 bands as registered and resampled to 10 m (`imgs_1_rect`, `imgs_2_rect`), in the layout of the three
published archives (`Onera Satellite Change Detection dataset - Images`, `- Train Labels`, `- Test Labels`, beside each
other), or with each city's `cm` folder beside its images. Tiles start at the upper left corner and do not overlap; the
last ones reach past the border, are zero there and carry the label `ignore`. So cuts Seasonal Contrast's reader
(ServiceNow/seasonal-contrast, `datasets/oscd_dataset.py`), which gives the 827 and 385 tiles of the papers, but counts
the padding as no change. torchgeo's `OSCD` reads whole cities and is not used; a test compares.

OSCD has no validation split. `val_from_train` is ours: three of the fourteen training cities, drawn with
`random.Random(0).sample(sorted(cities), 3)` and stored in `splits/oscd_val.txt`; whole cities, so that no validation
tile touches a training tile (`tasks.data.dataset.with_validation`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from models.common.errors import UserError
from models.common.spectral import band
from tasks.data.dataset import DatasetCard
from tasks.data.folder import opened, pixels
from tasks.data.reader import digest, incomplete
from tasks.data.tiled import Tile, TiledPairs, one_shape, tiles

if TYPE_CHECKING:
    import numpy as np

ARCHIVE = "Onera Satellite Change Detection dataset - "
CITIES = {
    "train": "abudhabi aguasclaras beihai beirut bercy bordeaux cupertino hongkong mumbai nantes paris pisa rennes saclay_e",
    "test": "brasilia chongqing dubai lasvegas milano montpellier norcia rio saclay_w valencia",
}
BANDS = "B01 B02 B03 B04 B05 B06 B07 B08 B8A B09 B10 B11 B12"
VALIDATION = Path(__file__).parent / "splits" / "oscd_val.txt"
CARDS = {
    "oscd": DatasetCard(
        name="oscd",
        title="Urban change in 24 cities",
        label="change",
        classes=("no change", "change"),
        bands=tuple(band(f"S2:{name}", name, "dn") for name in BANDS.split()),
        size=96,
        gsd=10,
        modality="ms",
        family="oscd",
        location="oscd",
        splits=(827, 0, 385),
        ignore=255,
        licence="CC BY-NC-SA 4.0",
        citation="Daudt et al., IGARSS 2018",
        origin="https://rcdaudt.github.io/oscd; Copernicus Sentinel-2 L1C of 2015 to 2018",
        notes="Whole cities cut into tiles of 96 without overlap; padding past the border is ignored.",
        split_note="The authors' 14 and 10 cities. No validation split is published: `val_from_train` is ours (three "
        "cities, splits/oscd_val.txt). DEO does not say how it cut its tiles; its counts are those of this tiling.",
        checksums=tuple(
            (f"{ARCHIVE}{part}.zip", f"sha256:{value}")
            for part, value in (
                ("Images", "940b87887511058a933e67cd6d0e43e2eb825a55d8e79a50983dee7f23003656"),
                ("Train Labels", "89fb54cd12ad0dbea6c447528139dec305b865294215434bf6dd170fb8fd3ca5"),
                ("Test Labels", "2e195eaa1b788b99fa93ea8073e3780bc0b763000b0c49dbf70548acf1e5d67d"),
            )
        ),
    )
}


def present(card: DatasetCard, root: Path) -> Path | None:
    """The set's directory below the data root, or the data root itself where the archives were unpacked there."""
    named = [root / name for name in (card.location, "OSCD") if (root / name).is_dir()]
    here = [root] if (root / f"{ARCHIVE}Images").is_dir() else []
    return next(iter([*named, *here]), None)


def validation_cities() -> tuple[str, ...]:
    """The training cities of our validation split, as stored."""
    lines = VALIDATION.read_text(encoding="utf-8").splitlines()
    return tuple(line for line in lines if line and not line.startswith("#"))


def open_dataset(card: DatasetCard, path: Path, band_names: str = "") -> "Oscd":
    """Open the directory: headers are read, no pixels. Raises `UserError`. `band_names` is not used."""
    images = path / f"{ARCHIVE}Images"
    images = images if images.is_dir() else path
    files: dict[str, tuple[dict[str, Path], dict[str, Path], Path]] = {}
    found: dict[str, Tile] = {}
    splits: dict[str, tuple[str, ...]] = {"train": (), "val": (), "test": ()}
    for split in ("train", "test"):
        for city in _cities(images, split):
            if not (images / city).is_dir():
                raise UserError(f"{images} lacks the city {city} of the {split} split; fetch the set again")
            before, after = (_bands(images / city / f"imgs_{date}_rect") for date in (1, 2))
            label = _label(path / f"{ARCHIVE}{split.capitalize()} Labels", images, city)
            files[city] = before, after, label
            rows, columns = one_shape(city, [_shape(file) for file in (before["B04"], after["B04"], label)])
            here = dict(tiles(city, rows, columns, card.size))
            found.update(here)
            splits[split] += tuple(here)
    ours = set(validation_cities())
    return Oscd(
        card=card,
        root=path,
        splits=splits,
        version=digest(
            card, splits, path, (file for a, b, c in files.values() for file in (*a.values(), *b.values(), c))
        ),
        warnings=incomplete(card, splits),
        tiles=found,
        files=files,
        val_from_train=tuple(name for name in splits["train"] if found[name].image in ours),
    )


def _cities(images: Path, split: str) -> list[str]:
    """Those of the published train.txt and test.txt (one line, commas between), or else the fourteen and the ten."""
    file = images / f"{split}.txt"
    if not file.is_file():
        return CITIES[split].split()
    return [name for name in file.read_text(encoding="utf-8").replace("\n", ",").replace(" ", "").split(",") if name]


def _bands(folder: Path) -> dict[str, Path]:
    """The file of each band: `B01.tif` as published, or any name that ends with it."""
    files = sorted(folder.glob("*.tif"))
    found = {name: next((file for file in files if file.stem.endswith(name)), None) for name in BANDS.split()}
    absent = [name for name, file in found.items() if file is None]
    if absent:
        raise UserError(f"{folder} lacks the bands {', '.join(absent)}; fetch the set again")
    return {name: file for name, file in found.items() if file is not None}


def _label(labels: Path, images: Path, city: str) -> Path:
    places = [folder / city / "cm" / name for folder in (labels, images) for name in ("cm.png", f"{city}-cm.tif")]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise UserError(f"{city} has no {places[0]}; fetch the labels again")
    return found


def _shape(path: Path) -> tuple[int, int]:
    with opened(path) as source:
        return source.shape


@dataclass(kw_only=True)
class Oscd(TiledPairs):
    """OSCD, opened; `files` holds the bands of both dates and the label by city."""

    files: dict[str, tuple[dict[str, Path], dict[str, Path], Path]]
    val_from_train: tuple[str, ...] = ()

    def pair(self, image: str, bands: Sequence[str]) -> "np.ndarray":
        """Both dates of a city, (2, C, H, W) uint16. Raises `UserError` if a band is of another size."""
        import numpy as np

        keys = {one.name: one.key for one in self.card.bands}
        planes = [[pixels(date[keys[name]], [1])[0] for name in bands] for date in self.files[image][:2]]
        one_shape(image, [plane.shape for date in planes for plane in date])
        return np.stack([np.stack(date) for date in planes])

    def change(self, image: str) -> "np.ndarray":
        """The label of a city, (H, W): what is not black in cm.png, or 2 in the GeoTIFF (1 is no change)."""
        import numpy as np

        file = self.files[image][2]
        with opened(file) as source:
            colours = range(1, min(source.count, 3) + 1)
        stored = pixels(file, list(colours)).max(axis=0)
        if file.suffix == ".tif" and not set(np.unique(stored).tolist()) <= {1, 2}:
            raise UserError(f"{file} holds {stored.max()}; a label is 1 (no change) or 2 (change)")
        return (stored > (1 if file.suffix == ".tif" else 0)).astype(np.int64)
