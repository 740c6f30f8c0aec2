"""What a task on pooled features receives and returns: splits at the door, plain names and numbers out."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from models.common.errors import UserError


@dataclass(frozen=True)
class Split:
    """One split of N images.

    `features`: (N, D) float32; `labels`, int64: classes (N,), or 0 and 1 (N, C) for multi-label; `names`: N of them.
    """

    features: Tensor
    labels: Tensor
    names: tuple[str, ...]


@dataclass(frozen=True)
class Result:
    """What one evaluation says; the caller adds identity and writes it down.

    `metrics` are plain numbers by full name. `samples` hold, per test image, that from which the metrics follow again
    without torch. `choices` are what a validation split decided (learning rate, epoch, C) and how well it went there.
    `notes` are sentences for the row, `facts` what provenance should know. `predictions` (H, W) of the test images that the
    caller asked for are for pictures and not kept.
    """

    metrics: dict[str, float]
    samples: dict[str, np.ndarray]
    choices: dict[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    facts: dict[str, object] = field(default_factory=dict)
    predictions: dict[str, np.ndarray] = field(default_factory=dict)


def check(num_classes: int, multilabel: bool, **splits: Split) -> None:
    """Refuse what cannot be measured, each with a sentence: call it as `check(10, False, train=train, test=test)`.

    Raises `UserError` for an empty split, features of other width than the first split's, NaN or infinite features,
    labels outside the classes, a `train` split with nothing to tell apart, and a multi-label `test` split without any
    positive label (recall would be undefined).
    """
    for name, split in splits.items():
        _check_features(name, split)
        _check_labels(name, split, num_classes, multilabel)
    widths = {name: split.features.shape[-1] for name, split in splits.items()}
    if len(set(widths.values())) > 1:
        raise UserError(f"the splits hold features of different widths ({widths}); extract them with one model")
    if "train" in splits and bool((splits["train"].labels == splits["train"].labels[:1]).all()):
        only = splits["train"].labels[0].tolist()
        raise UserError(
            f"all images of the train split have the same label ({only}): use a larger train fraction or --limit"
        )
    if multilabel and "test" in splits and not bool(splits["test"].labels.any()):
        raise UserError("no image of the test split has a label: the scores are undefined; use more of it")


def _check_features(name: str, split: Split) -> None:
    if not split.names:
        raise UserError(f"the {name} split is empty: check the data set's partition")
    if split.features.ndim != 2 or not split.features.is_floating_point() or len(split.features) != len(split.names):
        shape = f"{split.features.dtype} {tuple(split.features.shape)}"
        raise UserError(f"the {name} split of {len(split.names)} images wants float features (N, D), got {shape}")
    finite = torch.isfinite(split.features).all(dim=1)
    if not bool(finite.all()):
        image = split.names[int((~finite).nonzero()[0])]
        raise UserError(f"the features of {image} ({name} split) hold NaN or infinite values: mend or drop that image")


def _check_labels(name: str, split: Split, num_classes: int, multilabel: bool) -> None:
    labels = split.labels
    wanted = (len(split.names), num_classes) if multilabel else (len(split.names),)
    if tuple(labels.shape) != wanted or labels.is_floating_point():
        raise UserError(f"the {name} split wants integer labels {wanted}, got {labels.dtype} {tuple(labels.shape)}")
    top = 1 if multilabel else num_classes - 1
    wrong = ((labels < 0) | (labels > top)).reshape(len(labels), -1).any(dim=1)
    if bool(wrong.any()):
        index = int(wrong.nonzero()[0])
        raise UserError(f"{split.names[index]} ({name} split) has label {labels[index].tolist()}, outside 0..{top}")


def scaler(train: Tensor, standardise: str) -> Callable[[Tensor], Tensor]:
    """Return the map of features (N, D) -> (N, D) that a protocol asks for: the identity for `none`, else a z-score.

    Mean and (population) standard deviation are those of `train` (N, D), in float64; a feature that is constant there
    is only centred. The result keeps the dtype of what is mapped.
    """
    if standardise == "none":
        return lambda features: features
    mean, std = train.double().mean(dim=0), train.double().std(dim=0, correction=0)
    # A constant is told by its range: in floating point its standard deviation may come out as a tiny number.
    std = torch.where(train.amax(dim=0) == train.amin(dim=0), 1.0, std)
    return lambda features: ((features.double() - mean) / std).to(features.dtype)
