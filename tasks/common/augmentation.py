"""Fresh features for every epoch, for protocols that augment images or leave the backbone in train mode.

Such protocols cannot use the feature store. The randomness of an image is keyed by (seed, epoch, position), so neither
batch size nor worker count changes it; stochastic depth draws from a generator seeded by (seed, epoch).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional

from models.common.backbone import Backbone
from models.common.bands import Transform
from tasks.common.features import Compute, Progress, encode
from tasks.data.dataset import Dataset
from tasks.switches import Dense, LinearProbe


class Geometry(NamedTuple):
    """Where the pixels of one image go in one epoch. `crop`: top, left, height and width as shares of the image."""

    horizontal: bool
    vertical: bool
    angle: float
    crop: tuple[float, float, float, float] | None

    def __call__(self, image: np.ndarray, fill: float = 0.0, labels: bool = False) -> np.ndarray:
        """Apply to (..., H, W): images are resampled bilinearly, `labels` by the nearest; `fill` is what a rotation uncovers."""
        if self.horizontal:
            image = image[..., ::-1]
        if self.vertical:
            image = image[..., ::-1, :]
        if self.angle:
            image = _rotated(image, self.angle, fill, labels)
        if self.crop:
            image = _cropped(image, self.crop, labels)
        return np.ascontiguousarray(image)


def draw(switches: LinearProbe | Dense, generator: np.random.Generator) -> Geometry:
    """The geometry of one image: flips both ways, each with `flip_probability`; then a rotation or a crop, if asked for.

    The angle is uniform in +-`rotation_degrees` (zeros outside, as DEO's evaluation does for BigEarthNet). The crop is a
    square share of the image whose area is uniform in `crop_scale`, placed anywhere, and scaled back.
    """
    horizontal, vertical = generator.random(2) < switches.flip_probability
    angle = generator.uniform(-switches.rotation_degrees, switches.rotation_degrees)
    kind, crop = switches.augmentation, None
    if kind == "crop_flips":
        low, high = switches.crop_scale if isinstance(switches, Dense) else (1.0, 1.0)
        side = float(np.sqrt(generator.uniform(low, high)))
        top, left = generator.random(2) * (1 - side)
        crop = (float(top), float(left), side, side)
    flips = kind != "none"
    return Geometry(
        flips and bool(horizontal), flips and bool(vertical), angle if kind == "flips_rotation" else 0.0, crop
    )


def augment(patch: np.ndarray, switches: LinearProbe | Dense, generator: np.random.Generator) -> np.ndarray:
    """A patch (C, H, W) as one epoch sees it: `draw`, applied."""
    return draw(switches, generator)(patch)


def _rotated(image: np.ndarray, angle: float, fill: float, labels: bool) -> np.ndarray:
    from torchvision.transforms.functional import InterpolationMode, rotate

    mode = InterpolationMode.NEAREST if labels else InterpolationMode.BILINEAR
    planes = torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32)).reshape(-1, *image.shape[-2:])
    turned = rotate(planes, angle, mode, fill=[fill] * len(planes)) if len(planes) else planes
    return turned.numpy().reshape(image.shape).astype(image.dtype)


def _cropped(image: np.ndarray, crop: tuple[float, float, float, float], labels: bool) -> np.ndarray:
    height, width = image.shape[-2:]
    rows, columns = max(1, round(crop[2] * height)), max(1, round(crop[3] * width))
    top, left = min(round(crop[0] * height), height - rows), min(round(crop[1] * width), width - columns)
    part = np.ascontiguousarray(image[..., top : top + rows, left : left + columns], dtype=np.float32)
    planes = torch.from_numpy(part).reshape(1, -1, rows, columns)
    if labels:
        scaled = functional.interpolate(planes, (height, width), mode="nearest-exact")
    else:
        scaled = functional.interpolate(planes, (height, width), mode="bilinear", align_corners=False, antialias=True)
    return scaled.numpy().reshape(image.shape).astype(image.dtype)


def epoch_features(
    model: Backbone,
    dataset: Dataset,
    names: Sequence[str],
    transform: Transform,
    *,
    pooled: str,
    switches: LinearProbe,
    seed: int,
    epoch: int,
    compute: Compute,
    progress: Progress,
) -> torch.Tensor:
    """Pooled features (N, D) of one epoch; the backbone is in train mode only inside, and frozen all the while."""
    rows = []
    devices = [torch.device(compute.device)] if compute.device.startswith("cuda") else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed * 100_003 + epoch)
        if switches.backbone_mode == "train":
            model.stochastic()
        try:
            for start in range(0, len(names), compute.batch):
                patches = []
                for position, name in enumerate(names[start : start + compute.batch], start):
                    generator = np.random.default_rng([seed, epoch, position])
                    patch = dataset.read(name, transform.read).astype(np.float32)
                    patches.append(augment(patch, switches, generator)[None])
                rows.append(encode(model, patches, transform, dataset, pooled, compute))
                progress(f"{dataset.card.name} epoch {epoch + 1}", start + len(patches), len(names))
        finally:
            model.eval()
    return torch.from_numpy(np.concatenate(rows))
