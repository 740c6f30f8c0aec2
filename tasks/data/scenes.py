"""Procedural Sentinel-2 scenes: a map of materials, photographed through a simple model of sun, haze, optics and noise.

They stand in for imagery in the twin (`twin.py`). A scene is a map of materials (H, W), indices into `MATERIALS`;
`expose` turns it into digital numbers of the thirteen Level-1C bands (reflectance x 10000, int16). Spectra are rounded
class means of 196 EuroSAT tiles (Helber et al. 2019; MIT licence, Copernicus Sentinel-2 data) and mixtures of them, so
that the numbers in each band are those that a reader of real tiles would expect: B10 (cirrus) near 10, B09 near 900.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

BANDS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")
GSD = (60, 10, 10, 10, 20, 20, 20, 10, 20, 60, 60, 20, 20)
MATERIALS = {
    "water": (1220, 950, 800, 520, 480, 360, 350, 300, 290, 95, 8, 90, 55),
    "turbid water": (1300, 1060, 980, 760, 720, 520, 480, 400, 360, 120, 9, 130, 80),
    "conifers": (1090, 800, 680, 410, 710, 1900, 2400, 2400, 2700, 780, 9, 1180, 470),
    "broadleaves": (1110, 820, 720, 420, 800, 2550, 3250, 3150, 3600, 930, 9, 1560, 620),
    "pasture": (1320, 1030, 950, 670, 1180, 2750, 3350, 3300, 3700, 1120, 13, 1980, 960),
    "shrubs": (1360, 1150, 1090, 1050, 1360, 2050, 2350, 2300, 2600, 910, 15, 2330, 1450),
    "green crop": (1310, 1050, 1010, 720, 1210, 3050, 3800, 3650, 4150, 1050, 12, 2050, 1000),
    "stubble": (1420, 1260, 1310, 1500, 1800, 2400, 2700, 2620, 2980, 850, 14, 3100, 2150),
    "bare soil": (1450, 1310, 1360, 1620, 1850, 2200, 2420, 2350, 2650, 780, 14, 3050, 2300),
    "orchard": (1430, 1240, 1240, 1250, 1580, 2350, 2720, 2650, 3000, 860, 14, 2650, 1700),
    "dense orchard": (1280, 1020, 930, 680, 1080, 2450, 3000, 2950, 3350, 900, 12, 1950, 950),
    "roofs": (1780, 1680, 1610, 1640, 1700, 1980, 2120, 2080, 2200, 560, 12, 2150, 1720),
    "asphalt": (1480, 1280, 1210, 1180, 1300, 1600, 1760, 1700, 1880, 570, 12, 1900, 1480),
}
NAMES = tuple(MATERIALS)
# How strongly haze lifts each band: short waves are scattered most, B09 and B10 hardly see the ground.
HAZE = (1.0, 0.85, 0.6, 0.45, 0.4, 0.33, 0.3, 0.26, 0.25, 0.15, 0.01, 0.08, 0.05)


def blur(field: "np.ndarray", sigma: float) -> "np.ndarray":
    """Gaussian blur over the last two axes, in pixels, periodic at the borders (..., H, W)."""
    import numpy as np

    rows, columns = np.fft.fftfreq(field.shape[-2])[:, None], np.fft.rfftfreq(field.shape[-1])[None]
    transfer = np.exp(-2 * (np.pi * sigma) ** 2 * (rows**2 + columns**2))
    return np.fft.irfft2(np.fft.rfft2(field) * transfer, s=field.shape[-2:])


def texture(rng: "np.random.Generator", size: int, sigma: float) -> "np.ndarray":
    """A smooth random field (size, size) of mean 0 and standard deviation 1; `sigma` is its grain in pixels."""
    field = blur(rng.standard_normal((size, size)), sigma)
    return (field - field.mean()) / field.std()


def cells(rng: "np.random.Generator", size: int, count: int) -> "np.ndarray":
    """`count` Voronoi cells as a map (size, size) of cell numbers: fields, parcels, stands."""
    import numpy as np

    seeds = rng.uniform(0, size, (count, 2))
    rows, columns = np.mgrid[:size, :size] + 0.5
    return ((rows[..., None] - seeds[:, 0]) ** 2 + (columns[..., None] - seeds[:, 1]) ** 2).argmin(-1)


def mosaic(rng: "np.random.Generator", size: int, count: int, materials: Sequence[str]) -> "np.ndarray":
    """Voronoi cells, each of one of `materials`: a map (size, size) of material indices."""
    import numpy as np

    chosen = rng.choice([NAMES.index(name) for name in materials], count)
    return np.asarray(chosen)[cells(rng, size, count)]


def scatter(rng: "np.random.Generator", scene: "np.ndarray", material: str, share: float, grain: float) -> "np.ndarray":
    """Cover about `share` of the scene with blobs of `material`, `grain` pixels wide."""
    import numpy as np

    field = texture(rng, scene.shape[0], grain)
    return np.where(field > np.quantile(field, 1 - share), NAMES.index(material), scene)


def ribbon(rng: "np.random.Generator", scene: "np.ndarray", material: str, width: float, bend: float) -> "np.ndarray":
    """Lay a band of `material`, `width` pixels wide, across the scene: a road (`bend` 0) or a river."""
    import numpy as np

    size = scene.shape[0]
    angle, offset, phase = rng.uniform(0, np.pi), rng.uniform(-0.2, 0.2) * size, rng.uniform(0, 2 * np.pi)
    rows, columns = np.mgrid[:size, :size] - size / 2
    along = columns * np.cos(angle) + rows * np.sin(angle)
    across = rows * np.cos(angle) - columns * np.sin(angle)
    centre = offset + bend * size * np.sin(2 * np.pi * along / (1.3 * size) + phase)
    return np.where(np.abs(across - centre) < width / 2, NAMES.index(material), scene)


def blocks(rng: "np.random.Generator", scene: "np.ndarray", material: str, pitch: int, share: float) -> "np.ndarray":
    """Put rectangles of `material` on a `pitch`-pixel grid, each place taken with probability `share`: buildings."""
    import numpy as np

    size = scene.shape[0]
    rows, columns = np.mgrid[:size, :size] + rng.integers(pitch, size=2)[:, None, None]
    count = size // pitch + 2
    taken = (rng.random((count, count)) < share)[rows // pitch, columns // pitch]
    inside = (rows % pitch < 0.7 * pitch) & (columns % pitch < 0.8 * pitch)
    return np.where(taken & inside, NAMES.index(material), scene)


def expose(rng: "np.random.Generator", scene: "np.ndarray") -> "np.ndarray":
    """Photograph a map of materials (H, W): the thirteen bands in the order of `BANDS`, int16 (13, H, W).

    Each image has its own sun (one factor for all bands), haze (added, strongest in blue) and state of every material
    (brightness, and near infrared against the rest); pixels have texture, the optics of each band's native resolution
    and noise. Sun and haze are what makes visible bands alone a poor witness.
    """
    import numpy as np

    spectra = np.array(list(MATERIALS.values()), dtype=np.float64)
    infrared = np.array([0.0] * 5 + [1.0] * 5 + [0.0] * 3)
    count, size = len(spectra), scene.shape[0]
    spectra = spectra * np.exp(rng.normal(0, 0.05, (count, 1)) + rng.normal(0, 0.06, (count, 1)) * infrared)
    spectra = spectra * np.exp(rng.normal(0, 0.03, spectra.shape))
    image = np.moveaxis(spectra[scene], -1, 0)
    image = image * np.exp(0.07 * texture(rng, size, 1.5) + 0.05 * texture(rng, size, 8))
    image = image * np.exp(rng.normal(0, 0.10)) + np.array(HAZE)[:, None, None] * abs(rng.normal(0, 260))
    optics = {10: 0.5, 20: 0.9, 60: 2.6}
    image = np.stack([blur(band, optics[gsd]) for band, gsd in zip(image, GSD, strict=True)])
    noise = np.array([1.0 if name == "B10" else 14.0 for name in BANDS])[:, None, None]
    image = image + noise * rng.standard_normal(image.shape)
    return np.clip(np.rint(image), 1, 30000).astype(np.int16)


FIELDS = ("green crop", "stubble", "bare soil", "pasture", "shrubs")


def land_use(rng: "np.random.Generator", name: str, size: int) -> "np.ndarray":
    """A scene of one EuroSAT class as a map of materials (size, size); `name` is one of the keys of `LAND_USE`."""
    return LAND_USE[name](rng, size)


def _annual_crop(rng: "np.random.Generator", size: int) -> "np.ndarray":
    return mosaic(rng, size, int(rng.integers(4, 12)), ("green crop", "stubble", "bare soil", "bare soil"))


def _forest(rng: "np.random.Generator", size: int) -> "np.ndarray":
    stands = mosaic(rng, size, 6, ("conifers", "conifers", "broadleaves"))
    return scatter(rng, stands, "pasture", rng.uniform(0, 0.1), 3)


def _herbaceous(rng: "np.random.Generator", size: int) -> "np.ndarray":
    return scatter(rng, mosaic(rng, size, 3, ("shrubs", "shrubs", "stubble")), "pasture", rng.uniform(0, 0.35), 4)


def _highway(rng: "np.random.Generator", size: int) -> "np.ndarray":
    return ribbon(rng, mosaic(rng, size, 6, FIELDS), "asphalt", rng.uniform(5, 10), 0)


def _industrial(rng: "np.random.Generator", size: int) -> "np.ndarray":
    ground = mosaic(rng, size, 5, ("asphalt", "asphalt", "pasture", "stubble"))
    return blocks(rng, ground, "roofs", int(rng.integers(12, 20)), rng.uniform(0.5, 0.9))


def _pasture(rng: "np.random.Generator", size: int) -> "np.ndarray":
    return scatter(rng, mosaic(rng, size, 4, ("pasture", "pasture", "pasture", "green crop")), "broadleaves", 0.06, 2)


def _permanent_crop(rng: "np.random.Generator", size: int) -> "np.ndarray":
    return mosaic(rng, size, int(rng.integers(5, 14)), ("orchard", "orchard", "dense orchard", "bare soil"))


def _residential(rng: "np.random.Generator", size: int) -> "np.ndarray":
    gardens = mosaic(rng, size, 30, ("pasture", "broadleaves", "shrubs", "asphalt"))
    return ribbon(rng, blocks(rng, gardens, "roofs", 6, rng.uniform(0.45, 0.8)), "asphalt", 3, 0)


def _river(rng: "np.random.Generator", size: int) -> "np.ndarray":
    banks = mosaic(rng, size, 6, (*FIELDS, "broadleaves"))
    return ribbon(rng, banks, "turbid water", rng.uniform(8, 22), 0.1)


def _sea_lake(rng: "np.random.Generator", size: int) -> "np.ndarray":
    return scatter(rng, mosaic(rng, size, 2, ("water", "turbid water")), "broadleaves", rng.choice([0.0, 0.0, 0.12]), 8)


LAND_USE = {
    "AnnualCrop": _annual_crop,
    "Forest": _forest,
    "HerbaceousVegetation": _herbaceous,
    "Highway": _highway,
    "Industrial": _industrial,
    "Pasture": _pasture,
    "PermanentCrop": _permanent_crop,
    "Residential": _residential,
    "River": _river,
    "SeaLake": _sea_lake,
}


# BigEarthNet's names of the covers that occur, and the materials each is made of.
COVERS = {
    "Broad-leaved forest": ("broadleaves",),
    "Coniferous forest": ("conifers",),
    "Discontinuous urban fabric": ("pasture", "asphalt"),
    "Fruit trees and berry plantations": ("orchard", "dense orchard"),
    "Non-irrigated arable land": ("bare soil", "stubble", "green crop"),
    "Pastures": ("pasture",),
    "Transitional woodland/shrub": ("shrubs",),
    "Water bodies": ("water", "turbid water"),
}


def covers(rng: "np.random.Generator", size: int) -> "tuple[np.ndarray, list[str]]":
    """A landscape of one to four covers: the map of materials (size, size), and the covers of a tenth or more of it."""
    import numpy as np

    present = rng.choice(list(COVERS), rng.integers(1, 5), replace=False)
    parcel = cells(rng, size, 10)
    cover_of_parcel = rng.choice(present, 10)
    material_of_parcel = [NAMES.index(rng.choice(COVERS[cover])) for cover in cover_of_parcel]
    scene = np.array(material_of_parcel)[parcel]
    urban = (cover_of_parcel == "Discontinuous urban fabric")[parcel]
    scene = np.where(urban, blocks(rng, scene, "roofs", 6, 0.7), scene)
    share = {cover: float((cover_of_parcel == cover)[parcel].mean()) for cover in present}
    return scene, sorted(cover for cover in present if share[cover] >= 0.1)


# Per class of m-cashew-plant, in its order: the materials that such a pixel may show.
PLANTATION = (
    ("bare soil", "shrubs"),  # no data
    ("dense orchard",),  # well-managed plantation
    ("orchard",),  # poorly-managed plantation
    ("green crop", "stubble"),  # non-plantation
    ("roofs",),  # residential
    ("shrubs", "broadleaves"),  # background
    ("orchard", "dense orchard"),  # uncertain
)


def plantation(rng: "np.random.Generator", size: int) -> "tuple[np.ndarray, np.ndarray]":
    """A farmed landscape: the map of materials and the map of classes of `PLANTATION`, both (size, size)."""
    import numpy as np

    parcel = cells(rng, size, 16)
    classes = rng.choice(7, 16, p=(0.02, 0.25, 0.2, 0.2, 0.1, 0.2, 0.03))
    materials = np.array([NAMES.index(rng.choice(PLANTATION[number])) for number in classes])
    return materials[parcel], classes[parcel]


def change(rng: "np.random.Generator", size: int) -> "tuple[np.ndarray, np.ndarray, np.ndarray]":
    """Two dates of one place: materials before and after, and what was built over or flooded (0/1), each (size, size).

    Crops also turn from green to stubble; that is a season, not a change.
    """
    import numpy as np

    before = mosaic(rng, size, 8, (*FIELDS, "broadleaves"))
    ripe = np.where(before == NAMES.index("green crop"), NAMES.index("stubble"), before)
    replaced = scatter(rng, ripe, rng.choice(["asphalt", "water"]), rng.uniform(0.05, 0.2), 5)
    changed = replaced != ripe
    after = np.where(changed & (replaced == NAMES.index("asphalt")), blocks(rng, replaced, "roofs", 6, 0.7), replaced)
    return before, after, changed
