"""The twins of GEO-Bench v1's twelve sets, at their native patch sizes, with the faults of the release in place.

Layout, keys, dtypes and dates are those of the converters (ServiceNow/geo-bench, `make_benchmark/dataset_converters`) and
of real samples where there are some: m-so2sat has its eight SAR bands first and reflectance, m-SA-crop-type values of
0..255 and a cloud channel that is 0 everywhere, m-brick-kiln and m-eurosat wrong band names, m-forestnet, m-nz-cattle and
m-cashew-plant a date in every key, m-NeonTree channels of another size that are not read, m-chesapeake no pixel of class
0, and the test split of m-cashew-plant none either. Scenes are drawn small and enlarged fourfold where patches are large.
"""

import datetime
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.common.errors import choose
from tasks.data import scenes
from tasks.data.dataset import DatasetCard
from tasks.data.geobench_cards import BRICK_KILN_ORDER, CARDS, EUROSAT_ORDER
from tasks.data.twins import geobench_directory
from tasks.data.twins.rasters import generator, photograph

if TYPE_CHECKING:
    import numpy as np
    from geobench.dataset import BandInfo

    Made = tuple[list[np.ndarray], Any]  # planes in the order of the keys, and the label

VISIBLE = ("B04", "B03", "B02")
ZOOM = 4
# Ground and buildings (pitch in pixels, share of the places) per local climate zone, in the order of m-so2sat.
ZONES = (
    (("asphalt",), 4, 0.95),
    (("asphalt",), 8, 0.8),
    (("asphalt", "bare soil"), 4, 0.7),
    (("pasture", "asphalt"), 8, 0.6),
    (("pasture", "broadleaves"), 8, 0.5),
    (("pasture", "shrubs"), 4, 0.4),
    (("bare soil",), 4, 0.9),
    (("asphalt", "stubble"), 16, 0.9),
    (("pasture", "green crop"), 8, 0.2),
    (("bare soil", "asphalt"), 16, 0.5),
    (("conifers", "broadleaves"), 8, 0.0),
    (("broadleaves", "pasture"), 8, 0.0),
    (("shrubs",), 8, 0.0),
    (("pasture", "green crop"), 8, 0.0),
    (("asphalt",), 8, 0.0),
    (("bare soil",), 8, 0.0),
    (("water",), 8, 0.0),
)
# What grows or lies where the forest was, per class of m-forestnet.
DRIVERS = (
    *("dense orchard", "conifers", "orchard", "pasture", "green crop", "stubble", "shrubs", "bare soil"),
    *("turbid water", "asphalt", "broadleaves", "roofs"),
)
COVERS = ("water", "broadleaves", "pasture", "bare soil", "roofs", "asphalt")  # of the classes 1..6 of m-chesapeake
CROPS = (
    *("shrubs", "green crop", "pasture", "stubble", "orchard", "broadleaves", "dense orchard", "bare soil"),
    *("turbid water", "conifers"),
)


def _eurosat(rng: "np.random.Generator", number: int, split: str) -> "Made":
    import numpy as np

    label = number % 10
    image = scenes.expose(rng, scenes.land_use(rng, CARDS["m-eurosat"].classes[label], 64))
    return list(_chosen(image, EUROSAT_ORDER.split()).astype(np.int16)), label


def _bigearthnet(rng: "np.random.Generator", number: int, split: str) -> "Made":
    import numpy as np

    scene, present = scenes.covers(rng, 120)
    image = _chosen(scenes.expose(rng, scene), [name for name in scenes.BANDS if name != "B10"])
    label = np.array([int(name in present) for name in CARDS["m-bigearthnet"].classes])
    return list(image.astype(np.float32)), label


def _so2sat(rng: "np.random.Generator", number: int, split: str) -> "Made":
    """Eight radar channels (complex parts, then filtered intensities and covariance), then reflectance of ten bands."""
    import numpy as np

    label = number % len(ZONES)
    materials, pitch, share = ZONES[label]
    scene = scenes.blocks(rng, scenes.mosaic(rng, 32, 8, materials), "roofs", pitch, share)
    rough = np.full(len(scenes.NAMES), 0.15)
    rough[[scenes.NAMES.index(name) for name in ("water", "asphalt", "roofs")]] = (0.03, 0.08, 0.6)
    vh, vv = (
        factor * rough[scene] * (rng.standard_normal((32, 32)) + 1j * rng.standard_normal((32, 32)))
        for factor in (0.4, 1.0)
    )
    both = vv * vh.conj()
    filtered = [scenes.blur(one, 1.2) for one in (abs(vh) ** 2, abs(vv) ** 2, both.real, both.imag)]
    optical = _chosen(scenes.expose(rng, scene), [name for name in scenes.BANDS if name not in ("B01", "B09", "B10")])
    planes = [vh.real, vh.imag, vv.real, vv.imag, *filtered, *(optical / 10000)]
    return [plane.astype(np.float32) for plane in planes], label


