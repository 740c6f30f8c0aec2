"""The twin of Chesapeake on Landsat 8: 24 tiles of 300 x 260 px (published: about 731 of 7500 x 6000).

Six states: two train tiles, one of val and one of test, nine Landsat bands and NLCD codes; 260 px stand for 6 km.
The layout is that of `tasks.data.chesapeake_landsat`, which names its source.
"""

from pathlib import Path

from tasks.data import chesapeake_landsat
from tasks.data.twins.blocks import fields, painted
from tasks.data.twins.rasters import generator, save
from tasks.data.xstars_cards import NLCD


def write(root: Path, seed: int = 0) -> None:
    """Write the twin below `root`: same seed, same bytes."""
    import numpy as np
    from rasterio.transform import from_origin

    rng, codes = generator(seed), np.array(list(NLCD))
    for state, year in (("de", 2013), ("md", 2013), ("ny", 2013), ("pa", 2013), ("va", 2014), ("wv", 2014)):
        for split, count in (("train", 2), ("val", 1), ("test", 1)):
            for index in range(count):
                classes = fields(rng, len(codes), 300, 260, 20)
                bands = painted(rng, classes, 9).astype(np.float32) * 12 + 50
                bands[7:] = bands[7:] / 20 + 2900  # brightness temperature x 10
                folder = root / f"{state}_1m_{year}_extended-debuffered-{split}_tiles"
                stem = f"m_390{index}{len(split)}33_{state[0]}e_17_1"
                place = {"crs": "EPSG:26918", "transform": from_origin(300000, 4300000, 23, 25)}
                save(folder / f"{stem}{chesapeake_landsat.IMAGE}", bands, **place)
                save(folder / f"{stem}{chesapeake_landsat.MASK}", codes[classes][None].astype(np.uint8), **place)
