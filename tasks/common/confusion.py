"""Scores of dense predictions, from one confusion matrix per image.

The matrices are kept with the run, so that every averaging rule follows from them later, without a model. IoU is
TP / (TP + FP + FN) (Jaccard), F1 is 2 TP / (2 TP + FP + FN); both are taken over all pixels of the split together, never
averaged over images or batches. Counts are integers, ratios are float64.
"""

import re
import unicodedata
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from models.common.errors import UserError

CHANGE = 1  # the positive class of change detection


def confusion(prediction: Tensor, label: Tensor, num_classes: int, ignore: int, names: Sequence[str] = ()) -> Tensor:
    """Count the pixels of each image: `prediction` and `label` (..., H, W), integers -> (..., K, K) int64, on one device.

    Rows are labels, columns predictions; pixels whose label is `ignore` are left out. `names` (one per image) only serve
    the message. Raises `UserError` for a label of another size than the prediction, or with a value that is neither a
    class nor `ignore`; `ValueError` for a prediction that is no class.
    """
    if prediction.shape != label.shape:
        sizes = f"{_size(label)} where the prediction is {_size(prediction)}"
        raise UserError(f"the label{_of(names)} is {sizes}: give masks of the size of their images")
    images = label.shape[:-2]
    prediction, label = (part.long().reshape(images.numel(), -1) for part in (prediction, label))
    counted = label != ignore
    strange = counted & ((label < 0) | (label >= num_classes))
    if bool(strange.any()):
        image = int(strange.any(dim=1).nonzero()[0])
        value = int(label[image][strange[image]][0])
        raise UserError(
            f"the label{_of(names, image)} holds the value {value}, which is no class (0..{num_classes - 1}) and not the "
            f"ignored value ({ignore}): mend the label, or describe the data set's classes as they are"
        )
    if bool((counted & ((prediction < 0) | (prediction >= num_classes))).any()):
        raise ValueError(f"a prediction lies outside the classes 0..{num_classes - 1}")
    image = torch.arange(len(label), device=label.device)[:, None]
    cell = (image * num_classes + label) * num_classes + prediction
    counts = torch.bincount(cell[counted], minlength=len(label) * num_classes**2)
    return counts.reshape(*images, num_classes, num_classes)


def _size(pixels: Tensor) -> str:
    return " x ".join(map(str, pixels.shape))


def _of(names: Sequence[str], image: int | None = None) -> str:
    """Whose label it is; of a whole batch where the image is not known."""
    if not names:
        return ""
    return f" of {names[image]}" if image is not None else f" of {', '.join(names)}"


def segmentation_scores(confusions: np.ndarray, names: Sequence[str], no_data: int = -1) -> dict[str, float]:
    """Every segmentation number that is reported, by name, from `confusions` (N, K, K) of N images; `names`: K classes.

    `miou_macro_present_native`: mean IoU over the classes that occur in the labels.
    `miou_macro_all_native`: over the classes that occur in labels or predictions (`macro` of torchmetrics 1.9).
    `miou_macro_zero_native`: over all K classes, 0 for a class that occurs in neither.
    `iou_micro_native`: TP / (TP + FP + FN) summed over classes. `f1_macro_present_native`, `pixel_accuracy_native`.
    `iou_<k>_<name>_native`: IoU of each class that occurs in labels or predictions.

    With `no_data` (a class, or -1: none) each number over classes comes a second time, `_without_no_data`: pixels
    labelled so are not counted and the class is none of those averaged; where it is predicted on other pixels, these
    stay missed (as with `ignore_index` in torchmetrics). It is left out where no-data is all there is.

    Raises `UserError` if no pixel is labelled.
    """
    counts = np.asarray(confusions).sum(axis=0, dtype=np.int64)
    if not counts.any():
        raise UserError("every pixel of the scored split is ignored: the scores are undefined; use images with labels")
    scores = _over_classes(counts, range(len(counts)), "")
    if no_data >= 0:
        counted = counts.copy()
        counted[no_data] = 0
        if counted.any():
            rest = [k for k in range(len(counts)) if k != no_data]
            scores |= _over_classes(counted, rest, "_without_no_data")
    true_positive, union = counts.diagonal(), _either(counts) - counts.diagonal()
    for k, name in enumerate(names):
        if union[k]:
            scores["_".join(["iou", str(k), *_words(name), "native"])] = float(true_positive[k] / union[k])
    return scores


def _over_classes(counts: np.ndarray, classes: Sequence[int], suffix: str) -> dict[str, float]:
    """The numbers over some of the classes; at least one of them is labelled."""
    chosen = list(classes)
    true_positive, labelled = counts.diagonal()[chosen], counts.sum(axis=1)[chosen]
    either = _either(counts)[chosen]  # 2 TP + FP + FN
    union, present = either - true_positive, labelled > 0
    iou = true_positive / np.maximum(union, 1)
    f1 = 2 * true_positive / np.maximum(either, 1)
    scores = {
        "miou_macro_present": iou[present].mean(),
        "miou_macro_all": iou[union > 0].mean(),
        "miou_macro_zero": iou.mean(),
        "iou_micro": true_positive.sum() / union.sum(),
        "f1_macro_present": f1[present].mean(),
        "pixel_accuracy": true_positive.sum() / labelled.sum(),
    }
    return {f"{name}_native{suffix}": float(score) for name, score in scores.items()}


def _either(counts: np.ndarray) -> np.ndarray:
    return counts.sum(axis=0) + counts.sum(axis=1)


def _words(name: str) -> list[str]:
    """A class name as lower-case ASCII words: `Water / Ice` -> water, ice."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    return re.findall(r"[a-z0-9]+", plain)


def change_scores(confusions: np.ndarray) -> dict[str, float]:
    """Every change-detection number that is reported, by name, from `confusions` (N, 2, 2): class 0 no change, 1 change.

    `f1_change`, `iou_change`, `precision_change`, `recall_change`: of the change class, over all pixels of the N pairs
    together. Where nothing is predicted as change, precision is undefined and counts 0 by convention (as F1 then is).
    `f1_mean`: the mean of both classes' F1; left out where class 0 occurs neither in labels nor in predictions.
    `pixel_accuracy`: the share of pixels that are right.

    Raises `UserError` if no pixel is labelled, or none as change (recall would be undefined).
    """
    counts = np.asarray(confusions).sum(axis=0, dtype=np.int64)
    true_positive, labelled, predicted = counts.diagonal(), counts.sum(axis=1), counts.sum(axis=0)
    if not labelled[CHANGE]:
        what = "labelled as change" if labelled.any() else "labelled"
        raise UserError(f"no pixel of the scored split is {what}: the scores are undefined; use more of it")
    f1 = 2 * true_positive / np.maximum(labelled + predicted, 1)
    scores = {
        "f1_change": f1[CHANGE],
        "iou_change": true_positive[CHANGE] / (labelled + predicted - true_positive)[CHANGE],
        "precision_change": true_positive[CHANGE] / max(predicted[CHANGE], 1),
        "recall_change": true_positive[CHANGE] / labelled[CHANGE],
        "pixel_accuracy": true_positive.sum() / labelled.sum(),
    }
    if labelled[0] or predicted[0]:
        scores["f1_mean"] = f1.mean()
    return {name: float(score) for name, score in scores.items()}
