"""Change detection: one backbone sees both dates, a head sees their difference per stage, F1 of the change class.

What is fitted and chosen, and on which split, is said in `tasks.common.dense`. Scored once, over all pixels of the test
split at the labels' native size. Source of the form: BTC (github.com/blaz-r/BTC-change-detection), to which DEO points.
"""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from torch import Tensor

from tasks.common import dense, losses
from tasks.common.confusion import change_scores
from tasks.common.scenes import Fuse, Maps, Scenes
from tasks.common.splits import Result
from tasks.switches import ChangeDetection

LOSSES: dict[str, dense.Loss] = {
    "dice": losses.soft_dice,
    "bce": losses.binary_cross_entropy,
    "cross_entropy": losses.cross_entropy,
}


def difference(before: Maps, after: Maps, absolute: bool) -> Maps:
    """Siamese fusion of stages (B, C_i, H_i, W_i): before - after per element (signed, as BTC), or its absolute value."""
    pairs = zip(before, after, strict=True)
    return tuple((first - second).abs() if absolute else first - second for first, second in pairs)


def fuse(switches: ChangeDetection) -> Fuse:
    """The difference that a protocol asks for."""
    return partial(difference, absolute=switches.difference == "absolute")


def evaluate(
    scenes: Scenes,
    train: Sequence[str],
    val: Sequence[str],
    test: Sequence[str],
    seed: int,
    switches: ChangeDetection,
    *,
    report: Callable[[str, int, int], None],
    keep: Sequence[str] = (),
) -> Result:
    """Train a head on `train`, choose on `val`, score once on `test` (names of pairs).

    Metrics are those of `tasks.common.confusion.change_scores`. Samples: `confusion` (N, 2, 2), rows are labels. Choices:
    `learning_rate`, `epoch` (from 1), `validation` (F1 of change there). `keep` names pairs whose predictions are wanted.
    """
    outputs = 2 if switches.loss == "cross_entropy" else 1
    trained = dense.train(
        *(scenes, train, val),
        outputs=outputs,
        loss=LOSSES[switches.loss],
        decide=changed,
        score=lambda counts: change_scores(counts)[switches.primary] if counts[:, 1].any() else 0.0,
        seed=seed,
        switches=switches,
        report=report,
    )
    kept = {pair: np.zeros(0) for pair in keep}
    counts = dense.confusions(scenes, test, trained.logits(scenes), changed, kept)
    return Result(
        change_scores(counts),
        {"confusion": counts.astype(np.uint32)},
        trained.choices,
        trained.notes,
        predictions=kept,
        facts=trained.facts,
    )


def changed(logits: Tensor) -> Tensor:
    """One logit (1, H, W): change where the probability is above 0.5; two (2, H, W): the larger -> 0 or 1 (H, W)."""
    return (logits[0] > 0).long() if len(logits) == 1 else logits.argmax(dim=0)
