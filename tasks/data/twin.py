"""The synthetic twin of GEO-Bench: small directories with the names, files and faults of the released ones.

    <root>/classification_v1.0/m-eurosat      140 scenes, 13 bands, 10 classes, band names wrong as released
    <root>/classification_v1.0/m-bigearthnet  80 scenes, 12 bands, 43 labels of which 8 occur
    <root>/segmentation_v1.0/m-cashew-plant   40 scenes, 12 bands and cloud probability, 7 classes, dates in the keys
    <root>/change/demo-pairs                  20 pairs of GeoTIFF (before, after, label), with split lists

All 300 images are 64 x 64 pixels (the released sets: 64, 120 and 256), so that a demonstration takes a minute. They are
written by geobench 1.1 itself (`geobench.dataset.write_sample_hdf5`, `Partition.save`, `TaskSpecifications.save`,
`compute_dataset_statistics`), in the order and with the dtypes of its converters (ServiceNow/geo-bench,
`make_benchmark`), and so walk the very path that real data walks. Scenes come from `scenes.py`; one seed, same bytes.
"""

import datetime
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.common.errors import UserError, one_line
from models.common.spectral import band
from tasks.data import scenes
from tasks.data.dataset import DatasetCard
from tasks.data.geobench_cards import CARDS, EUROSAT_ORDER
from tasks.data.twins import geobench_directory
from tasks.data.twins.geobench_directory import bands

if TYPE_CHECKING:
    import numpy as np
    from geobench.dataset import Sample

VERSION = 1
SEED = 3  # of the first eight, the one whose splits hold every label of m-bigearthnet most evenly
SIZE = 64
MARKER = "twin.json"
NEEDED = 64 << 20
EUROSAT, BIGEARTHNET, CASHEW, PAIRS = (70, 30, 40), (40, 16, 24), (20, 8, 12), (10, 4, 6)

_NOTE = f"Synthetic scenes of {SIZE} x {SIZE} pixels: for demonstrations and tests, no measure of a model."


def _demo(source: str, name: str, title: str, splits: tuple[int, int, int]) -> DatasetCard:
    real = CARDS[source]
    return replace(
        real,
        name=name,
        title=f"{title} (synthetic)",
        location=f"twin/{real.location}",
        aliases=(),
        size=SIZE,
        splits=splits,
        licence="MIT",
        origin="made by tasks/data/twin.py",
        notes=_NOTE,
        revision=VERSION,
    )


DEMO_CARDS: dict[str, DatasetCard] = {
    "demo-eurosat": _demo("m-eurosat", "demo-eurosat", "Land use, one of ten classes", EUROSAT),
    "demo-bigearthnet": _demo("m-bigearthnet", "demo-bigearthnet", "Land cover, several labels", BIGEARTHNET),
    "demo-cashew": _demo("m-cashew-plantation", "demo-cashew", "Plantations, a class per pixel", CASHEW),
    "demo-change": DatasetCard(
        name="demo-change",
        title="What was built over or flooded between two dates (synthetic)",
        label="change",
        classes=("no change", "change"),
        bands=tuple(band(f"S2:{name}", str(number), "dn") for number, name in enumerate(scenes.BANDS, 1)),
        size=SIZE,
        gsd=10,
        modality="ms",
        family="pairs",
        location="twin/change/demo-pairs",
        splits=PAIRS,
        licence="MIT",
        citation="made by tasks/data/twin.py",
        origin="made by tasks/data/twin.py",
        notes=_NOTE,
        revision=VERSION,
    ),
}


def write(root: Path, progress: Callable[[int, int], None] | None = None) -> None:
    """Write the twin to `root`, or do nothing where one of this version is. `progress(done, total)` counts images.

    The tree is written beside `root`, its marker last, and renamed: a twin that was interrupted is never taken for a
    whole one. An older twin is replaced; a folder that is no twin is left alone. Raises `UserError`.
    """
    from models.common.download import alone

    if marker(root).get("version") == VERSION:
        return
    partial = root.with_name(f".{root.name}.partial")
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        with alone(root.with_name(f".{root.name}.lock")):
            if marker(root).get("version") == VERSION:  # another process wrote it while this one waited
                return
            if root.exists() and not marker(root) and any(root.iterdir()):
                raise UserError(f"{root} is not empty and holds no twin; move it away, or choose another data root")
            if shutil.disk_usage(root.parent).free < NEEDED:
                raise UserError(f"the disk is full: the synthetic data need {NEEDED >> 20} MiB below {root.parent}")
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            try:
                images = _write_all(partial, progress or (lambda done, total: None))
                content = {"version": VERSION, "seed": SEED, "images": images}
                (partial / MARKER).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
                if root.exists():
                    shutil.rmtree(root)
                os.rename(partial, root)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        raise UserError(f"the synthetic data cannot be written to {root} ({one_line(error)})") from error


