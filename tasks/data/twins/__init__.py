"""Synthetic twins of data sets that are too large or not free enough to test with: tiny, in the exact layout on disk.

Each module has one verb, `write(root, seed=0)`: the same bytes for the same seed; `geobench` tells its twelve sets by the
name of the directory. `TWINS` says which module stands for which data set. The twins of the demonstration, smaller than
the real patches, are `tasks.data.twin`; scenes come from `tasks.data.scenes`.
"""

from importlib import import_module
from pathlib import Path

from models.common.errors import choose

TWINS = {
    **dict.fromkeys(
        (
            *("m-bigearthnet", "m-so2sat", "m-brick-kiln", "m-forestnet", "m-eurosat", "m-pv4ger", "m-pv4ger-seg"),
            *("m-chesapeake-landcover", "m-cashew-plantation", "m-SA-crop-type", "m-nz-cattle", "m-NeonTree"),
        ),
        "geobench",
    ),
    "spacenet1": "spacenet1",
    "spacenet1-8band": "spacenet1",
    "sen1floods11": "sen1floods11",
    "pastis": "pastis",
    "levir-cd": "levir_cd",
    "oscd": "oscd",
    "eurosat-rgb": "eurosat_rgb",
    "worldstrat": "worldstrat",
    "uc-merced": "uc_merced",
    "cv-brct": "cv_brct",
    "flair": "flair",
    "spacenet8": "spacenet8",
    "chesapeake-landsat8": "chesapeake_landsat",
}


def write(name: str, data_root: Path, seed: int = 0) -> Path:
    """Write the twin of the data set `name` where its card looks for it below `data_root`; returns that directory.

    Raises `UserError` for a data set without a twin.
    """
    from tasks.data.catalogue import CARDS

    module = import_module(f"tasks.data.twins.{TWINS[choose('data set with a twin', name, TWINS)]}")
    root = data_root / CARDS[name].location
    module.write(root, seed)
    return root
