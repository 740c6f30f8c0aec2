"""Does it learn? k-NN on a small labelled set, with the features of the method as it stands, while it trains."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from models.common.errors import UserError
from models.common.spectral import COMMON
from tasks import knn
from tasks.common.splits import Split
from tasks.data.dataset import Dataset
from tasks.data.unlabelled.images import TEN
from tasks.protocols import PROTOCOLS

LIMIT = {"train": 1000, "test": 500}
BATCH = 32
DIGITAL_NUMBERS = {"dn": 1.0, "reflectance": 10000.0}
FRACTIONS = {"uint8": 1 / 255, "dn": 1 / 10000, "reflectance": 1.0, "fraction": 1.0}
MULTISPECTRAL = tuple(f"S2:{band}" for band in TEN)

Encode = Callable[[Tensor], Tensor]


def effective_rank(features: Tensor) -> float:
    """exp(H(p)), p_i = s_i / sum_j s_j over the singular values of centred features (N, D) -> 1 .. min(N - 1, D).

    The number of directions that features use, by the entropy of the spectrum (Roy and Vetterli, EUSIPCO 2007); 1 where
    all lie on a line, and 0 where all are equal. Centred, so that a common offset is no direction.
    """
    centred = features.double() - features.double().mean(dim=0)
    values = torch.linalg.svdvals(centred)
    if not float(values.sum()) > 1e-12:
        return 0.0
    share = values / values.sum()
    share = share[share > 0]
    return float((-(share * share.log()).sum()).exp())


class LabelledSet:
    """The first images of the train and test splits of a data set, read once, in the units of a method's samples."""

    def __init__(self, dataset: Dataset, multispectral: bool, size: int) -> None:
        """Raises `UserError` for a set without classes or without the bands. `size` in pixels, 0: native."""
        if dataset.card.label not in ("class", "multilabel"):
            raise UserError(f"--probe {dataset.card.name} has masks, no classes; k-NN needs classes")
        self.dataset, self.multilabel = dataset, dataset.card.label == "multilabel"
        bands, scale = wanted_bands(dataset, multispectral)
        self.names = {split: spread(dataset.splits[split], limit) for split, limit in LIMIT.items()}
        self.images = {
            split: self._read(names, bands, scale, multispectral, size) for split, names in self.names.items()
        }

    def _read(
        self, names: Sequence[str], bands: Sequence[str], scale: float, multispectral: bool, size: int
    ) -> list[Tensor]:
        found = []
        for name in names:
            image = torch.from_numpy(self.dataset.read(name, bands).astype("float32")) * scale
            image = image if multispectral else image.clamp(0, 1)
            side = size or max(32, 32 * round(max(image.shape[1:]) / 32))
            if image.shape[1:] != (side, side):
                image = interpolate(image[None], (side, side), mode="bilinear", antialias=True)[0]
            found.append(image)
        return found

    def features(self, split: str, encode: Encode) -> Split:
        """The features (N, D) of a split with its labels."""
        images, names = self.images[split], self.names[split]
        rows: list[Tensor] = []
        for start in range(0, len(images), BATCH):
            part = images[start : start + BATCH]
            same = len({image.shape for image in part}) == 1
            rows += [encode(torch.stack(part))] if same else [encode(image[None]) for image in part]
        labels = torch.stack([torch.as_tensor(self.dataset.label(name), dtype=torch.int64) for name in names])
        return Split(torch.cat(rows).float().cpu(), labels, tuple(names))

    def score(self, encode: Encode) -> dict[str, float]:
        """k-NN of the test images among the train images under the protocol `clean`, and the features' effective rank."""
        train, test = self.features("train", encode), self.features("test", encode)
        switches, card = PROTOCOLS["clean"].knn, self.dataset.card
        result = knn.evaluate(train, test, test, card.num_classes, self.multilabel, switches)
        metric = switches.primary(self.multilabel)
        return {metric: result.metrics[metric], "effective_rank": effective_rank(test.features)}


def wanted_bands(dataset: Dataset, multispectral: bool) -> tuple[list[str], float]:
    """The bands that a method's samples have, and the factor that brings them to its unit. Raises `UserError`."""
    units = {entry.name: entry.unit for entry in dataset.card.bands}
    if multispectral:
        names: list[str] = list(MULTISPECTRAL)
    else:
        names = [
            next((name for name in COMMON[colour] if name in units), colour) for colour in ("red", "green", "blue")
        ]
    missing = [name for name in names if name not in units]
    known = DIGITAL_NUMBERS if multispectral else FRACTIONS
    if missing:
        raise UserError(f"--probe {dataset.card.name} has no {', '.join(missing)}: choose another set, or --probe none")
    unit = units[names[0]]
    if unit not in known or any(units[name] != unit for name in names):
        raise UserError(f"--probe {dataset.card.name} is in {unit}, not in {' or '.join(known)}: choose another set")
    return names, known[unit]


def spread(names: Sequence[str], limit: int) -> list[str]:
    """At most `limit` names, evenly chosen from the first to the last, so that sets sorted by class keep their classes."""
    if len(names) <= limit:
        return list(names)
    return [names[round(number * (len(names) - 1) / (limit - 1))] for number in range(limit)]


def encoder(method: Any, device: torch.device, sensor: str = "") -> Encode:
    """Images (B, C, H, W) -> features (B, D) of the method as it is at the time of the call."""
    extra = (sensor,) if sensor else ()
    return lambda images: method.probe_features(images.to(device), *extra)