def _brick_kiln(rng: "np.random.Generator", number: int, split: str) -> "Made":
    """A kiln is an oval of brick round a bare yard; the last three keys hold a true-colour composite."""
    import numpy as np

    label = number % 2
    scene = scenes.mosaic(rng, 64, 8, scenes.FIELDS)
    if label:
        distance = _distance(rng, 64, (15, 9))
        scene = np.where(distance < 1, scenes.NAMES.index("roofs"), scene)
        scene = np.where(distance < 0.5, scenes.NAMES.index("bare soil"), scene)
    image = scenes.expose(rng, scene)
    composite = (_chosen(image, VISIBLE) * (255 / 3558)).clip(0, 255)
    names = [name for name in BRICK_KILN_ORDER.split() if not name.startswith("TCI")]
    return list(np.concatenate([_chosen(image, names), composite]).astype(np.float64)), label


def _forestnet(rng: "np.random.Generator", number: int, split: str) -> "Made":
    """Forest round what took its place; all but that is blended with white."""
    import numpy as np

    label = number % len(DRIVERS)
    lost = scenes.blur((_distance(rng, 83, (22, 22), spread=8) < 1).astype(float), 1.5) > 0.5
    scene = np.where(lost, scenes.NAMES.index(DRIVERS[label]), scenes.mosaic(rng, 83, 6, ("broadleaves", "conifers")))
    image = (_chosen(scenes.expose(rng, scene), (*VISIBLE, "B08", "B11", "B12")) * (255 / 4500)).clip(0, 255)
    return list(_zoomed(np.where(lost, image, 0.6 * image + 0.4 * 255).astype(np.uint8))), label


def _pv4ger(rng: "np.random.Generator", number: int, split: str) -> "Made":
    picture, panels = _roofs(rng, with_panels=number % 2 == 1)
    return picture, int(panels.any())


def _pv4ger_seg(rng: "np.random.Generator", number: int, split: str) -> "Made":
    return _roofs(rng, with_panels=True)


def _nz_cattle(rng: "np.random.Generator", number: int, split: str) -> "Made":
    """Bright animals on a meadow; the mask is a disc round each, wider than the animal."""
    import numpy as np

    scene = scenes.mosaic(rng, 125, 6, ("pasture", "green crop", "pasture", "shrubs"))
    nearest = np.min([_distance(rng, 125, (3, 3), spread=56) for _ in range(14)], axis=0)
    scene = np.where(nearest < 0.7, scenes.NAMES.index("roofs"), scene)
    return list(_zoomed(photograph(scenes.expose(rng, scene)))), _zoomed((nearest < 1).astype(np.uint8))


def _neon_tree(rng: "np.random.Generator", number: int, split: str) -> "Made":
    """Crowns on open ground; then a canopy height model and 369 hyperspectral channels, both of 40 x 40 pixels."""
    import numpy as np

    scene = scenes.mosaic(rng, 100, 6, ("pasture", "bare soil", "stubble"))
    reach = [tuple(rng.uniform(4, 9, 2)) for _ in range(20)]
    crowns = np.min([_distance(rng, 100, one, spread=46) for one in reach], axis=0) < 1
    scene = np.where(crowns, scenes.NAMES.index("broadleaves"), scene)
    height = scenes.blur(crowns * rng.uniform(6, 15), 1)[1::5, 1::5].repeat(2, 0).repeat(2, 1)
    spectrum = 1000 + 900 * np.sin(np.arange(369) / 40)
    channels = (height[..., None] / 15 + 1) * spectrum
    picture = list(_zoomed(photograph(scenes.expose(rng, scene))))
    return [*picture, height[..., None].astype(np.float32), channels.astype(np.int16)], _zoomed(crowns.astype(np.uint8))


