"""Semantic segmentation: a head per pixel on frozen (or fine-tuned) features, scored by IoU on the test split.

What is fitted and chosen, and on which split, is said in `tasks.common.dense`. Scored once, on the test split at the labels'
native size: one confusion matrix per image, from which every averaging rule follows.
"""

from collections.abc import Callable, Sequence

import numpy as np
from torch import Tensor

from tasks.common import dense, losses
from tasks.common.confusion import segmentation_scores
from tasks.common.scenes import Scenes
from tasks.common.splits import Result
from tasks.switches import Segmentation

LOSSES: dict[str, dense.Loss] = {"cross_entropy": losses.cross_entropy, "bce": losses.bce_one_hot}


def evaluate(
    scenes: Scenes,
    train: Sequence[str],
    val: Sequence[str],
    test: Sequence[str],
    seed: int,
    switches: Segmentation,
    *,
    report: Callable[[str, int, int], None],
    keep: Sequence[str] = (),
) -> Result:
    """Train a head on `train`, choose on `val`, score once on `test` (names of images).

    Metrics are those of `tasks.common.confusion.segmentation_scores`. Samples: `confusion` (N, K, K), rows are labels.
    Choices: `learning_rate`, `epoch` (from 1), `validation` (the primary metric there). `keep` names test images whose
    predictions are wanted.
    """
    card = scenes.dataset.card

    def scores(counts: np.ndarray) -> dict[str, float]:
        return segmentation_scores(counts, card.classes, card.no_data)

    name = switches.primary(card.no_data >= 0)
    trained = dense.train(
        *(scenes, train, val),
        outputs=card.num_classes,
        loss=LOSSES[switches.loss],
        decide=most_likely,
        score=lambda counts: scores(counts).get(name, 0.0) if counts.any() else 0.0,
        seed=seed,
        switches=switches,
        report=report,
    )
    kept = {image: np.zeros(0) for image in keep}
    counts = dense.confusions(scenes, test, trained.logits(scenes), most_likely, kept)
    metrics = scores(counts)
    if name not in metrics:  # no data is all that the test split is labelled with
        metrics[name] = 0.0
    return Result(
        metrics,
        {"confusion": counts.astype(np.uint32)} | ({"no_data": np.array(card.no_data)} if card.no_data >= 0 else {}),
        trained.choices,
        trained.notes,
        predictions=kept,
        facts=trained.facts,
    )


def most_likely(logits: Tensor) -> Tensor:
    """Logits (K, H, W) -> classes (H, W), the first of equal ones."""
    return logits.argmax(dim=0)
