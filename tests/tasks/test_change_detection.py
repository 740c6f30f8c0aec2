"""Change detection: signed or absolute difference, one logit or two, F1 of the change class."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from models.common.errors import UserError
from tasks import change_detection
from tasks.common.confusion import change_scores
from tasks.switches import ChangeDetection
from tests.tasks.dense_toy import floods, scenes, silent, tiny

SWITCHES = ChangeDetection(head="linear", learning_rates=(5e-2,), epochs=40, warmup_epochs=0, batch=4, dropout=0.0)


def evaluated(data, switches=SWITCHES, backbone=None):
    toy = scenes(data, switches, backbone, fuse=change_detection.fuse(switches))
    return change_detection.evaluate(
        *(toy, data.splits["train"], data.splits["val"], data.splits["test"], 0, switches), report=silent
    )


def test_the_difference_is_before_minus_after_or_its_absolute_value():
    before, after = (torch.tensor([[[[1.0, 5.0]]]]),), (torch.tensor([[[[4.0, 2.0]]]]),)
    assert change_detection.difference(before, after, absolute=False)[0].flatten().tolist() == [-3.0, 3.0]
    assert change_detection.difference(before, after, absolute=True)[0].flatten().tolist() == [3.0, 3.0]


@pytest.mark.parametrize("loss", ["dice", "bce", "cross_entropy"])
@pytest.mark.parametrize("kind", ["signed", "absolute"])
def test_floods_are_found_by_every_loss_and_difference(loss, kind):
    data = floods()
    result = evaluated(data, replace(SWITCHES, loss=loss, difference=kind))
    assert result.metrics["f1_change"] > 0.75
    assert result.metrics == pytest.approx(change_scores(result.samples["confusion"]))


def test_the_signed_difference_tells_the_order_of_dates_and_the_absolute_one_does_not():
    data = floods()
    swapped = floods()
    swapped.images = {name: pair[::-1].copy() for name, pair in data.images.items()}
    for kind, same in (("signed", False), ("absolute", True)):
        switches = replace(SWITCHES, difference=kind)
        first, second = (
            scenes(one, switches, tiny(), fuse=change_detection.fuse(switches)).stages(
                [scenes(one, switches, tiny()).tiles("image00", 512)[0]]
            )
            for one in (data, swapped)
        )
        assert torch.equal(first[0], second[0]) is same
        torch.testing.assert_close(first[0], second[0] if same else -second[0])


def test_a_fine_tuned_backbone_moves_with_a_rate_of_its_own():
    still = replace(SWITCHES, backbone="finetuned", backbone_learning_rate=1e-12, backbone_weight_decay=0.0, epochs=3)
    free = replace(still, backbone_learning_rate=1e-2)
    before = {name: value.clone() for name, value in tiny().state_dict().items()}
    moved = {}
    for name, switches in (("still", still), ("free", free)):
        data = floods()
        toy = scenes(data, switches, tiny(), fuse=change_detection.fuse(switches))
        trained = change_detection.dense.train(
            *(toy, data.splits["train"], data.splits["val"]),
            outputs=1,
            loss=change_detection.LOSSES["dice"],
            decide=change_detection.changed,
            score=lambda counts: change_scores(counts)["f1_change"],
            seed=0,
            switches=switches,
            report=silent,
        )
        after = trained.model.state_dict()
        moved[name] = max(float((after[key] - before[key]).abs().max()) for key in before)
    assert moved["still"] < 1e-8
    assert moved["free"] > 1e-3


def test_a_test_split_without_change_is_refused():
    data = floods()
    for name in data.splits["test"]:
        data.labels[name] = np.zeros_like(data.labels[name])
    with pytest.raises(UserError, match="labelled as change"):
        evaluated(data)
