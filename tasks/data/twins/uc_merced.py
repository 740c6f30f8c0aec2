"""The twin of UC-Merced: 105 images of 256 px (published: 2100).

UCMerced_LandUse/Images/<class>/<class><nn>.tif of 256 px, five a class; one of them is smaller, as 44 are.
The layout is that of `tasks.data.uc_merced`, which names its source.
"""

from pathlib import Path

from tasks.data.dataset import SPLITS
from tasks.data.twins.blocks import scene
from tasks.data.twins.rasters import generator, save
from tasks.data.uc_merced import IMAGES, LIST
from tasks.data.xstars_cards import UC_MERCED


def write(root: Path, seed: int = 0) -> None:
    """Write the twin below `root`: same seed, same bytes."""
    rng = generator(seed)
    rows = [line.split(",") for line in LIST.read_text(encoding="utf-8").splitlines()[1:]]
    for number, label in enumerate(UC_MERCED):
        own = {split: [name for name, where in rows if name.startswith(label) and where == split] for split in SPLITS}
        for name in [*own["train"][:3], *own["val"][:1], *own["test"][:1]]:
            height = 247 if name == own["train"][0] and label == "harbor" else 256
            path = root / IMAGES[0] / label / f"{name}.tif"
            save(path, scene(rng, number, height, 256, 8))
