"""Folders of images: which of their bands is which, and samples in the units that pretraining expects.

Bands are named, in this order of trust, by a file `bands.toml` in the folder (`bands = ["B02", ...]`, optionally
`unit = "reflectance"` or `"dn"`), by the descriptions in the files, or by their number: 12 are Sentinel-2 Level-2A (no
B10), 3 (or 4, whose last is not read) are red, green, blue. Thirteen nameless bands have one of two orders, and the
cirrus band tells them apart: B10 is by far the darkest, tenth in EuroSAT's order and eleventh in Sentinel-2's.
"""

import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from models.common.errors import UserError, choose
from tasks.data.description import SUFFIXES
from tasks.data.folder import opened, pixels
from tasks.data.unlabelled.images import EUROSAT, SENTINEL2, TEN, VISIBLE, Images, Sample, sized

if TYPE_CHECKING:
    import numpy as np

RGB = ("red", "green", "blue")
LEVEL_2A = tuple(band for band in SENTINEL2 if band != "B10")
BANDS_FILE = "bands.toml"
SCALES = {"dn": 1.0, "reflectance": 10000.0}  # to digital numbers
LOOKED_AT = 8  # files whose cirrus band is looked for


class Bands(NamedTuple):
    """The names of a file's bands in its order, where they come from, and what turns values into digital numbers."""

    names: tuple[str, ...]
    source: str
    scale: float = 1.0

    @property
    def multispectral(self) -> bool:
        """True if the ten bands of DEO are there."""
        return set(TEN) <= set(self.names)

    def numbers(self, wanted: Sequence[str]) -> list[int]:
        """Positions from 1 of the wanted bands. Raises `UserError` for one that is missing."""
        return [self.names.index(choose("band", band, self.names)) + 1 for band in wanted]


def images_below(root: Path) -> list[Path]:
    """Every image file in a folder and the folders in it, sorted; hidden ones are left out."""
    found = (path for path in root.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    return sorted(path for path in found if not any(part.startswith(".") for part in path.relative_to(root).parts))


def bands_of(root: Path, files: Sequence[Path]) -> Bands:
    """Name the bands of the files in a folder, from the first of them. Raises `UserError` where that is not possible."""
    with opened(files[0]) as source:
        count, descriptions, dtype = source.count, source.descriptions, source.dtypes[0]
    declared = root / BANDS_FILE
    if declared.is_file():
        return _declared(declared, count)
    if count >= len(TEN) and dtype.startswith("float"):
        raise UserError(f"{files[0]} holds {dtype} numbers of unknown unit: say names and unit in {declared}")
    named = tuple(_canonical(text or "") for text in descriptions)
    if all(named) and len(set(named)) == len(named):
        return Bands(tuple(map(str, named)), "named in the files")
    if count in (3, 4):
        return Bands(RGB + ("alpha",) * (count - 3), "red, green, blue")
    if count == len(LEVEL_2A):
        return Bands(LEVEL_2A, "12 nameless bands: Sentinel-2 Level-2A's order")
    if count == len(SENTINEL2):
        return _by_cirrus(files, declared)
    raise UserError(
        f"{files[0]} has {count} nameless bands: name them in {declared}, e.g. "
        'bands = ["B02", "B03", "B04", "B08"], and unit = "dn" or "reflectance"'
    )


def open_folder(root: Path, files: Sequence[Path]) -> Images:
    """Multispectral samples `{"ms": (10, H, W)}` in digital numbers."""
    bands = bands_of(root, files)
    missing = [band for band in TEN if band not in bands.names]
    if missing:
        raise UserError(f"{root}: its images ({bands.source}) have no {', '.join(missing)}, which DEO needs")

    return Images(
        layout=f"folder of {len(files)} images ({bands.source}), bands {', '.join(TEN)}",
        sensors=("ms",),
        names=tuple(file.relative_to(root).as_posix() for file in files),
        files=sized(root, files),
        reader=lambda number: digital_numbers(files[number], bands),
    )


def digital_numbers(file: Path, bands: Bands) -> Sample:
    """`{"ms": (10, H, W)}` of one file."""
    import numpy as np

    _check_count(file, bands)
    return {"ms": pixels(file, bands.numbers(TEN)).astype(np.float32) * np.float32(bands.scale)}


def colour(file: Path, bands: Bands) -> "np.ndarray":
    """Red, green, blue (3, H, W) in 0..1: bytes over 255, other whole numbers as digital numbers over 10000."""
    import numpy as np

    _check_count(file, bands)
    wanted = bands.numbers(RGB if set(RGB) <= set(bands.names) else VISIBLE)
    stored = pixels(file, wanted)
    if stored.dtype == np.uint8:
        return stored.astype(np.float32) / 255
    if np.issubdtype(stored.dtype, np.integer) or bands.multispectral:
        return np.clip(stored.astype(np.float32) * np.float32(bands.scale) / 10000, 0, 1)
    if np.nanmin(stored) < 0 or np.nanmax(stored) > 1:
        raise UserError(f"{file}: an RGB image of {stored.dtype} must lie in 0..1")
    return stored.astype(np.float32)


def _check_count(file: Path, bands: Bands) -> None:
    with opened(file) as source:
        if source.count != len(bands.names) and not (source.count in (3, 4) and set(RGB) <= set(bands.names)):
            raise UserError(f"{file} has {source.count} bands where the files before it have {len(bands.names)}")


def _canonical(text: str) -> str | None:
    """`B4`, `S2:B04`, `b04 (red)` -> `B04`; None for anything else."""
    match = re.match(r"(?:S2[:_ ])?B0*(\d{1,2})(A?)\b", text.strip(), re.IGNORECASE)
    name = f"B{int(match[1]):02d}" if match and not match[2] else "B8A" if match and match[1] == "8" else None
    return name if name in SENTINEL2 else None


def _declared(path: Path, count: int) -> Bands:
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid TOML: {error}") from error
    names = table.get("bands")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names) or len(names) != count:
        raise UserError(f"{path} must name the {count} bands of its images in order: bands = [...]")
    known = tuple(_canonical(name) or name for name in names)
    return Bands(
        known, f"named in {path.name}", SCALES[choose(f"unit in {path.name}", table.get("unit", "dn"), SCALES)]
    )


def _by_cirrus(files: Sequence[Path], declared: Path) -> Bands:
    import numpy as np

    step = max(1, len(files) // LOOKED_AT)
    medians = [np.median(pixels(file, range(1, 14)).reshape(13, -1), axis=1) for file in files[::step][:LOOKED_AT]]
    darkest = int(np.mean(medians, axis=0).argmin())
    for order, name in ((EUROSAT, "EuroSAT's order (B8A last)"), (SENTINEL2, "Sentinel-2's order")):
        if order[darkest] == "B10":
            return Bands(order, f"13 nameless bands: {name}, told by the cirrus band")
    raise UserError(
        f"{files[0].parent} holds 13 nameless bands in an order that cannot be told: band {darkest + 1} is the darkest, "
        f"not the cirrus band (10 or 11); name them in {declared}"
    )
