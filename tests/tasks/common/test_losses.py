"""Losses against their formulas in float64 with numpy, gradients by finite differences, and ignored pixels."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from models.common.errors import UserError
from tasks.common import losses

IGNORE = 255


def log_sigmoid(x: np.ndarray) -> np.ndarray:
    return -np.log1p(np.exp(-x))


def cross_entropy(logits: np.ndarray, target: np.ndarray) -> float:
    terms = []
    for image, row, column in zip(*np.nonzero(target != IGNORE), strict=True):
        scores = logits[image, :, row, column]
        terms.append(np.log(np.exp(scores).sum()) - scores[target[image, row, column]])
    return float(np.mean(terms))


def bce_one_hot(logits: np.ndarray, target: np.ndarray) -> float:
    terms = []
    for image, row, column in zip(*np.nonzero(target != IGNORE), strict=True):
        for label, score in enumerate(logits[image, :, row, column]):
            terms.append(-log_sigmoid(score if label == target[image, row, column] else -score))
    return float(np.mean(terms))


def binary_cross_entropy(logits: np.ndarray, target: np.ndarray) -> float:
    counted = target != IGNORE
    scores, labels = logits[:, 0][counted], target[counted]
    return float(np.mean(np.where(labels == 1, -log_sigmoid(scores), -log_sigmoid(-scores))))


def soft_dice(logits: np.ndarray, target: np.ndarray) -> float:
    counted = target != IGNORE
    p, y = 1 / (1 + np.exp(-logits[:, 0][counted])), target[counted]
    return float(1 - (2 * (p * y).sum() + 1) / (p.sum() + y.sum() + 1))


CASES = [
    pytest.param(losses.cross_entropy, cross_entropy, 4, id="cross_entropy"),
    pytest.param(losses.bce_one_hot, bce_one_hot, 4, id="bce_one_hot"),
    pytest.param(losses.binary_cross_entropy, binary_cross_entropy, 1, id="binary_cross_entropy"),
    pytest.param(losses.soft_dice, soft_dice, 1, id="soft_dice"),
]


def drawn(channels: int) -> tuple[Tensor, Tensor]:
    """Logits (2, K, 3, 4) and labels with a few ignored pixels, more of them in the second image."""
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(2, channels, 3, 4, generator=generator, dtype=torch.float64)
    target = torch.randint(max(channels, 2), (2, 3, 4), generator=generator)
    target[0, 0, 0] = target[1, 1] = IGNORE
    return logits, target


@pytest.mark.parametrize(("loss", "reference", "channels"), CASES)
def test_value_and_gradient_are_those_of_the_formula(loss: Callable, reference: Callable, channels: int):
    logits, target = drawn(channels)
    value = loss(logits.requires_grad_(), target, IGNORE)
    assert value.item() == pytest.approx(reference(logits.detach().numpy(), target.numpy()), rel=1e-12)
    value.backward()
    expected, step = np.zeros(logits.shape), 1e-6
    for index in np.ndindex(*logits.shape):
        sides = []
        for sign in (1, -1):
            moved = logits.detach().numpy().copy()
            moved[index] += sign * step
            sides.append(reference(moved, target.numpy()))
        expected[index] = (sides[0] - sides[1]) / (2 * step)
    assert logits.grad is not None
    np.testing.assert_allclose(logits.grad.numpy(), expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(("loss", "reference", "channels"), CASES)
def test_without_an_ignored_label_every_pixel_counts(loss: Callable, reference: Callable, channels: int):
    logits, target = drawn(channels)
    target[target == IGNORE] = 0
    assert loss(logits, target).item() == pytest.approx(reference(logits.numpy(), target.numpy()), rel=1e-12)


@pytest.mark.parametrize(("loss", "reference", "channels"), CASES)
def test_a_batch_of_ignored_pixels_gives_zero_and_a_zero_gradient(loss: Callable, reference: Callable, channels: int):
    logits, target = drawn(channels)
    value = loss(logits.requires_grad_(), torch.full_like(target, IGNORE), IGNORE)
    value.backward()
    assert value.item() == 0
    assert logits.grad is not None
    assert not logits.grad.any()


@pytest.mark.parametrize(("loss", "reference", "channels"), CASES)
def test_what_stands_under_an_ignored_pixel_changes_nothing(loss: Callable, reference: Callable, channels: int):
    logits, target = drawn(channels)
    changed = torch.where((target == IGNORE)[:, None], logits + 50, logits)
    assert torch.equal(loss(logits, target, IGNORE), loss(changed, target, IGNORE))


@pytest.mark.parametrize(("loss", "reference", "channels"), CASES)
def test_half_precision_logits_and_byte_labels_lose_only_the_rounding_of_the_logits(
    loss: Callable, reference: Callable, channels: int
):
    logits, target = drawn(channels)
    short = logits.bfloat16()
    value = loss(short, target.to(torch.uint8), IGNORE)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(reference(short.double().numpy(), target.numpy()), rel=1e-5)


@pytest.mark.parametrize(("loss", "reference", "channels"), CASES)
def test_logits_and_labels_of_different_size_are_never_broadcast(loss: Callable, reference: Callable, channels: int):
    logits, target = drawn(channels)
    with pytest.raises(ValueError, match=r"do not fit labels of shape \(1, 3, 4\)"):
        loss(logits, target[:1], IGNORE)


@pytest.mark.parametrize("loss", [losses.binary_cross_entropy, losses.soft_dice])
def test_a_binary_loss_refuses_several_logits_per_pixel(loss: Callable):
    with pytest.raises(ValueError, match="one logit per pixel, got 4"):
        loss(*drawn(4))


def test_dice_is_one_ratio_over_the_batch_and_not_the_mean_of_its_images():
    # sigmoid(0) = 0.5 everywhere; image 1 is all change, image 2 has none: sum(p y) = 2, sum(p) = 4, sum(y) = 4
    target = torch.stack([torch.ones(2, 2), torch.zeros(2, 2)]).long()
    assert losses.soft_dice(torch.zeros(2, 1, 2, 2), target).item() == pytest.approx(1 - 5 / 9)


def test_dice_without_smoothing_is_refused():
    with pytest.raises(UserError, match="must be positive, got 0"):
        losses.soft_dice(*drawn(1), IGNORE, smooth=0)


def test_bce_on_one_hot_masks_by_hand():
    # one pixel, logits 0: every class costs log 2, so the mean over classes does too
    assert losses.bce_one_hot(torch.zeros(1, 5, 1, 1), torch.zeros(1, 1, 1, dtype=torch.long)).item() == pytest.approx(
        np.log(2)
    )
