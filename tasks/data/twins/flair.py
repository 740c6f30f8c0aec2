"""The twin of FLAIR: 26 patches of 512 px in its thirteen domains (published: about 21400).

Two zones a domain, one patch of 512 px and five bands in each; masks hold 1..19.
The layout is that of `tasks.data.flair`, which names its source.
"""

from pathlib import Path

from tasks.data import flair
from tasks.data.twins.blocks import fields, painted
from tasks.data.twins.rasters import generator, save


def write(root: Path, seed: int = 0) -> None:
    """Write the twin below `root`: same seed, same bytes."""
    import numpy as np

    rng, count = generator(seed), 0
    for part, (images, masks) in flair.FOLDERS.items():
        for domain in flair.DOMAINS[part]:
            for zone in ("Z1_NN", "Z2_UU"):
                count += 1
                classes = fields(rng, flair.STORED, 512, 512, 8) + 1
                image = painted(rng, classes, 5)
                folder = Path(f"{domain}_2020") / zone
                save(root / images / folder / "img" / f"IMG_{count:06}.tif", image.astype(np.uint8))
                save(root / masks / folder / "msk" / f"MSK_{count:06}.tif", classes[None].astype(np.uint8))
