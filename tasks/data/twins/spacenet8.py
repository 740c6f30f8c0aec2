"""The twin of SpaceNet 8: ten scenes of 1300 px, 250 tiles (published: 599, 14975).

Ten scenes of 1300 px with buildings and roads as GeoJSON, in degrees; one road has no lanes and is not drawn.
The layout is that of `tasks.data.spacenet8`, which names its source.
"""

import json
from pathlib import Path
from typing import Any

from tasks.data import spacenet8
from tasks.data.twins.blocks import scene
from tasks.data.twins.rasters import generator, save


def write(root: Path, seed: int = 0) -> None:
    """Write the twin below `root`: same seed, same bytes."""
    import numpy as np
    from rasterio.transform import from_origin

    rng, step = generator(seed), 4.5e-6  # degrees: half a metre
    for index in range(10):
        west, north = -90.5 + index * 1300 * step, 29.9
        stem = f"0_{index}_{10 + index}"
        image = scene(rng, index % 3, 1300, 1300, 26)
        features = []
        for left, top in rng.integers(0, 1200, (25, 2)):
            right, bottom = left + int(rng.integers(20, 90)), top + int(rng.integers(20, 90))
            image[:, top:bottom, left:right] = rng.integers(200, 240)
            ring = [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]
            corners = [[west + int(x) * step, north - int(y) * step] for x, y in ring]
            features.append(_feature("Polygon", [corners], building="yes", highway=None, lanes=None))
        for number, row in enumerate(rng.integers(50, 1250, 4)):
            image[:, row - 6 : row + 6] = 70
            line = [[west, north - int(row) * step], [west + 1300 * step, north - int(row) * step]]
            features.append(
                _feature("LineString", line, building=None, highway="residential", lanes=None if number == 3 else "2")
            )
        area = root / spacenet8.AREA
        transform = from_origin(west, north, step, step)
        path = area / "PRE-event" / f"10400100684A4B00_{stem}.tif"
        save(path, image.astype(np.uint8), crs=spacenet8.WGS84, transform=transform)
        label = area / "annotations" / f"{stem}.geojson"
        label.parent.mkdir(parents=True, exist_ok=True)
        label.write_text(json.dumps({"type": "FeatureCollection", "features": features}), encoding="utf-8")


def _feature(kind: str, coordinates: list[Any], **properties: Any) -> dict[str, Any]:
    return {"type": "Feature", "properties": properties, "geometry": {"type": kind, "coordinates": coordinates}}
