"""The twin of LEVIR-CD: five pairs of 512 x 512 pixels, hence four tiles of 256 each (published: 637 of 1024 x 1024).

Layout: the three published archives as justchenhao/STANet describes them, `{train,val,test}/{A,B,label}/<split>_<n>.png`,
8-bit RGB, labels 0 and 255.
"""

from pathlib import Path

from tasks.data import scenes
from tasks.data.twins.rasters import generator, photograph, save

SIZE = 512
PAIRS = {"train": 2, "val": 1, "test": 2}


def write(root: Path, seed: int = 0) -> None:
    """Write the twin to `root` (`train/A/train_1.png`, ...): same seed, same bytes."""
    import numpy as np

    for part, (split, count) in enumerate(PAIRS.items()):
        for number in range(1, count + 1):
            rng = generator(seed, part, number)
            ground = scenes.mosaic(rng, SIZE // 4, 9, ("pasture", "bare soil", "broadleaves"))
            built = scenes.blocks(rng, ground, "roofs", 24, 0.4)
            dates = [photograph(scenes.expose(rng, scene)) for scene in (ground, built)]
            label = np.where(ground != built, 255, 0).astype(np.uint8)
            for folder, image in zip(("A", "B", "label"), (*dates, label[None])):
                save(root / split / folder / f"{split}_{number}.png", image.repeat(4, axis=1).repeat(4, axis=2))
