"""The twin of CV-BrCT: 72 aerial images of 500 px (published: about 24000).

aerial/<class>/<n>.jpg of 500 px, eight a class (the street view is not read and not made).
The layout is that of `tasks.data.cv_brct`, which names its source.
"""

from pathlib import Path

from tasks.data.cv_brct import IMAGES
from tasks.data.twins.blocks import save, scene
from tasks.data.twins.rasters import generator
from tasks.data.xstars_cards import CV_BRCT


def write(root: Path, seed: int = 0) -> None:
    """Write the twin below `root`: same seed, same bytes."""
    rng = generator(seed)
    for number, label in enumerate(CV_BRCT):
        for index in range(8):
            save(root / IMAGES / label / f"{index + 1}.jpg", scene(rng, number, 500, 500, 10))
