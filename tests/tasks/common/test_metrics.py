"""Every score has an example worked by hand, and torchmetrics as its reference."""

import pytest
import torch
from torchmetrics.functional.classification import (
    multiclass_accuracy,
    multilabel_average_precision,
    multilabel_f1_score,
)

from tasks.common import metrics

# Four images, three labels. Class 0: TP 2, FP 1, FN 0, so F1 = 4 / (4 + 1 + 0) = 4 / 5. Class 1: TP 1, FP 0, FN 1,
# so F1 = 2 / 3. Class 2: nothing, so F1 counts 0. All together: TP 3, FP 1, FN 1, so F1 = 6 / 8.
PREDICTED = torch.tensor([[1, 0, 0], [1, 1, 0], [1, 0, 0], [0, 0, 0]])
LABELS = torch.tensor([[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 0]])


def test_accuracy_is_the_share_of_images_that_are_right():
    assert metrics.accuracy(torch.tensor([0, 1, 2, 2]), torch.tensor([0, 1, 1, 2])) == 0.75


def test_micro_f1_counts_over_images_and_classes():
    assert metrics.f1(PREDICTED, LABELS, "micro") == 6 / 8


def test_macro_f1_counts_a_class_with_neither_label_nor_prediction_as_zero():
    assert float(metrics.f1(PREDICTED, LABELS, "macro")) == pytest.approx((4 / 5 + 2 / 3 + 0) / 3, abs=1e-15)


def test_f1_without_any_label_or_prediction_is_zero_and_not_nan():
    nothing = torch.zeros(4, 3, dtype=torch.long)
    assert metrics.f1(nothing, nothing, "micro") == 0
    assert metrics.f1(nothing, nothing, "macro") == 0


def test_average_precision_of_one_ranking_is_the_mean_precision_at_its_positives():
    # Ranking: +, -, +, -: precision 1/1 at the first positive, 2/3 at the second, each a recall step of 1/2.
    score, label = torch.tensor([[0.9], [0.8], [0.7], [0.1]]), torch.tensor([[1], [0], [1], [0]])
    assert metrics.average_precision(score, label, "macro") == pytest.approx((1 + 2 / 3) / 2)


def test_images_of_equal_score_enter_average_precision_together():
    # One threshold takes all four: precision 2/4 over a recall step of 1, in whatever order they stand.
    score = torch.full((4, 1), 0.5)
    for label in ([[1], [1], [0], [0]], [[0], [0], [1], [1]]):
        assert metrics.average_precision(score, torch.tensor(label), "macro") == pytest.approx(0.5)


def test_macro_average_precision_is_over_classes_with_a_positive_and_micro_pools_all():
    score = torch.tensor([[0.9, 0.8, 0.95], [0.2, 0.7, 0.1]])
    label = torch.tensor([[1, 0, 0], [0, 1, 0]])
    # Class 0: 1. Class 1: its positive is second: 1/2. Class 2 has no positive: undefined, left out.
    assert metrics.average_precision(score, label, "macro") == pytest.approx((1 + 1 / 2) / 2)
    # Pooled: 0.95 -, 0.9 +, 0.8 -, 0.7 +, ...: precision 1/2 and 2/4.
    assert metrics.average_precision(score, label, "micro") == pytest.approx((1 / 2 + 2 / 4) / 2)


@pytest.mark.parametrize("seed", range(3))
def test_scores_equal_torchmetrics(seed):
    generator = torch.Generator().manual_seed(seed)
    score, label = torch.rand(50, 6, generator=generator), (torch.rand(50, 6, generator=generator) < 0.3).long()
    score[:, 5] *= 0.4  # never predicted
    predicted = (score > 0.5).long()
    mine = metrics.multilabel_scores(predicted, score, label)
    for average in ("micro", "macro"):
        f1 = multilabel_f1_score(score, label, num_labels=6, average=average)
        precision = multilabel_average_precision(score, label, num_labels=6, average=average)
        assert mine[f"f1_{average}"] == pytest.approx(float(f1), abs=1e-6)
        assert mine[f"map_{average}"] == pytest.approx(float(precision), abs=1e-6)
    classes, truth = score.argmax(dim=1), label.argmax(dim=1)
    accuracy = multiclass_accuracy(classes, truth, num_classes=6, average="micro")
    assert float(metrics.accuracy(classes, truth)) == pytest.approx(float(accuracy), abs=1e-6)


def test_macro_f1_equals_torchmetrics_where_a_class_is_absent():
    reference = multilabel_f1_score(PREDICTED, LABELS, num_labels=3, average="macro")
    assert float(metrics.f1(PREDICTED, LABELS, "macro")) == pytest.approx(float(reference), abs=1e-6)


def test_stacked_heads_are_scored_one_by_one():
    heads = torch.stack([PREDICTED, LABELS])
    for average in ("micro", "macro"):
        separate = [float(metrics.f1(head, LABELS, average)) for head in heads]
        assert metrics.f1(heads, LABELS, average).tolist() == separate
    assert metrics.accuracy(torch.tensor([[0, 1], [1, 1]]), torch.tensor([0, 1])).tolist() == [1.0, 0.5]


def test_logits_become_classes_or_labels_above_one_half():
    assert metrics.classify(torch.tensor([[0.1, 2.0, 2.0]]), multilabel=False).tolist() == [1]
    assert metrics.classify(torch.tensor([[-0.1, 0.0, 2.0]]), multilabel=True).tolist() == [[0, 0, 1]]


def test_selection_is_by_accuracy_or_micro_f1():
    assert metrics.selection_score(torch.tensor([0, 1]), torch.tensor([0, 0]), multilabel=False) == 0.5
    assert metrics.selection_score(PREDICTED, LABELS, multilabel=True) == 6 / 8
