"""The twin of SpaceNet 1: twenty-eight images of about 60 x 64 pixels (published: 6940 of about 406 x 439).

Layout: the archives' folders and names as torchgeo's `SpaceNet1` finds them: `train/3band/3band_AOI_1_RIO_img<n>.tif`
(8 bits), `train/8band/...` (16 bits, a quarter of the width), `train/geojson/Geo_AOI_1_RIO_img<n>.geojson` with polygons
of three coordinates per point. Sizes differ by a pixel, and one image has no building, both as published.
"""

import json
from pathlib import Path

from tasks.data import scenes
from tasks.data.twins.rasters import generator, photograph, save

COUNT, HEIGHT, WIDTH, PIXEL = 28, 60, 64, 4.5e-6


def write(root: Path, seed: int = 0) -> None:
    """Write the twin below `root` (`train/...`): same seed, same bytes."""
    import numpy as np
    from rasterio.transform import from_origin

    for number in range(1, COUNT + 1):
        rng = generator(seed, number)
        height, width = HEIGHT + number % 2, WIDTH - number % 3
        west, north = -43.6 + 0.002 * number, -22.9
        scene = scenes.mosaic(rng, WIDTH, 12, ("pasture", "broadleaves", "asphalt"))
        features = []
        for row in range(4, height - 16, 18) if number != 3 else ():
            for column in range(4, width - 14, 16):
                tall, wide = (int(extent) for extent in rng.integers(6, 13, 2))
                scene[row : row + tall, column : column + wide] = scenes.NAMES.index("roofs")
                features.append(_footprint(west, north, row, column, tall, wide))
        image = scenes.expose(rng, scene)[:, :height, :width]
        place = f"AOI_1_RIO_img{number}"
        rgb = {"crs": "EPSG:4326", "transform": from_origin(west, north, PIXEL, PIXEL)}
        save(root / "train" / "3band" / f"3band_{place}.tif", photograph(image), **rgb)
        eight = image[[0, 1, 2, 2, 3, 4, 7, 9], ::4, ::4].astype(np.uint16)
        coarse = {"crs": "EPSG:4326", "transform": from_origin(west, north, 4 * PIXEL, 4 * PIXEL)}
        save(root / "train" / "8band" / f"8band_{place}.tif", eight, **coarse)
        file = root / "train" / "geojson" / f"Geo_{place}.geojson"
        file.parent.mkdir(parents=True, exist_ok=True)
        crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:OGC:1.3:CRS84"}}
        file.write_text(json.dumps({"type": "FeatureCollection", "crs": crs, "features": features}), encoding="utf-8")


def _footprint(west: float, north: float, row: int, column: int, tall: int, wide: int) -> dict[str, object]:
    left, right = (west + PIXEL * place for place in (column, column + wide))
    top, bottom = (north - PIXEL * place for place in (row, row + tall))
    ring = [[x, y, 0.0] for x, y in ((left, top), (left, bottom), (right, bottom), (right, top), (left, top))]
    geometry = {"type": "Polygon", "coordinates": [ring]}
    return {"type": "Feature", "properties": {"HGIS_OBJID": "1_1"}, "geometry": geometry}