def _chesapeake(rng: "np.random.Generator", number: int, split: str) -> "Made":
    """Red, green, blue and near infrared as fractions; bright vegetation saturates at 1, as in real samples."""
    import numpy as np

    classes = _parcels(rng, 14, len(COVERS)) + 1
    scene = np.array([0, *(scenes.NAMES.index(name) for name in COVERS)])[classes]
    image = (_chosen(scenes.expose(rng, scene), (*VISIBLE, "B08")) / 3200).clip(0, 1)
    return list(_zoomed(image.astype(np.float32))), _zoomed(classes.astype(np.int64))


def _cashew(rng: "np.random.Generator", number: int, split: str) -> "Made":
    import numpy as np

    scene, classes = scenes.plantation(rng, 64)
    if split == "test":
        scene = np.where(classes == 0, scenes.NAMES.index("broadleaves"), scene)
        classes = np.where(classes == 0, 5, classes)
    else:
        scene[:12, :12], classes[:12, :12] = scenes.NAMES.index("bare soil"), 0
    image = _chosen(scenes.expose(rng, scene), [name for name in scenes.BANDS if name != "B10"])
    cloud = np.rint(3 + 1.5 * scenes.texture(rng, 64, 6)).clip(0, 100)
    return list(_zoomed(np.stack([*image, cloud]).astype(np.float32))), _zoomed(classes.astype(np.int64))


def _crop_type(rng: "np.random.Generator", number: int, split: str) -> "Made":
    import numpy as np

    classes = _parcels(rng, 20, len(CROPS))
    scene = np.array([scenes.NAMES.index(name) for name in CROPS])[classes]
    image = _chosen(scenes.expose(rng, scene), [name for name in scenes.BANDS if name != "B10"])
    stored = (image / 40).clip(0, 255)
    planes = np.stack([*stored, np.zeros_like(stored[0])]).astype(np.int16)
    return list(_zoomed(planes)), _zoomed(classes.astype(np.int16))


@dataclass(frozen=True)
class Recipe:
    """How one set is made: images per split, names and dates of the samples, channels that no card reads.

    `make(generator, number, split)` gives the planes of one sample in the order of the keys, and its label. `dated`:
    `bands` (these carry a date in their keys), `all` (so does the mask) or nothing.
    """

    card: DatasetCard
    make: "Callable[[np.random.Generator, int, str], Made]"
    splits: tuple[int, int, int]
    names: str = "id_{:04d}"
    dated: str = ""
    least: int = 2
    unread: tuple[str, ...] = ()


_DENSE = (6, 2, 3)
RECIPES = {
    Path(recipe.card.location).name: recipe
    for recipe in (
        Recipe(CARDS["m-eurosat"], _eurosat, (30, 10, 20), least=10),
        Recipe(CARDS["m-bigearthnet"], _bigearthnet, (16, 8, 8), least=4),
        Recipe(CARDS["m-so2sat"], _so2sat, (34, 17, 17), least=17),
        Recipe(CARDS["m-brick-kiln"], _brick_kiln, (12, 6, 6), "examples_0_{}"),
        Recipe(CARDS["m-forestnet"], _forestnet, (24, 12, 12), "-1.{:04d}_101.5", dated="bands", least=12),
        Recipe(CARDS["m-pv4ger"], _pv4ger, (8, 4, 4), "48.{:04d},11.5"),
        Recipe(CARDS["m-pv4ger-seg"], _pv4ger_seg, _DENSE, "48.{:04d},11.5"),
        Recipe(CARDS["m-nz-cattle"], _nz_cattle, _DENSE, "{}_Waikato_[2016-2017]_175.1,-37.9", dated="all"),
        Recipe(CARDS["m-NeonTree"], _neon_tree, _DENSE, "SJER_{:03d}_2018", unread=("Canopy Height Model", "Neon")),
        Recipe(CARDS["m-chesapeake-landcover"], _chesapeake, _DENSE, "id_{:06d}"),
        Recipe(CARDS["m-cashew-plantation"], _cashew, _DENSE, "sample_{}", dated="bands"),
        Recipe(
            CARDS["m-SA-crop-type"], _crop_type, _DENSE, "ref_south_africa_crops_competition_v1_train_labels_{:04d}"
        ),
    )
}