def marker(root: Path) -> dict[str, Any]:
    """What the marker of the twin in `root` says; empty where there is no whole twin."""
    try:
        return json.loads((root / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _write_all(root: Path, progress: Callable[[int, int], None]) -> dict[str, int]:
    parts = {"m-eurosat": EUROSAT, "m-bigearthnet": BIGEARTHNET, "m-cashew-plant": CASHEW, "demo-pairs": PAIRS}
    writers = (_write_eurosat, _write_bigearthnet, _write_cashew, _write_pairs)
    images = [sum(splits) * (2 if name == "demo-pairs" else 1) for name, splits in parts.items()]
    for number, writer in enumerate(writers):
        before = sum(images[:number])
        writer(root, lambda done, before=before: progress(before + done, sum(images)))
    return dict(zip(parts, images, strict=True))


def _generator(part: int, number: int) -> "np.random.Generator":
    """Every image has a stream of its own, so that one set can change without the others."""
    import numpy as np

    return np.random.default_rng((SEED, part, number))


def _write_eurosat(root: Path, progress: Callable[[int], None]) -> None:
    """Content in the order of EuroSAT's files (B8A last) under names in that of the wavelengths: the known error."""
    import numpy as np
    from geobench.dataset import Sample, sentinel2_13_bands
    from geobench.label import Classification

    classes = CARDS["m-eurosat"].classes
    samples: list[Sample] = []
    for number in range(sum(EUROSAT)):
        rng = _generator(0, number)
        label = number % len(classes)
        image = scenes.expose(rng, scenes.land_use(rng, classes[label], SIZE))
        planes = [image[scenes.BANDS.index(name)].astype(np.int16) for name in EUROSAT_ORDER.split()]
        samples.append(Sample(bands(planes, sentinel2_13_bands, 10), label=label, sample_name=f"id_{number:04d}"))
        progress(number + 1)
    label_type = Classification(len(classes), class_names=list(classes))
    _write_geobench(root / CARDS["m-eurosat"].location, samples, EUROSAT, label_type)


def _write_bigearthnet(root: Path, progress: Callable[[int], None]) -> None:
    import numpy as np
    from geobench.dataset import Sample, sentinel2_13_bands
    from geobench.label import MultiLabelClassification

    classes = CARDS["m-bigearthnet"].classes
    infos = [info for info in sentinel2_13_bands if not info.name.startswith("10")]
    samples: list[Sample] = []
    for number in range(sum(BIGEARTHNET)):
        rng = _generator(1, number)
        scene, present = scenes.covers(rng, SIZE)
        image = scenes.expose(rng, scene).astype(np.float32)
        planes = [image[index] for index, name in enumerate(scenes.BANDS) if name != "B10"]
        label: Any = np.array([int(name in present) for name in classes])
        samples.append(Sample(bands(planes, infos, 10), label=label, sample_name=f"id_{number:04d}"))
        progress(number + 1)
    label_type = MultiLabelClassification(len(classes), class_names=list(classes))
    _write_geobench(root / CARDS["m-bigearthnet"].location, samples, BIGEARTHNET, label_type)


def _write_cashew(root: Path, progress: Callable[[int], None]) -> None:
    import numpy as np
    from geobench.dataset import Band, BandInfo, CloudProbability, Sample, SegmentationClasses, sentinel2_13_bands

    card = CARDS["m-cashew-plantation"]
    label_type = SegmentationClasses("label", spatial_resolution=10, n_classes=card.num_classes)
    infos: list[BandInfo] = [info for info in sentinel2_13_bands if not info.name.startswith("10")]
    infos.append(CloudProbability(spatial_resolution=10))
    samples: list[Sample] = []
    for number in range(sum(CASHEW)):
        rng = _generator(2, number)
        scene, classes = scenes.plantation(rng, SIZE)
        image = scenes.expose(rng, scene).astype(np.float32)
        planes = [image[index] for index, name in enumerate(scenes.BANDS) if name != "B10"]
        planes.append(np.rint(3 + 1.5 * scenes.texture(rng, SIZE, 6)).clip(0, 100).astype(np.float32))
        date = datetime.date(2019, 11, 5) + datetime.timedelta(days=5 * int(rng.integers(70)))
        label = Band(classes.astype(np.int64), label_type, spatial_resolution=10)
        samples.append(Sample(bands(planes, infos, 10, date), label=label, sample_name=f"sample_{number}"))
        progress(number + 1)
    _write_geobench(root / card.location, samples, CASHEW, label_type)


def _write_geobench(directory: Path, samples: "list[Sample]", sizes: tuple[int, int, int], label_type: Any) -> None:
    # Ten images: one per class of m-eurosat.
    geobench_directory.write(directory, samples, sizes, label_type, size=SIZE, gsd=10, seed=SEED, least=10)


def _write_pairs(root: Path, progress: Callable[[int], None]) -> None:
    """Pairs of 13-band GeoTIFF in the order of `scenes.BANDS`, 0/1 masks of change, and a list of names per split."""
    import numpy as np
    import rasterio
    from rasterio.transform import from_origin

    directory = root / "change" / "demo-pairs"
    for name in ("before", "after", "label"):
        (directory / name).mkdir(parents=True)
    names = [f"pair_{number:02d}" for number in range(sum(PAIRS))]
    for number, name in enumerate(names):
        rng = _generator(3, number)
        before, after, changed = scenes.change(rng, SIZE)
        content = {"before": scenes.expose(rng, before), "after": scenes.expose(rng, after), "label": changed[None]}
        for folder, image in content.items():
            image = image.astype(np.uint8 if folder == "label" else np.int16)
            with rasterio.open(
                directory / folder / f"{name}.tif",
                "w",
                driver="GTiff",
                width=SIZE,
                height=SIZE,
                count=len(image),
                dtype=image.dtype,
                crs="EPSG:32631",
                transform=from_origin(500_000 + 10 * SIZE * number, 5_000_000, 10, 10),
                compress="deflate",
            ) as target:
                target.write(image)
                target.descriptions = ("change",) if folder == "label" else scenes.BANDS
        progress(2 * number + 2)
    ends = (0, PAIRS[0], PAIRS[0] + PAIRS[1], sum(PAIRS))
    for split, start, end in zip(("train", "val", "test"), ends, ends[1:]):
        (directory / f"{split}.txt").write_text("\n".join(names[start:end]) + "\n", encoding="utf-8")
