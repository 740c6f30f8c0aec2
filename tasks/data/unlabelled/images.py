"""The shape of a set of unlabelled images, and what its readers share."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from models.common.errors import UserError

if TYPE_CHECKING:
    import numpy as np

# In the order of a Sentinel-2 Level-1C product; DEO drops the three atmospheric ones (B01, B09, B10).
SENTINEL2 = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")
# EuroSAT's files (Helber et al. 2019) and everything exported like them put B8A last.
EUROSAT = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B09", "B10", "B11", "B12", "B8A")
TEN = ("B04", "B03", "B02", "B05", "B06", "B07", "B08", "B8A", "B11", "B12")
VISIBLE = ("B04", "B03", "B02")
# The least side of an image, in pixels: the smallest crops of DEO and X-STARS hold a twentieth of its area, and what
# has under four pixels a side shows nothing when it is enlarged to a view.
LEAST_SIDE = 16

Sample = dict[str, "np.ndarray"]
Reader = Callable[[int], Sample]


@dataclass(frozen=True)
class Images:
    """Samples by number. A sample holds images by sensor, float32 (C, H, W): see `models.pretraining.builder`.

    `layout` says in words what was recognised, `sensors` what a sample holds, `names` identify samples, `files` are the
    paths below their roots with their sizes in bytes, `notes` sentences for the user.
    """

    layout: str
    sensors: tuple[str, ...]
    names: tuple[str, ...]
    files: tuple[tuple[str, int], ...]
    reader: Reader
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, number: int) -> Sample:
        """One sample. Raises `UserError` for a file that cannot be read, and for an image under 16 pixels a side."""
        sample = self.reader(number)
        for sensor, image in sample.items():
            if min(image.shape[1:]) < LEAST_SIDE:
                size = "x".join(map(str, image.shape[1:]))
                raise UserError(
                    f"{self.names[number]} ({sensor}) has {size} pixels, smaller than the smallest crop can be "
                    f"({LEAST_SIDE} pixels a side): leave such images out"
                )
        return sample

    @property
    def digest(self) -> str:
        """sha256 (hex) over the layout and the name and size in bytes of every file."""
        lines = [self.layout, *(f"{name} {size}" for name, size in self.files)]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    def subset(self, keep: Callable[[str], bool]) -> "Images":
        """The samples whose name `keep` accepts; files stay those of the whole set, names enter the digest."""
        numbers = [number for number, name in enumerate(self.names) if keep(name)]
        kept = tuple(self.names[number] for number in numbers)
        chosen = hashlib.sha256("\n".join(kept).encode()).hexdigest()[:16]
        return replace(
            self,
            names=kept,
            reader=lambda number: self.reader(numbers[number]),
            layout=f"{self.layout}; {len(kept)} of {len(self.names)} samples (names {chosen})",
        )


def joined(parts: Sequence[Images]) -> Images:
    """Several sets as one, in their order. Their sensors may differ, as those of DEO's samples with and without RGB do."""
    if len(parts) == 1:
        return parts[0]
    starts: list[tuple[int, Images]] = []
    total = 0
    for part in parts:
        starts.append((total, part))
        total += len(part)

    def read(number: int) -> Sample:
        start, part = next((start, part) for start, part in reversed(starts) if start <= number)
        return part.reader(number - start)

    return Images(
        layout=" + ".join(part.layout for part in parts),
        sensors=tuple(dict.fromkeys(sensor for part in parts for sensor in part.sensors)),
        names=tuple(name for part in parts for name in part.names),
        files=tuple(file for part in parts for file in part.files),
        reader=read,
        notes=tuple(note for part in parts for note in part.notes),
    )


def sized(root: Path, files: Iterable[Path]) -> tuple[tuple[str, int], ...]:
    """Path below `root` and size in bytes of every file, sorted: what the digest is made of."""
    return tuple(sorted((file.relative_to(root).as_posix(), file.stat().st_size) for file in files))
