"""Scores of dense predictions from one confusion matrix per image, for any weights of the images."""

import re
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

OF_CLASSES = re.compile(
    r"(miou_macro_present|miou_macro_all|miou_macro_zero|iou_micro|f1_macro_present|pixel_accuracy)"
    r"_native(_without_no_data)?"
)
OF_ONE_CLASS = re.compile(r"iou_(\d+)_(?:\w+_)?native")
OF_CHANGE = re.compile(r"(f1|iou|precision|recall)_change|f1_mean|pixel_accuracy")


class ConfusionScore:
    """A metric of per-image confusion matrices (N, K, K), rows the labels, for any weights of the images.

    The definitions are those of `tasks.common.confusion`; NaN where they are undefined (a class that occurs nowhere, say).
    All a metric is made of are sums over images of TP, labelled and predicted pixels per class, so that one matrix
    product serves every replicate.
    """

    def __init__(self, kind: str, confusion: Array, classes: list[int]) -> None:
        self.kind = kind
        parts = (
            np.diagonal(confusion, axis1=1, axis2=2),
            confusion.sum(axis=2, dtype=np.int64),
            confusion.sum(axis=1, dtype=np.int64),
        )
        self.counts = np.concatenate([part[:, classes] for part in parts], axis=1).astype(float)

    def __call__(self, weights: Array) -> Array:
        """How often each image counts, (B, N) -> scores (B,)."""
        counts = weights @ self.counts  # whole numbers below 2^53: exact in any order of summation
        true_positive, labelled, predicted = np.split(counts, 3, axis=1)
        either = labelled + predicted  # 2 TP + FP + FN
        union = either - true_positive
        iou, f1 = true_positive / np.maximum(union, 1), 2 * true_positive / np.maximum(either, 1)
        match self.kind:
            case "miou_macro_present":
                return _mean(iou, labelled > 0)
            case "miou_macro_all":
                return _mean(iou, union > 0)
            case "miou_macro_zero":
                return _where(labelled.any(axis=1), iou.mean(axis=1))
            case "iou_micro":
                return _ratio(true_positive.sum(axis=1), union.sum(axis=1))
            case "f1_macro_present":
                return _mean(f1, labelled > 0)
            case "pixel_accuracy":
                return _ratio(true_positive.sum(axis=1), labelled.sum(axis=1))
            case "iou":
                return _ratio(true_positive[:, 0], union[:, 0])
            case "f1_change":  # class 1; without a pixel labelled so, none of these is defined
                return _where(labelled[:, 1] > 0, f1[:, 1])
            case "iou_change":
                return _where(labelled[:, 1] > 0, iou[:, 1])
            case "precision_change":
                return _where(labelled[:, 1] > 0, true_positive[:, 1] / np.maximum(predicted[:, 1], 1))
            case "recall_change":
                return _ratio(true_positive[:, 1], labelled[:, 1])
            case "f1_mean":
                return _where((labelled[:, 1] > 0) & (either[:, 0] > 0), f1.mean(axis=1))
        raise ValueError(f"no score {self.kind!r}")


def score(metric: str, confusion: Array, no_data: int = -1) -> ConfusionScore | None:
    """Return the metric of this full name on `confusion` (N, K, K); None if it is none of these, or cannot be.

    `no_data` is the class that the metrics `..._without_no_data` leave out (-1: none was recorded).
    """
    classes = list(range(confusion.shape[1]))
    if found := OF_CLASSES.fullmatch(metric):
        kind, without = found.groups()
        if without and no_data not in classes:
            return None
        if without:
            classes.remove(no_data)
            confusion = confusion.copy()
            confusion[:, no_data] = 0
        return ConfusionScore(kind, confusion, classes)
    if found := OF_ONE_CLASS.fullmatch(metric):
        k = int(found[1])
        return ConfusionScore("iou", confusion, [k]) if k in classes else None
    if OF_CHANGE.fullmatch(metric) and len(classes) == 2:
        return ConfusionScore(metric, confusion, classes)
    return None


def _ratio(part: Array, whole: Array) -> Array:
    return _where(whole > 0, part / np.maximum(whole, 1))


def _mean(values: Array, of: Array) -> Array:
    """The mean of each row over the columns that `of` marks."""
    return _ratio((values * of).sum(axis=1), of.sum(axis=1))


def _where(defined: Array, values: Array) -> Array:
    return np.where(defined, values, np.nan)
