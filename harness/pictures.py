"""Which pictures a run leaves: panels of what a head predicted, and the features of all models for one image."""

from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from harness.panels import Array, Panel, panels, pca_panel
from tasks.common.scenes import IGNORE
from tasks.common.splits import Result

if TYPE_CHECKING:
    from harness.dense import PerPixel

STAGE = 2  # the third: stride 16, where Swins and ViTs have maps of like size


def draw(opened: "PerPixel", task: str, result: Result, run_id: str) -> Path:
    """Write the panels of one run, named after data set, model and run."""
    card, scenes = opened.dataset.card, opened.scenes
    rows = []
    for name, prediction in result.predictions.items():
        image = opened.dataset.read(name, opened.transform.read)
        before, after = (image[0], image[1]) if scenes.fuse else (None, image)
        label = scenes.label(name)
        rows.append(
            Panel(opened.model.card.label, card.name, name, after, label, prediction, opened.transform.read, before)
        )
    path = opened.options.pictures / f"{card.name}_{task}_{opened.model.card.label.replace(':', '-')}_{run_id}.png"
    panels(path, rows, card.classes, IGNORE)
    return path


class Gallery:
    """One image of each data set as all models see it: principal components of their third stage."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.images: dict[str, tuple[str, Array, tuple[str, ...]]] = {}
        self.features: defaultdict[str, dict[str, Array]] = defaultdict(dict)

    def add(self, opened: "PerPixel") -> None:
        """Remember what a model makes of the first test image (of a pair: its later date)."""
        name, data = opened.names["test"][0], opened.dataset
        image = data.read(name, opened.transform.read)
        image = image[1] if opened.scenes.fuse else image
        visible = opened.transform.read
        known = self.images.get(data.card.name)
        if known is None or len(visible) > len(known[2]):
            self.images[data.card.name] = name, np.asarray(image), visible
        self.features[data.card.name][opened.model.card.label] = opened.scenes.view(name, STAGE)

    def write(self) -> list[Path]:
        """A picture per data set; returns where they are."""
        paths = []
        for dataset, (name, image, bands) in self.images.items():
            paths.append(self.folder / f"{dataset}_features.png")
            title = f"{dataset}, {name}: principal components of stage {STAGE + 1}"
            pca_panel(paths[-1], image, self.features[dataset], bands, title)
        return paths
