"""The twin of EuroSAT RGB: ninety images of 64 px (published: 27000).

2750/<class>/<class>_<n>.jpg, nine a class, and the three lists.
The layout is that of `tasks.data.eurosat_rgb`, which names its source.
"""

from pathlib import Path

from tasks.data.dataset import SPLITS
from tasks.data.eurosat_rgb import IMAGES
from tasks.data.twins.blocks import save, scene
from tasks.data.twins.rasters import generator
from tasks.data.xstars_cards import EUROSAT


def write(root: Path, seed: int = 0) -> None:
    """Write the twin below `root`: same seed, same bytes."""
    rng = generator(seed)
    listed: dict[str, list[str]] = {split: [] for split in SPLITS}
    for number, label in enumerate(EUROSAT):
        for index in range(9):
            name = f"{label}_{index + 1}.jpg"
            save(root / IMAGES / label / name, scene(rng, number, 64, 64, 4))
            listed["train" if index < 5 else "val" if index < 7 else "test"].append(name)
    for split, names in listed.items():
        (root / f"eurosat-{split}.txt").write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
