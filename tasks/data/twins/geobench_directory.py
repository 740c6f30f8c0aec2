"""A GEO-Bench v1 directory from samples in memory, written by geobench 1.1 itself: what every twin of that layout uses.

One HDF5 file per sample, `task_specs.pkl`, `default_partition.json` and `0.01x_train_partition.json` ... `1.00x_train_`,
`band_stats.json`, and `label_map.json` (a class per image) or `label_stats.json` (masks, several labels). The writers are
`geobench.dataset.write_sample_hdf5`, `Partition.save`, `TaskSpecifications.save` and `compute_dataset_statistics`.
"""

import json
from collections.abc import Sequence
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from geobench.dataset import Band, BandInfo, Sample

FRACTIONS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


def bands(planes: "Sequence[np.ndarray]", infos: "Sequence[BandInfo]", gsd: float, date: Any = None) -> "list[Band]":
    """Planes (H, W) as geobench's bands, in their own dtype; with a `date`, it becomes part of every key."""
    from geobench.dataset import Band

    pairs = zip(planes, infos, strict=True)
    return [Band(plane, info, spatial_resolution=gsd, date=date, convert_to_int16=False) for plane, info in pairs]


def write(
    directory: Path,
    samples: "Sequence[Sample]",
    sizes: tuple[int, int, int],
    label_type: Any,
    *,
    size: int,
    gsd: float,
    seed: int,
    least: int,
) -> None:
    """Write `samples`, the first `sizes[0]` of them as train, then valid, then test, to a new `directory`.

    `size` is the side of a patch in pixels, `gsd` that of a pixel in metres. A training fraction holds at least `least`
    images: the released fractions are of sets hundreds of times as big. `seed` is that of the statistics.
    """
    from geobench.dataset import Partition, write_sample_hdf5
    from geobench.label import Classification
    from geobench.task import TaskSpecifications

    directory.mkdir(parents=True)
    for sample in samples:
        write_sample_hdf5(sample, str(directory))
    TaskSpecifications(
        dataset_name=directory.name,
        benchmark_name=directory.parent.name,
        patch_size=(size, size),
        n_time_steps=1,
        bands_info=[band.band_info for band in samples[0].bands],
        label_type=label_type,
        spatial_resolution=gsd,
    ).save(str(directory))

    names = [sample.sample_name for sample in samples]
    train, valid, test = names[: sizes[0]], names[sizes[0] : sizes[0] + sizes[1]], names[sizes[0] + sizes[1] :]
    Partition({"train": train, "valid": valid, "test": test}).save(str(directory), "default")
    for fraction in FRACTIONS:
        subset = train[: max(least, round(fraction * len(train)))]
        Partition({"train": subset, "valid": valid, "test": test}).save(str(directory), f"{fraction:.2f}x_train")

    _dump(directory / "band_stats.json", _band_statistics(directory, seed))
    if isinstance(label_type, Classification):
        by_label: dict[str, list[str]] = {}
        for sample in samples:
            by_label.setdefault(str(sample.label), []).append(sample.sample_name)
        _dump(directory / "label_map.json", by_label)
    else:
        shares = {sample.sample_name: label_type.label_stats(sample.label).tolist() for sample in samples}
        _dump(directory / "label_stats.json", shares)


def pack(directory: Path) -> None:
    """Compress the samples of `directory` with HDF5's own filters: readers see the same, and a twin stays small."""
    import h5py

    for path in sorted(directory.glob("*.hdf5")):
        packed = path.with_suffix(".packed")
        with h5py.File(path) as source, h5py.File(packed, "w") as target:
            for key, stored in source.items():
                target.create_dataset(key, data=stored[()], compression="gzip", compression_opts=1, shuffle=True)
            target.attrs["pickle"] = source.attrs["pickle"]
        packed.replace(path)


def _band_statistics(directory: Path, seed: int) -> dict[str, dict[str, float]]:
    """As geobench computes them for a release: a thousand pixels per band of every training image, here with a seed."""
    import warnings

    import numpy as np
    from geobench.dataset import GeobenchDataset, compute_dataset_statistics

    state = np.random.get_state()
    np.random.seed(seed)  # geobench draws from numpy's global generator
    try:
        with warnings.catch_warnings(), redirect_stderr(StringIO()):  # it warns of band names, and counts aloud
            warnings.simplefilter("ignore")
            train = GeobenchDataset(directory, split="train")
            _, statistics = compute_dataset_statistics(train, n_value_per_image=1000)
    finally:
        np.random.set_state(state)
    return {name: stats.to_dict() for name, stats in statistics.items()}


def _dump(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=4, sort_keys=True), encoding="utf-8")
