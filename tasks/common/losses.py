"""Losses of dense tasks: a number per batch from logits (B, K, H, W) and labels (B, H, W), without the ignored pixels.

All are computed in float32 or better, whatever the logits' precision. `ignore` is the label that counts for nothing (None:
every pixel counts). A batch of ignored pixels alone gives 0 with a gradient of 0, never NaN. Logits and labels of
different size raise `ValueError`: nothing is resized or broadcast here.
"""

import torch
from torch import Tensor
from torch.nn import functional

from models.common.errors import UserError


def cross_entropy(logits: Tensor, target: Tensor, ignore: int | None = None) -> Tensor:
    """Mean over the pixels that count of -log softmax(logits)[label].

    `logits` (B, K, H, W), `target` (B, H, W) integers in 0..K-1 or `ignore`. Source: DEO's Sen1Floods11 (methods c1).
    """
    logits, target, counts = _pixels(logits, target, ignore)
    losses = functional.cross_entropy(logits, target, reduction="none")
    return _mean(losses, counts)


def bce_one_hot(logits: Tensor, target: Tensor, ignore: int | None = None) -> Tensor:
    """Mean over classes and the pixels that count of binary cross-entropy between sigmoid(logits) and one-hot labels.

    -[y log p + (1 - y) log(1 - p)], p = sigmoid(logit), y = 1 for the label's class, else 0. `logits` (B, K, H, W), `target`
    (B, H, W) integers in 0..K-1 or `ignore`. Source: DEO's segmentation (author's `engine_finetune.py`), which has no
    ignored pixels there; here they are left out of all K masks, and are not negatives of every class.
    """
    logits, target, counts = _pixels(logits, target, ignore)
    masks = torch.zeros_like(logits).scatter_(1, target[:, None], 1.0)
    losses = functional.binary_cross_entropy_with_logits(logits, masks, reduction="none").mean(dim=1)
    return _mean(losses, counts)


def binary_cross_entropy(logits: Tensor, target: Tensor, ignore: int | None = None) -> Tensor:
    """Mean over the pixels that count of -[y log p + (1 - y) log(1 - p)], p = sigmoid(logit).

    `logits` (B, 1, H, W), `target` (B, H, W) of 0, 1 or `ignore`. Source: `ce` of BTC (`models/finetune_framework.py`).
    """
    logits, target, counts = _pixels(logits, target, ignore, single=True)
    losses = functional.binary_cross_entropy_with_logits(logits[:, 0], target.to(logits.dtype), reduction="none")
    return _mean(losses, counts)


def soft_dice(logits: Tensor, target: Tensor, ignore: int | None = None, smooth: float = 1.0) -> Tensor:
    """1 - (2 sum(p y) + smooth) / (sum(p) + sum(y) + smooth), p = sigmoid(logit), over all pixels of the batch that count.

    One ratio for the whole batch, not one per image, so that an image without change is no special case. `logits`
    (B, 1, H, W), `target` (B, H, W) of 0, 1 or `ignore`. Raises `UserError` unless `smooth` is positive: the ratio would be
    0 / 0 on a batch of ignored pixels. Source: BTC (`models/loss/dice.py`), smooth 1.
    """
    if smooth <= 0:
        raise UserError(f"the smoothing of the Dice loss must be positive, got {smooth:g}")
    logits, target, counts = _pixels(logits, target, ignore, single=True)
    predicted = torch.where(counts, logits[:, 0].sigmoid(), 0)
    wanted = target.to(predicted.dtype)
    return 1 - (2 * (predicted * wanted).sum() + smooth) / (predicted.sum() + wanted.sum() + smooth)


def _pixels(logits: Tensor, target: Tensor, ignore: int | None, single: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """Logits in float32 or better, labels as int64 with 0 for ignored ones, and which pixels count (B, H, W)."""
    batch, channels, height, width = logits.shape
    if tuple(target.shape) != (batch, height, width):
        raise ValueError(f"logits of shape {tuple(logits.shape)} do not fit labels of shape {tuple(target.shape)}")
    if single and channels != 1:
        raise ValueError(f"this loss takes one logit per pixel, got {channels}")
    counts = torch.ones_like(target, dtype=torch.bool) if ignore is None else target != ignore
    precise = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return precise, torch.where(counts, target, 0).long(), counts


def _mean(losses: Tensor, counts: Tensor) -> Tensor:
    """Mean of `losses` (B, H, W) where `counts`; 0 where nothing does."""
    return torch.where(counts, losses, 0).sum() / counts.sum().clamp(min=1)
