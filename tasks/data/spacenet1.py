"""SpaceNet 1 (Van Etten et al., 2018, arXiv:1807.01232): building footprints of Rio de Janeiro, burnt into masks.

Read is what the published archives unpack to: `train/3band/3band_AOI_1_RIO_img<n>.tif` (pansharpened RGB, 50 cm),
`train/8band/8band_AOI_1_RIO_img<n>.tif` (2 m) and `train/geojson/Geo_AOI_1_RIO_img<n>.geojson` (polygons in longitude
and latitude). The published test part has no labels and is not used. 8-bit files are `uint8`; 16-bit files hold sensor
counts that nobody documents, so that only a z-score with the set's own statistics is left.

The split is that of DEO's authors (wolfilip/satmae_experiments): files sorted by name (1, 10, 100, 1000, ...), the
first 4999 train, the next 1000 validation, the rest test. torchgeo's `SpaceNet1` sorts by number and resamples every
image to 406 x 439; it is not used, a test compares masks. Images differ by a pixel or two in size and stay as they are.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.common.errors import UserError, choose, one_line
from models.common.spectral import Band, band
from tasks.data.dataset import DatasetCard
from tasks.data.folder import opened, pixels
from tasks.data.reader import Reader, digest, incomplete, missing

if TYPE_CHECKING:
    import numpy as np

FOLDERS = ("SN1_buildings", "spacenet1", "SpaceNetV1")
UNITS = {"uint8": "uint8", "uint16": "undocumented"}
# Centre and bandwidth in nm: DigitalGlobe, The Benefits of the 8 Spectral Bands of WorldView-2 (2010).
WORLDVIEW2 = {
    "WV2:coastal": (425, 50),
    "RGB:blue": (480, 60),
    "RGB:green": (545, 70),
    "WV2:yellow": (605, 40),
    "RGB:red": (660, 60),
    "WV2:red-edge": (725, 40),
    "RGB:nir": (832, 125),
    "WV2:nir2": (950, 180),
}


def _bands(names: Sequence[str], unit: str) -> tuple[Band, ...]:
    known = [band(name, str(number), unit) for number, name in enumerate(names, 1)]
    return tuple(replace(one, wavelength=WORLDVIEW2[one.name][0], bandwidth=WORLDVIEW2[one.name][1]) for one in known)


_RGB = DatasetCard(
    name="spacenet1",
    title="Buildings of Rio de Janeiro",
    label="mask",
    classes=("no building", "building"),
    bands=_bands(("RGB:red", "RGB:green", "RGB:blue"), "uint8"),
    size=439,
    gsd=0.5,
    modality="optical",
    family="spacenet1",
    location="SN1_buildings",
    splits=(4999, 1000, 941),
    aliases=("spacenetv1",),
    licence="CC BY-SA 4.0",
    citation="Van Etten et al., 2018, arXiv:1807.01232",
    origin="https://spacenet.ai/spacenet-buildings-dataset-v1; DigitalGlobe WorldView-2",
    notes="Polygons burnt in at the image's own grid: a pixel is building if its centre is inside. DEO reads image and "
    "mask resampled to 224 x 224, which is a matter of the protocol.",
    fractions=("0.10x",),
    split_note="DEO prints 5000/1000/1000; its authors' code takes the first 4999 of 6940 files sorted by name, the next "
    "1000, and the 941 that are left. The publishers give one labelled part.",
    checksums=(
        ("SN1_buildings_train_AOI_1_Rio_3band.tar.gz", "md5:279e334a2120ecac70439ea246174516"),
        ("SN1_buildings_train_AOI_1_Rio_8band.tar.gz", "md5:6440a9eedbd7c4fe9741875135362c8c"),
        ("SN1_buildings_train_AOI_1_Rio_geojson_buildings.tar.gz", "md5:b6e02fbd727f252ea038abe4f77a77b3"),
    ),
)
_EIGHT = replace(
    _RGB,
    name="spacenet1-8band",
    title="Buildings of Rio de Janeiro, eight bands",
    bands=_bands(tuple(WORLDVIEW2), "undocumented"),
    size=110,
    gsd=2,
    modality="ms",
    aliases=(),
)
CARDS = {card.name: card for card in (_RGB, _EIGHT)}


def present(card: DatasetCard, root: Path) -> Path | None:
    """The set's directory below the data root, or None."""
    found = [root / name for name in FOLDERS if (root / name).is_dir()]
    return next((path for path in found if (_base(path) / _kind(card)).is_dir()), None)


def _base(path: Path) -> Path:
    return path / "train" if (path / "train").is_dir() else path


def _kind(card: DatasetCard) -> str:
    return f"{len(card.bands)}band"


