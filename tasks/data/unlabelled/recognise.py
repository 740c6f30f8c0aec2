"""Which layout is it? What lies at the paths given on the command line, recognised by its files and said in words."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from models.common.errors import UserError
from tasks.data.description import SUFFIXES
from tasks.data.folder import card as folder_card
from tasks.data.folder import open_dataset
from tasks.data.unlabelled import fmow, hdf5
from tasks.data.unlabelled.geotiff import SCALES, Bands, bands_of, colour, digital_numbers, images_below, open_folder
from tasks.data.unlabelled.images import TEN, Images, Sample, joined, sized
from tasks.data.unlabelled.sensors import open_twins, sensor_folders, sensor_name

PAPER_SHARE = 0.3  # of DEO's 500,000 images, 150,000 have the optical bands of fMoW-RGB


class Found(NamedTuple):
    """A folder of images, seen: its files, whether they are multispectral, and whether they are named as fMoW's."""

    root: Path
    files: list[Path]
    bands: Bands
    fmow: bool


def open_images(paths: Sequence[str], pairing: str = "cycle", rgb_share: float = PAPER_SHARE) -> Images:
    """DEO's samples: `ms` (10, H, W), digital numbers, red, green, blue first, some with `rgb` (3, H, W) in 0..1.

    A path is DEO's HDF5 file, a folder of 10- to 13-band images, a TOML file (`tasks/data/folder.py`; its train split),
    or a folder of RGB images whose files have the names of the multispectral ones. fMoW-RGB is paired with
    fMoW-Sentinel by the rule `pairing`, and `rgb_share` of all samples keep their partner. Raises `UserError`.
    """
    from_files, folders = [], []
    for text in paths:
        path = existing(text)
        if path.is_dir() and not (path / "images.h5").is_file():
            folders.append(look(path))
        else:
            from_files.append(_file(path / "images.h5" if path.is_dir() else path))
    rgb = [found for found in folders if not found.bands.multispectral]
    parts = []
    for found in folders:
        if not found.bands.multispectral:
            continue
        partner = next((other for other in rgb if other.fmow == found.fmow), None)
        if found.fmow and partner:
            files = fmow.rgb_images(partner.files) or partner.files
            parts.append(fmow.open_pairs(found.root, found.files, partner.root, files, pairing, rgb_share))
        elif partner:
            parts.append(_with_rgb(found, partner))
        else:
            parts.append(open_folder(found.root, found.files))
    if not parts and not from_files:
        raise UserError(f"{', '.join(paths)}: only RGB images; DEO trains on the ten bands {', '.join(TEN)}")
    if rgb and not parts:
        raise UserError(f"{rgb[0].root} holds RGB images, which nothing beside it can be paired with")
    return joined([*from_files, *parts])


def open_sensors(paths: Sequence[str]) -> Images:
    """X-STARS's samples: RGB (3, H, W) in 0..1 by sensor, of one place.

    One path with a folder per sensor (MSC-France, Multi-View Ile-de-France), or a path per sensor, `NAME=PATH` where
    the folder's name is not to be the sensor's. Raises `UserError`.
    """
    named = [_named(text) for text in paths]
    if len(named) == 1:
        root = named[0][1]
        folders = sensor_folders(root) if root.is_dir() else {}
        if folders:
            return open_twins(folders, "a folder per sensor, the same names in each")
        return open_twins({named[0][0]: root}, "one sensor") if root.is_dir() else _no_sensors(root)
    for _, root in named:
        if not root.is_dir():
            _no_sensors(root)
    if len({name for name, _ in named}) < len(named):
        raise UserError(f"two of {', '.join(paths)} are of one sensor; name them: --data NAME=PATH")
    return open_twins(dict(named), "twins of the same name in a folder per sensor")


def look(root: Path) -> Found:
    """What a folder of images holds. Raises `UserError` where it holds none, or bands that cannot be named."""
    files = images_below(root)
    if not files:
        raise UserError(
            f"{root} holds no images ({', '.join(SUFFIXES)}) and no images.h5; DEO takes its HDF5 file, a folder of "
            "Sentinel-2 images, or a TOML file"
        )
    named = all(fmow.is_instance(file) for file in files[:: max(1, len(files) // 64)])
    bands = bands_of(root, files)
    if named and len(bands.names) == len(fmow.BANDS.names):
        bands = fmow.BANDS
    return Found(root, files, bands, named)


def existing(text: str) -> Path:
    """The path. Raises `UserError` if nothing is there."""
    path = Path(text)
    if not path.exists():
        raise UserError(f"no data at {text}")
    return path


def _file(path: Path) -> Images:
    if path.suffix.lower() in hdf5.SUFFIXES:
        return hdf5.open_file(path)
    if path.suffix.lower() == ".toml":
        return _described(path)
    raise UserError(f"{path} is no folder, no HDF5 file ({', '.join(hdf5.SUFFIXES)}) and no TOML file")


def _described(path: Path) -> Images:
    """The train split of a folder data set: pretraining must not see what a probe will test on."""
    card = folder_card(path)
    dataset = open_dataset(card, path)
    names = dataset.splits["train"]
    wanted = [f"S2:{band}" for band in TEN]
    missing = [band for band in wanted if band not in {entry.name for entry in card.bands}]
    if missing:
        raise UserError(f"{path} has no {', '.join(missing)}, which DEO needs")
    units = {entry.unit for entry in card.bands if entry.name in wanted}
    if len(units) > 1 or not units <= set(SCALES):
        raise UserError(
            f"{path}: DEO needs its bands in one unit, {' or '.join(SCALES)}, not {', '.join(sorted(units))}"
        )
    scale = SCALES[units.pop()]

    def read(number: int) -> Sample:
        import numpy as np

        return {"ms": dataset.read(names[number], wanted).astype(np.float32) * np.float32(scale)}

    return Images(
        layout=f"the train split of {card.name} ({len(names)} images), bands {', '.join(TEN)}",
        sensors=("ms",),
        names=names,
        files=sized(dataset.root, [dataset.entries[name].image for name in names]),
        reader=read,
    )


def _with_rgb(found: Found, partner: Found) -> Images:
    """Multispectral images of one folder with the RGB images of the same name in another, where there are any."""
    plain = open_folder(found.root, found.files)
    rgb = {file.relative_to(partner.root).with_suffix("").as_posix(): file for file in partner.files}
    partners = [rgb.get(Path(name).with_suffix("").as_posix()) for name in plain.names]
    count = sum(one is not None for one in partners)
    if not count:
        raise UserError(f"no image of {partner.root} has the name of one in {found.root}")

    def read(number: int) -> Sample:
        sample, own = digital_numbers(found.files[number], found.bands), partners[number]
        return sample | ({"rgb": colour(own, partner.bands)} if own else {})

    return Images(
        layout=f"{plain.layout}, {count} of them with an RGB image of the same name",
        sensors=("ms", "rgb"),
        names=plain.names,
        files=plain.files + sized(partner.root, [one for one in partners if one]),
        reader=read,
    )


def _named(text: str) -> tuple[str, Path]:
    """`NAME=PATH`, or a path whose folder names the sensor."""
    name, given, rest = text.partition("=")
    if given and not Path(text).exists():
        return name, existing(rest)
    path = existing(text)
    return sensor_name(path.resolve()), path


def _no_sensors(root: Path) -> Images:
    raise UserError(f"{root} is no folder; X-STARS takes a folder with one folder per sensor, or one folder per sensor")
