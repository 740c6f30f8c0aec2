"""The twin of PASTIS-R: ten patches of 32 x 32 pixels and seven to eight dates (published: 2433 of 128 x 128, 33 to 61).

Layout: VSainteuf/pastis-benchmark (README, `code/dataloader.py`) and torchgeo's `PASTIS`: `DATA_S2/S2_<id>.npy` int16
(T, 10, H, W), `ANNOTATIONS/TARGET_<id>.npy` uint8 (3, H, W) with the classes first, `metadata.geojson` with `ID_PATCH`,
`Fold` and the dates. One date in four is under cloud, which a median takes out.
"""

import json
from pathlib import Path

from tasks.data import scenes
from tasks.data.pastis import BANDS
from tasks.data.twins.rasters import generator

SIZE = 32
CROPS = ("asphalt", "pasture", "green crop", "stubble", "orchard")  # of the classes 0..4
VOID = 19


def write(root: Path, seed: int = 0) -> None:
    """Write the twin to `root` (`DATA_S2`, `ANNOTATIONS`, `metadata.geojson`): same seed, same bytes."""
    import numpy as np

    for folder in ("DATA_S2", "ANNOTATIONS"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    bands = [scenes.BANDS.index(name) for name in BANDS.split()]
    features = []
    for number in range(10):
        rng = generator(seed, number)
        name, fold = 10000 + 7 * number, 1 + number % 5
        parcels = scenes.cells(rng, SIZE, 8)
        classes = rng.integers(0, len(CROPS), 8)[parcels]
        scene = np.array([scenes.NAMES.index(crop) for crop in CROPS])[classes]
        dates = 7 + number % 2
        series = np.stack([scenes.expose(rng, scene)[bands] for _ in range(dates)])
        series[1::4] = rng.normal(7000, 300, series[1::4].shape)
        classes[parcels == 0] = VOID
        np.save(root / "DATA_S2" / f"S2_{name}.npy", series.astype(np.int16))
        target = np.stack([classes, parcels, np.zeros_like(parcels)]).astype(np.uint8)
        np.save(root / "ANNOTATIONS" / f"TARGET_{name}.npy", target)
        corner = 10.0 * SIZE * number
        square = [[corner, 0.0], [corner + 320, 0.0], [corner + 320, 320.0], [corner, 320.0], [corner, 0.0]]
        taken = {str(date): 20180917 + date for date in range(dates)}
        features.append(
            {
                "type": "Feature",
                "id": str(name),
                "properties": {"ID_PATCH": name, "Fold": fold, "TILE": "t30uxv", "dates-S2": taken},
                "geometry": {"type": "MultiPolygon", "coordinates": [[square]]},
            }
        )
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::2154"}}
    content = {"type": "FeatureCollection", "crs": crs, "features": features}
    (root / "metadata.geojson").write_text(json.dumps(content), encoding="utf-8")
