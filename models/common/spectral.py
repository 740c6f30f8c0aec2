"""Bands by canonical name: sensor, wavelength, bandwidth, native GSD, and the common names that RGB models ask for.

Wavelengths and bandwidths are in nanometres, GSD in metres. Sentinel-2A: ESA, Sentinel-2 MSI technical guide
(spectral bands); Landsat 8: USGS, Landsat 8 data users handbook, table 1-1.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, nan
from typing import NamedTuple

from models.common.errors import UserError


class Spectral(NamedTuple):
    """Centre wavelength and bandwidth in nm, native ground sampling distance in m."""

    wavelength: float
    bandwidth: float
    gsd: float


SPECTRAL = {
    "S2:B01": Spectral(442.7, 21, 60),
    "S2:B02": Spectral(492.4, 66, 10),
    "S2:B03": Spectral(559.8, 36, 10),
    "S2:B04": Spectral(664.6, 31, 10),
    "S2:B05": Spectral(704.1, 15, 20),
    "S2:B06": Spectral(740.5, 15, 20),
    "S2:B07": Spectral(782.8, 20, 20),
    "S2:B08": Spectral(832.8, 106, 10),
    "S2:B8A": Spectral(864.7, 21, 20),
    "S2:B09": Spectral(945.1, 20, 60),
    "S2:B10": Spectral(1373.5, 31, 60),
    "S2:B11": Spectral(1613.7, 91, 20),
    "S2:B12": Spectral(2202.4, 175, 20),
    "L8:B1": Spectral(443, 16, 30),
    "L8:B2": Spectral(482, 60, 30),
    "L8:B3": Spectral(561, 57, 30),
    "L8:B4": Spectral(655, 37, 30),
    "L8:B5": Spectral(865, 28, 30),
    "L8:B6": Spectral(1609, 85, 30),
    "L8:B7": Spectral(2201, 187, 30),
    "L8:B9": Spectral(1373, 20, 30),
    "L8:B10": Spectral(10895, 590, 100),
    "S1:VV": Spectral(nan, nan, 10),  # each model that takes bands by wavelength has its own number for radar
    "S1:VH": Spectral(nan, nan, 10),
    "RGB:red": Spectral(665, 70, nan),
    "RGB:green": Spectral(560, 70, nan),
    "RGB:blue": Spectral(490, 70, nan),
    "RGB:nir": Spectral(842, 110, nan),
}
COMMON = {
    "red": ("RGB:red", "S2:B04", "L8:B4"),
    "green": ("RGB:green", "S2:B03", "L8:B3"),
    "blue": ("RGB:blue", "S2:B02", "L8:B2"),
}
UNITS = ("dn", "reflectance", "uint8", "fraction", "db", "any", "undocumented")


@dataclass(frozen=True)
class Band:
    """One band of a data set: canonical name, its key in the files, and what its numbers mean.

    Units: `dn` (reflectance x 10000), `reflectance` (0..1 and above), `uint8` (0..255, rendered), `fraction` (uint8
    divided by 255), `db`, or `undocumented` (a z-score with the data set's own statistics is all that can be done).
    `mean` and `std` are the data set's statistics in that unit (NaN where none), `statistics` says whose they are.
    """

    name: str
    key: str
    unit: str
    wavelength: float = nan
    bandwidth: float = nan
    gsd: float = nan
    mean: float = nan
    std: float = nan
    statistics: str = ""


def band(name: str, key: str, unit: str) -> Band:
    """A band with the wavelength, bandwidth and native GSD of its canonical name (NaN for names not in the table)."""
    known = SPECTRAL.get(name, Spectral(nan, nan, nan))
    return Band(name, key, unit, *known)


def matches(wanted: str, name: str) -> bool:
    """True if the data set's band `name` is what a mode calls `wanted` (canonical or common)."""
    return wanted == name or name in COMMON.get(wanted, ())


def per_band(
    model: str, what: str, count: int, names: Sequence[str], values: Sequence[float], own: Mapping[str, float]
) -> tuple[float, ...]:
    """The number that `model` is told about each of `count` bands: of the batch where known, else its `own` by name.

    `names` and `values` run along the bands of a batch (or are empty); `what` is the plural noun of the message. Raises
    `UserError` naming the first band without a number.
    """
    if any(given and len(given) != count for given in (names, values)):
        raise UserError(f"{model} got {count} bands, but {len(names)} names and {len(values)} {what}: give one each")
    found = []
    for index in range(count):
        name = names[index] if names else f"number {index + 1}"
        value = values[index] if values and isfinite(values[index]) else own.get(name, nan)
        if not isfinite(value):
            raise UserError(
                f"{model} takes bands by {what}, and none is known of band {name}: leave it out or declare it in the data set"
            )
        found.append(float(value))
    return tuple(found)
