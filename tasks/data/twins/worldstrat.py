"""The twin of WorldStrat: 28 scenes of 1054 px (published: about 3900).

hr_dataset/<tile>/<tile>_rgb.png of 1054 px, and the list: one tile of it twice, one without a class.
The layout is that of `tasks.data.worldstrat`, which names its source.
"""

from pathlib import Path

from tasks.data.twins.blocks import save, scene
from tasks.data.twins.rasters import generator
from tasks.data.worldstrat import IMAGES, LIST
from tasks.data.xstars_cards import XSTARS_CARDS


def write(root: Path, seed: int = 0) -> None:
    """Write the twin below `root`: same seed, same bytes."""
    rng = generator(seed)
    lines = [",tile,IPCC Class,SMOD,source,joint_class,split"]
    for number, label in enumerate(XSTARS_CARDS["worldstrat"].classes):
        for index, split in enumerate(("train", "train", "val", "test")):
            tile = f"Landcover-{number}{index:03}"
            save(root / IMAGES / tile / f"{tile}_rgb.png", scene(rng, number, 1054, 1054, 34))
            lines.append(f"{8 * len(lines)},{tile},{label},11,Landcover,Landcover/{label}/11,{split}")
    lines.append(lines[-1].replace(",test", ",train"))  # as in the release: the same tile again, in another split
    lines.append("99,Landcover-999999,,11,Landcover,Landcover/nan/11,train")
    path = root / LIST
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
