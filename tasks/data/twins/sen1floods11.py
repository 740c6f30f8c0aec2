"""The twin of Sen1Floods11: ten chips of 64 x 64 pixels (the published ones: 446 of 512 x 512).

Layout: README of cloudtostreet/Sen1Floods11 and its `sample/` (names, dtypes, band names, EPSG:4326 with 8.98e-5 degrees
per pixel, -1 for no data), lists as its loaders read them (no header, `<chip>_S1Hand.tif,<chip>_LabelHand.tif`).
Two things are as in the published set: Bolivia is in its own list, and Paraguay_34417 is NaN throughout Sentinel-1.
"""

from pathlib import Path

from tasks.data import scenes
from tasks.data.twins.rasters import generator, save

SIZE = 64
CHIPS = {
    "train": ("Ghana_103272", "India_900498", "Paraguay_34417", "Spain_7370579", "USA_905409"),
    "valid": ("Ghana_5079", "Pakistan_43105"),
    "test": ("India_103447", "Nigeria_143329"),
    "bolivia": ("Bolivia_103757",),
}
NAMES = ("B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B9", "B10", "B11", "B12")


def write(root: Path, seed: int = 0) -> None:
    """Write the twin below `root` (`v1.1/...`): same seed, same bytes."""
    import numpy as np
    from rasterio.transform import from_origin

    base = root / "v1.1"
    lists = base / "splits" / "flood_handlabeled"
    lists.mkdir(parents=True, exist_ok=True)
    for split, chips in CHIPS.items():
        rows = [f"{chip}_S1Hand.tif,{chip}_LabelHand.tif\n" for chip in chips]
        (lists / f"flood_{split}_data.csv").write_text("".join(rows), encoding="utf-8")
    for number, chip in enumerate(chip for chips in CHIPS.values() for chip in chips):
        rng = generator(seed, number)
        scene = scenes.ribbon(rng, scenes.mosaic(rng, SIZE, 6, scenes.FIELDS), "turbid water", 16, 0.1)
        water = scene == scenes.NAMES.index("turbid water")
        label = np.where(water, 1, 0).astype(np.int16)
        label[:, :4] = -1
        speckle = rng.normal(0, 1.5, (2, SIZE, SIZE))
        radar = np.where(water, -20.0, -10.0) + np.array([0.0, -6.0])[:, None, None] + speckle
        if chip == "Paraguay_34417":
            radar[:] = np.nan
        place = {"crs": "EPSG:4326", "transform": from_origin(number, 10, 8.983152841195215e-05, 8.983152841195215e-05)}
        folder = base / "data" / "flood_events" / "HandLabeled"
        save(folder / "S1Hand" / f"{chip}_S1Hand.tif", radar.astype(np.float32), ("VV", "VH"), **place)
        save(folder / "S2Hand" / f"{chip}_S2Hand.tif", scenes.expose(rng, scene), NAMES, **place)
        save(folder / "LabelHand" / f"{chip}_LabelHand.tif", label, **place)
