"""SpaceNet 8, Louisiana before the flood: buildings and roads in tiles of 256 px.

    [Louisiana-East_Training_Public/]PRE-event/<catalogue id>_<x>_<y>_<n>.tif    1300 px, RGB, uint8, WGS 84
    [Louisiana-East_Training_Public/]annotations/<x>_<y>_<n>.geojson             polygons and lines, WGS 84

Layout and the making of masks are those of the authors' baseline (SpaceNetChallenge/SpaceNet8, `baseline/data_prep`,
`geojson_prep.py` and `create_masks.py`): buildings are features with `building`, roads those with `highway` and
`lanes`, buffered by 3 m in UTM. A scene is cut into 5 x 5 tiles; what is left of 1300 px, 20 at the right and the
bottom, is not read. The west of Louisiana was published without labels.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.common.errors import UserError, choose, one_line
from tasks.data.dataset import SPLITS, DatasetCard
from tasks.data.drawn import drawn
from tasks.data.folder import opened
from tasks.data.reader import Reader, digest

if TYPE_CHECKING:
    import numpy as np

AREA = "Louisiana-East_Training_Public"
SCENE = 1300
TILES = 5  # in each direction
BUILDING, ROAD = 1, 2
ROAD_BUFFER = 3.0  # metres on either side
WGS84 = "EPSG:4326"


@dataclass(kw_only=True)
class SpaceNet8Dataset(Reader):
    """An opened area (see `tasks.data.dataset.Dataset`); a name is `<scene>@<row>,<column>`, tiles counted from 0.

    `annotations` has the label file of every scene.
    """

    annotations: dict[str, Path] = field(default_factory=dict)

    def read(self, name: str, bands: Sequence[str]) -> "np.ndarray":
        """One tile (C, 256, 256), uint8, in the order of `bands`. Raises `UserError`: a damaged file, another size."""
        from rasterio.windows import Window

        scene, row, column = place(name)
        keys = {band.name: int(band.key) for band in self.card.bands}
        wanted = [keys[choose(f"band of {self.card.name}", band, keys)] for band in bands]
        side = self.card.size
        with opened(self.root / scene) as source:
            _check(self.root / scene, source.shape, source.count, len(keys))
            return source.read(wanted, window=Window(column * side, row * side, side, side))  # type: ignore[call-arg]

    def label(self, name: str) -> "np.ndarray":
        """The tile's mask (256, 256), int64: 0 background, 1 building, 2 road. Raises `UserError` on damaged labels."""
        import numpy as np

        scene, row, column = place(name)
        side = self.card.size
        mask = scene_mask(self.root / scene, self.annotations[scene])
        return mask[row * side : (row + 1) * side, column * side : (column + 1) * side].astype(np.int64)


def present(card: DatasetCard, root: Path) -> Path | None:
    """The area's directory below the data root, or None if it is not there."""
    candidates = (root / card.location / AREA, root / card.location)
    return next((path for path in candidates if (path / "PRE-event").is_dir()), None)


def open_dataset(card: DatasetCard, root: Path, band_names: str = "corrected") -> SpaceNet8Dataset:
    """Open the area in `root`; no image is opened. Scenes are those that have labels; a scene is in one split alone.

    Raises `UserError`: no labels, a label without its image, or a split without a scene.
    """
    images: dict[str, Path] = {}
    for path in sorted((root / "PRE-event").glob("*.tif"), reverse=True):
        images[path.stem.partition("_")[2]] = path
    annotations = {path.stem: path for path in sorted((root / "annotations").glob("*.geojson"))}
    if not annotations:
        raise UserError(f"{root / 'annotations'} has no .geojson file; {card.name} needs the training area {AREA}")
    if absent := [name for name in annotations if name not in images]:
        raise UserError(f"{root / 'PRE-event'} has no image of {absent[0]} ({len(absent)} are missing); fetch the set")
    splits: dict[str, list[str]] = {split: [] for split in SPLITS}
    scenes = {}
    for stem, path in annotations.items():
        scene = images[stem].relative_to(root).as_posix()
        scenes[scene] = path
        splits[drawn(stem)] += [f"{scene}@{row},{column}" for row in range(TILES) for column in range(TILES)]
    ordered = {split: tuple(names) for split, names in splits.items()}
    if empty := [split for split in SPLITS if not ordered[split]]:
        raise UserError(f"{root}: {len(scenes)} scenes, none of the {' and '.join(empty)} split; fetch the whole set")
    files = [*scenes.values(), *(root / scene for scene in scenes)]
    version = digest(card, ordered, root, files)
    return SpaceNet8Dataset(card=card, root=root, splits=ordered, version=version, annotations=scenes)


def place(name: str) -> tuple[str, int, int]:
    """The scene of a tile, its row and its column."""
    scene, _, tile = name.rpartition("@")
    row, column = tile.split(",")
    return scene, int(row), int(column)


@lru_cache(maxsize=8)  # 25 tiles of a scene follow each other
def scene_mask(image: Path, annotation: Path) -> "np.ndarray":
    """The mask of a whole scene (1300, 1300), uint8. Raises `UserError` on damaged files."""
    import numpy as np
    from rasterio.features import rasterize

    with opened(image) as source:
        shape, transform = source.shape, source.transform
        centre = source.xy(source.height // 2, source.width // 2)
        _check(image, shape, source.count, 3)
    try:
        features = json.loads(annotation.read_text(encoding="utf-8"))["features"]
        roads = [one["geometry"] for one in features if _has(one, "highway", "lanes")]
        buildings = [one["geometry"] for one in features if _has(one, "building")]
        shapes = [(_buffered(road, centre), ROAD) for road in roads] + [(one, BUILDING) for one in buildings]
        if not shapes:
            return np.zeros(shape, np.uint8)
        return rasterize(shapes, out_shape=shape, transform=transform, dtype="uint8")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{annotation} holds no sound GeoJSON features ({one_line(error)}); fetch it again") from None


def _has(feature: dict[str, Any], *properties: str) -> bool:
    return all(feature["properties"].get(name) is not None for name in properties)


def _buffered(line: Any, centre: tuple[float, float]) -> Any:
    """A line in degrees as the polygon of `ROAD_BUFFER` metres around it, made in the UTM zone of the scene."""
    from rasterio.warp import transform_geom
    from shapely.geometry import mapping, shape

    longitude, latitude = centre
    zone = f"EPSG:{(32600 if latitude >= 0 else 32700) + int((longitude + 180) // 6) % 60 + 1}"
    metres = shape(transform_geom(WGS84, zone, line)).buffer(ROAD_BUFFER)
    return transform_geom(zone, WGS84, mapping(metres))


def _check(path: Path, shape: tuple[int, int], count: int, wanted: int) -> None:
    if shape != (SCENE, SCENE) or count < wanted:
        raise UserError(f"{path} has {count} bands of {shape[0]}x{shape[1]}; scenes are RGB of {SCENE}x{SCENE}")