def open_dataset(card: DatasetCard, path: Path, band_names: str = "") -> "SpaceNet1":
    """Open the directory: names and one header are read, no pixels. Raises `UserError`. `band_names` is not used."""
    kind, base = _kind(card), _base(path)
    images = sorted((base / kind).glob("*.tif"), key=lambda file: file.name)
    if not images:
        raise UserError(f"{base / kind} holds no images; fetch the set again")
    files = {file.stem: (file, base / "geojson" / f"Geo_{_place(file)}.geojson") for file in images}
    missing(card, (file for _, file in files.values()))
    with opened(images[0]) as source:
        dtype, count, shape = source.dtypes[0], source.count, source.shape
    if count != len(card.bands) or dtype not in UNITS:
        raise UserError(
            f"{images[0]} holds {count} bands of {dtype}; {card.name} has {len(card.bands)}, of 8 or 16 bits"
        )
    splits = split_by_order(list(files), card.splits)
    return SpaceNet1(
        card=replace(card, bands=tuple(replace(one, unit=UNITS[dtype]) for one in card.bands), size=max(*shape)),
        root=path,
        splits=splits,
        version=digest(card, splits, path, (file for both in files.values() for file in both)),
        warnings=incomplete(card, splits),
        files=files,
        dtype=dtype,
    )


def split_by_order(names: Sequence[str], whole: tuple[int, int, int]) -> dict[str, tuple[str, ...]]:
    """The first names, those after them, and the rest, in the numbers of the whole set or, of fewer, in its proportions."""
    total, (train, val, _) = len(names), whole
    if total < sum(whole):
        train, val = (max(1, round(count * total / sum(whole))) for count in (train, val))
    return {
        "train": tuple(names[:train]),
        "val": tuple(names[train : train + val]),
        "test": tuple(names[train + val :]),
    }


def _place(image: Path) -> str:
    """`AOI_1_RIO_img1` of `3band_AOI_1_RIO_img1.tif`."""
    found = re.search(r"AOI_.*_img\d+$", image.stem)
    if not found:
        raise UserError(f"{image} is not named like 3band_AOI_1_RIO_img1.tif")
    return found[0]


@dataclass(kw_only=True)
class SpaceNet1(Reader):
    """SpaceNet 1, opened; `files` holds image and polygons by the image's stem, `dtype` that of the first image."""

    files: dict[str, tuple[Path, Path]]
    dtype: str

    def read(self, name: str, bands: Sequence[str]) -> "np.ndarray":
        """One image, (C, H, W) in the order of `bands`, uint8 or uint16. Raises `UserError` on a damaged file."""
        keys = {one.name: int(one.key) for one in self.card.bands}
        wanted = [keys[choose(f"band of {self.card.name}", one, keys)] for one in bands]
        found = pixels(self.files[name][0], wanted)
        if found.dtype != self.dtype:
            raise UserError(f"{self.files[name][0]} holds {found.dtype} where the first image holds {self.dtype}")
        return found

    def partitions(self) -> dict[str, tuple[str, ...]]:
        """DEO's tenth: the first tenth of the sorted training files (499 of 4999), as its authors' code takes it."""
        train = self.splits["train"]
        return {"0.10x_train": train[: len(train) // 10]} if len(train) >= 10 else {}

    def label(self, name: str) -> "np.ndarray":
        """The mask (H, W) on the image's own grid, int64: 1 where the centre of the pixel is inside a footprint."""
        import numpy as np
        from rasterio.features import rasterize

        image, polygons = self.files[name]
        with opened(image) as source:
            shape, transform, crs = source.shape, source.transform, source.crs
        shapes = _footprints(polygons, crs)
        if not shapes:
            return np.zeros(shape, dtype=np.int64)
        return np.asarray(rasterize(shapes, out_shape=shape, transform=transform, dtype="uint8"), dtype=np.int64)


def _footprints(file: Path, crs: Any) -> list[dict[str, Any]]:
    """The polygons of a GeoJSON file (longitude and latitude, RFC 7946) in the image's reference system."""
    from rasterio.warp import transform_geom

    try:
        text = file.read_text(encoding="utf-8")
        features = json.loads(text)["features"] if text.strip() else []
        found = [one["geometry"] for one in features if one["geometry"] and one["geometry"]["coordinates"]]
        if crs and crs.to_epsg() != 4326:
            found = [transform_geom("EPSG:4326", crs, one) for one in found]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file} is no whole GeoJSON of footprints ({one_line(error)}); fetch it again") from error
    odd = [one["type"] for one in found if one["type"] not in ("Polygon", "MultiPolygon")]
    if odd:
        raise UserError(f"{file} holds a {odd[0]}; footprints are polygons")
    return found
