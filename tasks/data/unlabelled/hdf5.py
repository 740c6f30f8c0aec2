"""DEO's pretraining file: HDF5 with a dataset `images`, [n, 13, H, W], digital numbers in Sentinel-2's band order.

The release (github.com/wolfilip/DEO-FM, DEO/utils/datasets.py) reads bands 1-8, 11, 12 as they lie, blue first where the
file is in Sentinel-2's order. Here red comes first: bands 3, 2, 1, 4-8, 11, 12. The recipe's switch `bands=as_stored` turns
the three round again, and so gives what lies in the file, whichever that is.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.common.errors import UserError, one_line
from tasks.data.unlabelled.images import SENTINEL2, TEN, Images, Sample

if TYPE_CHECKING:
    import h5py

SUFFIXES = (".h5", ".hdf5")
KEY = "images"


class File:
    """The dataset of one file, opened once per process: a handle of HDF5 does not survive a fork."""

    def __init__(self, path: Path) -> None:
        self.path, self.process, self.handle = path, -1, None

    def dataset(self) -> "h5py.Dataset":
        import h5py

        if self.handle is None or self.process != os.getpid():
            try:
                self.handle, self.process = h5py.File(self.path, "r"), os.getpid()
            except OSError as error:
                raise UserError(f"{self.path} is no readable HDF5 file ({one_line(error)})") from error
        if KEY not in self.handle or not isinstance(found := self.handle[KEY], h5py.Dataset):
            raise UserError(
                f"{self.path} holds {', '.join(self.handle) or 'nothing'}; DEO's layout is a dataset `{KEY}`"
            )
        return found

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "process": -1, "handle": None}


def open_file(path: Path) -> Images:
    """The samples `{"ms": (10, H, W)}` of one file. Raises `UserError` for another layout."""
    file = File(path)
    shape = file.dataset().shape
    if len(shape) != 4 or shape[1] != len(SENTINEL2):
        raise UserError(f"{path}: `{KEY}` has shape {tuple(shape)}, not [n, {len(SENTINEL2)}, H, W]")
    if not shape[0]:
        raise UserError(f"{path}: `{KEY}` is empty")
    wanted = [SENTINEL2.index(band) for band in TEN]

    def read(number: int) -> Sample:
        import numpy as np

        try:
            stored = file.dataset()[number]
        except OSError as error:
            raise UserError(f"{path}: image {number} cannot be read ({one_line(error)})") from error
        return {"ms": np.asarray(stored)[wanted].astype(np.float32)}

    return Images(
        layout=f"DEO's HDF5 file, {shape[0]} images of {shape[2]}x{shape[3]} pixels, bands {', '.join(TEN)}",
        sensors=("ms",),
        names=tuple(f"{path.name}#{number}" for number in range(shape[0])),
        files=((path.name, path.stat().st_size),),
        reader=read,
    )
