"""One place seen by several sensors, in red, green and blue: MSC-France, Multi-View Ile-de-France, and twins of folders.

    MSC-France/Sentinel/Bordeaux/000.png        one folder per sensor, in it one per city (or images at once);
    MSC-France/Landsat/Bordeaux/000.png         the same names in each
    MSC-France/SPOT/Bordeaux/000.png

Layout: github.com/VMarsocci/X-STARS, README. Twins are two or more folders, one per sensor, whose files have the same
path below their folder, the suffix apart, as EuroSAT's two versions have: SeaLake/SeaLake_1.tif, SeaLake/SeaLake_1.jpg.
What not every sensor saw is left out, and said.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from models.common.errors import UserError
from tasks.data.unlabelled.geotiff import bands_of, colour, images_below
from tasks.data.unlabelled.images import Images, Sample, sized

# Words that folders of known sensors have in their names, and what the sensor is then called.
WORDS = {"landsat": "landsat", "sentinel": "sentinel", "spot": "spot", "bdortho": "bdortho", "bd_ortho": "bdortho"}


def sensor_name(folder: Path) -> str:
    """`Sentinel` -> `sentinel`, `SPOT6` -> `spot`; a folder of no known sensor keeps its name, dots as `_`."""
    lower = folder.name.lower()
    return next((name for word, name in WORDS.items() if word in lower), re.sub(r"\W", "_", lower))


def sensor_folders(root: Path) -> dict[str, Path]:
    """The folders of `root` that are named after known sensors, by sensor; empty where there are less than two."""
    folders = [entry for entry in sorted(root.iterdir()) if entry.is_dir()]
    named = {sensor_name(folder): folder for folder in folders if any(word in folder.name.lower() for word in WORDS)}
    return named if len(named) > 1 else {}


def open_twins(folders: Mapping[str, Path], what: str) -> Images:
    """Samples by sensor, float32 (3, H, W) in 0..1, of what is in every folder. Raises `UserError` if nothing is."""
    files = {
        sensor: {file.relative_to(root).with_suffix("").as_posix(): file for file in images_below(root)}
        for sensor, root in folders.items()
    }
    for sensor, root in folders.items():
        if not files[sensor]:
            raise UserError(f"{root} holds no images (.tif, .png, .jpg)")
    common = set.intersection(*(set(own) for own in files.values()))
    if not common:
        shown = ", ".join(f"{root} ({next(iter(files[sensor]))}, ...)" for sensor, root in folders.items())
        raise UserError(f"no image of one sensor has its twin of the same name in the others: {shown}")
    names = tuple(sorted(common))
    bands = {sensor: bands_of(root, [files[sensor][name] for name in names]) for sensor, root in folders.items()}

    def read(number: int) -> Sample:
        return {sensor: np.asarray(colour(files[sensor][names[number]], bands[sensor])) for sensor in folders}

    counts = ", ".join(f"{sensor} {len(own)}" for sensor, own in files.items())
    alone = () if all(len(own) == len(names) for own in files.values()) else (f"{len(names)} places of: {counts}",)
    return Images(
        layout=f"{what}: {len(names)} places in {', '.join(folders)}",
        sensors=tuple(folders),
        names=names,
        files=tuple(
            (f"{sensor}/{name}", size)
            for sensor, root in folders.items()
            for name, size in sized(root, [files[sensor][name] for name in names])
        ),
        reader=read,
        notes=tuple(f"left out what not every sensor saw: {note}" for note in alone),
    )


def statistics(images: Images, sensor: str, count: int = 256) -> tuple[list[float], list[float], int]:
    """Mean and standard deviation per band of at most `count` images, evenly chosen, and the largest side in pixels."""
    chosen = np.unique(np.linspace(0, len(images) - 1, min(count, len(images))).astype(int))
    total, first, second, side = 0, np.zeros(3), np.zeros(3), 0
    for number in chosen:
        values = images[int(number)][sensor].reshape(3, -1).astype(np.float64)
        first, second, total = first + values.sum(axis=1), second + (values**2).sum(axis=1), total + values.shape[1]
        side = max(side, *images[int(number)][sensor].shape[1:])
    mean = first / total
    return mean.tolist(), np.sqrt(np.maximum(second / total - mean**2, 1e-12)).tolist(), side