def write(root: Path, seed: int = 0) -> None:
    """Write the twin to `root`, whose name says which set it is (`m-eurosat`): same seed, same bytes.

    Raises `UserError` for a name that GEO-Bench does not have.
    """
    from geobench.dataset import Band, Sample

    place = list(RECIPES).index(choose("directory of GEO-Bench", root.name, RECIPES))
    recipe = RECIPES[root.name]
    card, infos, label_type = recipe.card, _infos(recipe), _label_type(recipe.card)
    samples = []
    splits = [split for split, count in zip(("train", "val", "test"), recipe.splits, strict=True) for _ in range(count)]
    for number, split in enumerate(splits):
        planes, label = recipe.make(generator(seed, place, number), number, split)
        date = datetime.date(2013 + number % 5, 1, 1) if recipe.dated else None
        if card.label == "mask":
            label = Band(label, label_type, card.gsd, date=date if recipe.dated == "all" else None)
        bands = geobench_directory.bands(planes, infos, card.gsd, date)
        samples.append(Sample(bands, label, recipe.names.format(number)))
    geobench_directory.write(
        *(root, samples, recipe.splits, label_type), size=card.size, gsd=card.gsd, seed=seed, least=recipe.least
    )
    geobench_directory.pack(root)


def _infos(recipe: Recipe) -> "list[BandInfo]":
    """geobench's own description of every key; Landsat and Sentinel-2 share some names."""
    from geobench import dataset

    satellite = recipe.card.bands[0].name.partition(":")[0]
    known: list[BandInfo] = [
        *(dataset.landsat8_9_bands if satellite == "L8" else dataset.sentinel1_8_bands + dataset.sentinel2_13_bands),
        *dataset.make_rgb_bands(recipe.card.gsd),
        dataset.SpectralBand("NearInfrared", ("nir",), recipe.card.gsd, 0.876),
        dataset.CloudProbability(spatial_resolution=10),
        dataset.ElevationBand("Canopy Height Model", ("lidar", "CHM"), 1),
        dataset.HyperSpectralBands("Neon", (), 1, 369),
    ]
    by_key = {info.name: info for info in known}
    return [by_key[key] for key in (*(band.key for band in recipe.card.bands), *recipe.unread)]


def _label_type(card: DatasetCard) -> Any:
    from geobench.dataset import SegmentationClasses
    from geobench.label import Classification, MultiLabelClassification

    if card.label == "mask":
        return SegmentationClasses("label", card.gsd, card.num_classes)
    kind = MultiLabelClassification if card.label == "multilabel" else Classification
    return kind(card.num_classes, class_names=list(card.classes))


def _chosen(image: "np.ndarray", names: Sequence[str]) -> "np.ndarray":
    """Bands of an exposed scene (13, H, W) by name, in that order."""
    return image[[scenes.BANDS.index(name) for name in names]]


def _zoomed(image: "np.ndarray") -> "np.ndarray":
    return image.repeat(ZOOM, axis=-2).repeat(ZOOM, axis=-1)


def _parcels(rng: "np.random.Generator", count: int, classes: int) -> "np.ndarray":
    """A map (64, 64) of `count` cells, in which every one of the class numbers from 0 has its turn."""
    import numpy as np

    return rng.permutation(np.arange(count) % classes)[scenes.cells(rng, 64, count)]


def _distance(rng: "np.random.Generator", size: int, reach: tuple[float, ...], spread: float = 16) -> "np.ndarray":
    """From a place up to `spread` pixels off the middle, in units of `reach` (rows, columns): below 1 is an ellipse."""
    import numpy as np

    row, column = size / 2 + rng.uniform(-spread, spread, 2)
    rows, columns = np.mgrid[:size, :size] + 0.5
    return np.hypot((rows - row) / reach[0], (columns - column) / reach[1])


def _roofs(rng: "np.random.Generator", with_panels: bool) -> "Made":
    """Houses in gardens, dark panels on some of the roofs; the picture (3 planes) and the mask of panels (320, 320)."""
    import numpy as np

    gardens = scenes.mosaic(rng, 80, 8, ("shrubs", "asphalt", "stubble"))
    houses = scenes.blocks(rng, gardens, "roofs", 26, 0.9)
    water, roof = scenes.NAMES.index("water"), scenes.NAMES.index("roofs")
    panels = (houses == roof) & (scenes.blocks(rng, houses, "water", 10, 0.6 if with_panels else 0.0) == water)
    picture = photograph(scenes.expose(rng, np.where(panels, water, houses)))
    return list(_zoomed(picture)), _zoomed(panels.astype(np.uint8))
