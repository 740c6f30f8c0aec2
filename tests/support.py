"""What several tests need besides fixtures."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def in_a_process(arguments: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    """The same command as a user would start it."""
    return subprocess.run(
        [sys.executable, "-m", "harness", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def write_geobench_eurosat(directory: Path, tiles: list[Path]) -> None:
    """A GEO-Bench `m-eurosat` directory of real EuroSAT tiles, by geobench's own writer, with the released band-name error.

    The tiles' channels stand in EuroSAT's order (B8A last) and get the names of the wavelength order, as in the release.
    Every third tile is test, every fourth of the rest validation; statistics are those of the training tiles.
    """
    import json

    import numpy as np
    import rasterio
    from geobench.dataset import Band, Partition, Sample, compute_stats, sentinel2_13_bands, write_sample_hdf5
    from geobench.label import Classification
    from geobench.task import TaskSpecifications

    from tasks.data.geobench_cards import CARDS

    directory.mkdir(parents=True)
    classes = list(CARDS["m-eurosat"].classes)
    folder_class = {name.replace(" ", "").lower(): number for number, name in enumerate(classes)}
    splits: dict[str, list[str]] = {"train": [], "valid": [], "test": []}
    pixels = []
    for number, tile in enumerate(tiles):
        with rasterio.open(tile) as image:
            planes = image.read().astype(np.int16)
        bands = [
            Band(plane, info, spatial_resolution=10) for plane, info in zip(planes, sentinel2_13_bands, strict=True)
        ]
        name = f"id_{number:04d}"
        write_sample_hdf5(Sample(bands, label=folder_class[tile.parent.name.lower()], sample_name=name), str(directory))
        split = "test" if number % 3 == 2 else "valid" if number % 4 == 3 else "train"
        splits[split].append(name)
        if split == "train":
            pixels.append(planes)
    TaskSpecifications(
        dataset_name="m-eurosat",
        benchmark_name="classification_v1.0",
        patch_size=(64, 64),
        n_time_steps=1,
        bands_info=list(sentinel2_13_bands),
        label_type=Classification(len(classes), class_names=classes),
        spatial_resolution=10,
    ).save(str(directory))
    Partition(splits).save(str(directory), "default")
    stacked = np.stack(pixels, axis=1).reshape(13, -1)
    statistics = {
        info.name: compute_stats(values).to_dict() for info, values in zip(sentinel2_13_bands, stacked, strict=True)
    }
    (directory / "band_stats.json").write_text(json.dumps(statistics))
