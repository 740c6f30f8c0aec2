"""Small GEO-Bench directories for tests, written by geobench's own writer from a card."""

import json
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np

from tasks.data.dataset import DatasetCard
from tasks.data.geobench_cards import CARDS

SMALL = {
    "class": replace(CARDS["m-eurosat"], size=8),
    "multilabel": replace(CARDS["m-bigearthnet"], size=8),
    "mask": replace(CARDS["m-cashew-plantation"], size=8),
}
NAMES = {"train": [f"id_{i:04d}" for i in range(6)], "valid": ["id_0006", "id_0007"], "test": ["5.89,51.01"]}


def write(directory: Path, card: DatasetCard, dated: tuple[str, ...] = (), seed: int = 0) -> Path:
    """A GEO-Bench directory for a card, written by geobench: samples, partitions, task specifications, statistics.

    `dated` keys (or `label`) carry a date, as those of forestnet, cashew and nz-cattle do. A key that truly holds B10
    has a mean of about 12, the other bands of about 1000, as in the release.
    """
    import geobench as gb

    directory.mkdir(parents=True)
    random = np.random.default_rng(seed)
    classes = list(card.classes)
    kinds = {
        "class": lambda: gb.Classification(len(classes), classes),
        "multilabel": lambda: gb.MultiLabelClassification(len(classes), classes),
        "mask": lambda: gb.SegmentationClasses("label", 10, len(classes)),
    }
    label_type = kinds[card.label]()
    infos = [gb.SpectralBand(one.key, (one.name,), 10, 0.5) for one in card.bands]
    shape = (card.size, card.size)
    specs = gb.TaskSpecifications(card.name, infos, 10, "converted", shape, 1, label_type)
    specs.save(str(directory))

    def on(key: str) -> date | None:
        return date(2019, 11, 5) if key in dated else None

    for name in [name for names in NAMES.values() for name in names]:
        bands = []
        for one, info in zip(card.bands, infos, strict=True):
            mean = 12 if one.name == "S2:B10" else 1000
            pixels = random.integers(0, 2 * mean, shape).astype(np.int16)
            bands.append(gb.Band(pixels, info, 10, date=on(one.key)))
        label = {
            "class": lambda: int(random.integers(len(classes))),
            "multilabel": lambda: random.integers(0, 2, len(classes)),
            "mask": lambda: gb.Band(random.integers(0, len(classes), shape), label_type, 10, date=on("label")),
        }[card.label]()
        gb.dataset.write_sample_hdf5(gb.Sample(bands, label, name), str(directory))
    gb.Partition(NAMES).save(str(directory), "default")
    for fraction, count in (("0.01", 0), ("0.50", 3), ("1.00", 6)):
        subset = {**NAMES, "train": NAMES["train"][::-1][:count]}
        gb.Partition(subset).save(str(directory), f"{fraction}x_train")
    data = gb.GeobenchDataset(directory, split="train")
    _, statistics = gb.dataset.compute_dataset_statistics(data, n_value_per_image=None)
    stored = {key: values.to_dict() for key, values in statistics.items()}
    (directory / "band_stats.json").write_text(json.dumps(stored))
    return directory
