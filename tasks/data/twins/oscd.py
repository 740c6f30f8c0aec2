"""The twin of OSCD: four cities of about 200 x 110 pixels, hence six tiles of 96 each (published: 24 of 241 to 1180).

Layout: the three published archives as torchgeo's `OSCD` finds them, `Onera Satellite Change Detection dataset - Images`
with `train.txt`, `test.txt` (names on one line, with commas), `<city>/{dates.txt,imgs_1_rect,imgs_2_rect}/B01.tif ...`,
and `- Train Labels`, `- Test Labels` with `<city>/cm/cm.png` (RGB, black and white) and `<city>-cm.tif` (1 and 2).
"""

from pathlib import Path
from typing import TYPE_CHECKING

from tasks.data import scenes
from tasks.data.oscd import ARCHIVE
from tasks.data.twins.rasters import generator, save

if TYPE_CHECKING:
    import numpy as np

CITIES = {"train": ("aguasclaras", "beirut", "rennes"), "test": ("norcia",)}  # Rennes is of our validation split
SIZE = 200


def write(root: Path, seed: int = 0) -> None:
    """Write the twin to `root`: same seed, same bytes."""
    import numpy as np

    images = root / f"{ARCHIVE}Images"
    images.mkdir(parents=True, exist_ok=True)
    for part, (split, cities) in enumerate(CITIES.items()):
        (images / f"{split}.txt").write_text(",".join(cities) + "\n", encoding="utf-8")
        for number, city in enumerate(cities):
            rng = generator(seed, part, number)
            height, width = SIZE - number, 110 + number
            before, after, changed = (scene[:height, :width] for scene in scenes.change(rng, SIZE))
            dates = [_framed(rng, scene) for scene in (before, after)]
            for date, image in enumerate(dates, 1):
                for band, plane in zip(scenes.BANDS, image):
                    save(images / city / f"imgs_{date}_rect" / f"{band}.tif", plane.astype(np.uint16))
            (images / city / "dates.txt").write_text("date_1: 20150920\ndate_2: 20171015\n", encoding="utf-8")
            folder = root / f"{ARCHIVE}{split.capitalize()} Labels" / city / "cm"
            white = np.where(changed, 255, 0).astype(np.uint8)
            save(folder / "cm.png", np.stack([white] * 3))
            save(folder / f"{city}-cm.tif", (changed + 1).astype(np.uint8))


def _framed(rng: "np.random.Generator", scene: "np.ndarray") -> "np.ndarray":
    """Photograph a scene that is not square: padded to a square, and cut again."""
    import numpy as np

    height, width = scene.shape
    return scenes.expose(rng, np.pad(scene, ((0, SIZE - height), (0, SIZE - width)), mode="edge"))[:, :height, :width]
