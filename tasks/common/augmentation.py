"""Fresh features for every epoch, for protocols that augment images or leave the backbone in train mode.

Such protocols cannot use the feature store. The randomness of an image is keyed by (seed, epoch, position), so neither
batch size nor worker count changes it; stochastic depth draws from a generator seeded by (seed, epoch).
"""

from collections.abc import Sequence

import numpy as np
import torch

from models.common.backbone import Backbone
from models.common.bands import Transform
from tasks.common.features import Compute, Progress, encode
from tasks.data.dataset import Dataset
from tasks.protocols import LinearProbe


def augment(patch: np.ndarray, switches: LinearProbe, generator: np.random.Generator) -> np.ndarray:
    """Flip a patch (C, H, W) both ways, each with `flip_probability`; `flips_rotation` also turns it.

    The angle is uniform in +-`rotation_degrees`, resampling bilinear with zeros outside, as DEO's evaluation does for
    BigEarthNet.
    """
    horizontal, vertical = generator.random(2) < switches.flip_probability
    angle = generator.uniform(-switches.rotation_degrees, switches.rotation_degrees)
    if switches.augmentation == "none":
        return patch
    if horizontal:
        patch = patch[:, :, ::-1]
    if vertical:
        patch = patch[:, ::-1]
    if switches.augmentation == "flips_rotation":
        from torchvision.transforms.functional import InterpolationMode, rotate

        turned = rotate(torch.from_numpy(patch.astype(np.float32)), angle, InterpolationMode.BILINEAR)
        patch = turned.numpy()
    return np.ascontiguousarray(patch)


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
        model.train(switches.backbone_mode == "train")
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
