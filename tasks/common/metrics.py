"""Scores of classification: accuracy, F1 at a threshold, average precision. Counts are integers, ratios are float64."""

import torch
from torch import Tensor


def accuracy(prediction: Tensor, label: Tensor) -> Tensor:
    """Share of images whose class is right (micro top-1).

    `prediction` (..., N) and `label` (N,) are classes; leading axes (heads) are kept: the result is (...), float64.
    """
    return (prediction == label).double().mean(dim=-1)


def f1(prediction: Tensor, label: Tensor, average: str) -> Tensor:
    """F1 of 0/1 predictions (..., N, C) against labels (N, C): 2 TP / (2 TP + FP + FN); the result is (...), float64.

    `micro` counts over all images and classes, `macro` is the mean over the C classes, where a class with neither a
    label nor a prediction counts 0. Both as `torchmetrics.functional.classification.multilabel_f1_score`.
    """
    predicted, labelled = prediction.bool(), label.bool()
    true_positive = (predicted & labelled).sum(dim=-2)
    either = predicted.sum(dim=-2) + labelled.sum(dim=-2)  # 2 TP + FP + FN
    if average == "micro":
        true_positive, either = true_positive.sum(dim=-1, keepdim=True), either.sum(dim=-1, keepdim=True)
    return (2 * true_positive.double() / either.clamp(min=1)).mean(dim=-1)


def average_precision(score: Tensor, label: Tensor, average: str) -> float:
    """Average precision, sum over thresholds of (recall step) x precision, of scores in 0..1 (N, C) and labels (N, C).

    `micro` pools all images and classes; `macro` is the mean over the classes that have a positive label (without one,
    recall is undefined, and releases of torchmetrics disagree on what to put there). Images of equal score enter
    together, so their order does not matter. At least one label must be positive.
    """
    from torchmetrics.functional.classification import binary_average_precision  # slow to import

    if average == "micro":
        return float(binary_average_precision(score.flatten(), label.flatten()))
    present = [c for c in range(label.shape[1]) if bool(label[:, c].any())]
    return sum(float(binary_average_precision(score[:, c], label[:, c])) for c in present) / len(present)


def multilabel_scores(prediction: Tensor, score: Tensor, label: Tensor) -> dict[str, float]:
    """Every multi-label number that is reported, by name. `prediction`, `score` and `label` are (N, C)."""
    return {
        "f1_micro": float(f1(prediction, label, "micro")),
        "f1_macro": float(f1(prediction, label, "macro")),
        "map_micro": average_precision(score, label, "micro"),
        "map_macro": average_precision(score, label, "macro"),
    }


def classify(logits: Tensor, multilabel: bool) -> Tensor:
    """Logits (..., C) -> classes (...), the first of equals; multi-label: 0/1 (..., C), 1 where probability > 0.5."""
    return (logits > 0).to(torch.uint8) if multilabel else logits.argmax(dim=-1)


def selection_score(prediction: Tensor, label: Tensor, multilabel: bool) -> Tensor:
    """What a validation split selects by, float64, leading axes kept: accuracy, or micro F1 for multi-label."""
    return f1(prediction, label, "micro") if multilabel else accuracy(prediction, label)
