"""The one loop that trains heads: warm-up and cosine, stacked optimiser steps, the best epoch of each head kept.

Several heads are trained at once, on the same batches, each with its own learning rate. Their parameters are stacked:
the first axis of every tensor counts the heads. A loss that is one number per head keeps their gradients apart, and the
update rules act elementwise, so each head goes the way it would go alone under `torch.optim` (but for the last bits of
a matrix product). With one learning rate nothing needs stacking: the parameters of any module serve as they are.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import cos, pi, sqrt
from typing import Any

import torch
from torch import Tensor

from tasks.switches import Training

Batch = tuple[Any, ...]


def batches(count: int, batch: int) -> list[slice]:
    """Cut `count` images into batches of `batch`; a last short one is merged into the one before.

    (Batch norm at pool scale 1 refuses a batch of one.) 130 images in batches of 64 give 64 and 66.
    """
    starts = range(0, max(count - batch, 0) + 1, batch)
    return [slice(start, stop) for start, stop in zip(starts, [*starts[1:], count], strict=True)]


def learning_rate(base: Tensor, epoch: float, training: Training) -> Tensor:
    """The rate of each head, (L,), at a fractional epoch: step / steps per epoch, so it changes with every step.

    Warm-up, epoch < w: base * epoch / w. Then, with E epochs in all, `cosine` is
    minimum + (base - minimum) * (1 + cos(pi * (epoch - w) / (E - w))) / 2, and `constant` is base. The very first step
    of a warm-up therefore has rate 0. Source: `util/lr_sched.py` of MAE, which DEO's evaluation uses.
    """
    warmup = training.warmup_epochs
    if epoch < warmup:
        return base * (epoch / warmup)
    if training.schedule == "constant":
        return base
    fall = (1 + cos(pi * (epoch - warmup) / (training.epochs - warmup))) / 2
    return training.minimum_learning_rate + (base - training.minimum_learning_rate) * fall


class AdamW:
    """Adam with decoupled weight decay (Loshchilov & Hutter, ICLR 2019): `torch.optim.AdamW` at its betas, per head."""

    def __init__(self, parameters: Sequence[Tensor], training: Training, rules: "Sequence[Rule] | None" = None) -> None:
        self.parameters, self.rules = parameters, rules or one_rule(parameters, training)
        self.mean = [torch.zeros_like(parameter) for parameter in parameters]
        self.square = [torch.zeros_like(parameter) for parameter in parameters]
        self.steps = 0

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor], rates: Tensor) -> None:
        """Update all parameters in place; `rates` (L,) holds one learning rate per head."""
        self.steps += 1
        unbias_mean, unbias_square = 1 - 0.9**self.steps, sqrt(1 - 0.999**self.steps)
        for parameter, rule, gradient, mean, square in zip(
            self.parameters, self.rules, gradients, self.mean, self.square, strict=True
        ):
            rate = per_head(rates * rule.rate, parameter)
            parameter.mul_(1 - rate * rule.weight_decay)
            mean.lerp_(gradient, 0.1)
            square.mul_(0.999).addcmul_(gradient, gradient, value=0.001)
            parameter.sub_(mean / (square.sqrt() / unbias_square).add_(1e-8) * (rate / unbias_mean))


class Sgd:
    """Gradient descent with momentum and L2 weight decay, `torch.optim.SGD` (no dampening, no Nesterov), per head."""

    def __init__(self, parameters: Sequence[Tensor], training: Training, rules: "Sequence[Rule] | None" = None) -> None:
        self.parameters, self.rules = parameters, rules or one_rule(parameters, training)
        self.momentum = training.momentum
        self.velocity = [torch.zeros_like(parameter) for parameter in parameters]

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor], rates: Tensor) -> None:
        """Update all parameters in place; `rates` (L,) holds one learning rate per head."""
        for parameter, rule, gradient, velocity in zip(
            self.parameters, self.rules, gradients, self.velocity, strict=True
        ):
            velocity.mul_(self.momentum).add_(gradient).add_(parameter, alpha=rule.weight_decay)
            parameter.sub_(per_head(rates * rule.rate, parameter) * velocity)


@dataclass(frozen=True)
class Rule:
    """What one parameter is updated with: `rate` multiplies the learning rate of the schedule."""

    rate: float
    weight_decay: float


def one_rule(parameters: Sequence[Tensor], training: Training) -> list[Rule]:
    """The rule of a training in which all parameters are treated alike."""
    return [Rule(1.0, training.weight_decay)] * len(parameters)


OPTIMIZERS = {"adamw": AdamW, "sgd": Sgd}


def per_head(values: Tensor, parameter: Tensor) -> Tensor:
    """Shape one value per head (L,) so that it broadcasts against a parameter (L, ...)."""
    return values.view(-1, *[1] * (parameter.ndim - 1))


@dataclass(frozen=True)
class Kept:
    """What is left of a training: per head the parameters (L, ...) of the kept epoch, its score and number, both (L,).

    Epochs count from 1. A head whose scores were never finite has score -inf, epoch 0 and its initial parameters.
    `buffers` are those of the kept epoch of a training with one head, as they were handed in.
    """

    parameters: tuple[Tensor, ...]
    score: Tensor
    epoch: Tensor
    buffers: tuple[Tensor, ...] = ()


def fit(
    parameters: Sequence[Tensor],
    epoch_batches: Callable[[int], Iterable[Batch]],
    steps_per_epoch: int,
    loss: Callable[..., Tensor],
    validate: Callable[[], Tensor],
    training: Training,
    *,
    parts: Callable[[Batch], Iterable[tuple[float, Batch]]] | None = None,
    rules: Sequence[Rule] | None = None,
    buffers: Sequence[Tensor] = (),
    report: Callable[[int, Kept], None] | None = None,
) -> Kept:
    """Train stacked heads and keep of each the epoch that the validation split likes best (the earliest of equal ones).

    `parameters` (L, ...) are updated in place. `epoch_batches(epoch)`, epochs counted from 0, gives `steps_per_epoch`
    batches; `loss(*batch)` is the mean loss of each head, (L,); `validate()` scores the heads as they stand, (L,),
    float64, higher is better, -inf for one that has diverged. With `selection = last` it is asked once, at the end; with
    `patience` training ends once no head has become better for so many epochs.

    `parts(batch)` cuts a batch into smaller ones with their share of it, whose gradients are summed; `rules` holds one
    `Rule` per parameter where they differ; `buffers` of a single head (running statistics) are kept with its parameters;
    `report(epoch, kept)` is told how far training is, epochs counted from 1.
    """
    rates = torch.tensor(training.learning_rates, dtype=parameters[0].dtype, device=parameters[0].device)
    assert not buffers or len(rates) == 1, "running statistics belong to one head"
    for parameter in parameters:
        parameter.requires_grad_(True)
    optimizer = OPTIMIZERS[training.optimizer](parameters, training, rules)
    kept = Kept(
        tuple(parameter.detach().clone() for parameter in parameters),
        torch.full(rates.shape, -torch.inf, dtype=torch.float64, device=rates.device),
        torch.zeros(rates.shape, dtype=torch.long, device=rates.device),
        tuple(buffer.clone() for buffer in buffers),
    )
    for epoch in range(training.epochs):
        for step, batch in enumerate(epoch_batches(epoch)):
            total: Sequence[Tensor] | None = None
            for share, part in parts(batch) if parts else [(1.0, batch)]:
                gradients = torch.autograd.grad(share * loss(*part).sum(), parameters)
                total = gradients if total is None else [one + other for one, other in zip(total, gradients)]
            assert total is not None, "a batch without parts"
            optimizer.step(total, learning_rate(rates, epoch + step / steps_per_epoch, training))
        if training.selection == "last" and epoch + 1 < training.epochs:
            if report:
                report(epoch + 1, kept)
            continue
        with torch.no_grad():
            score = validate()
            better = score > kept.score
            kept = Kept(
                tuple(
                    torch.where(per_head(better, old), new.detach(), old)
                    for old, new in zip(kept.parameters, parameters, strict=True)
                ),
                torch.where(better, score, kept.score),
                torch.where(better, epoch + 1, kept.epoch),
                tuple(buffer.clone() for buffer in buffers) if bool(better.any()) else kept.buffers,
            )
        if report:
            report(epoch + 1, kept)
        if training.patience and epoch + 1 - int(kept.epoch.max()) >= training.patience:
            break
    return kept


def edge_note(what: str, values: tuple[float, ...], chosen: int) -> tuple[str, ...]:
    """A sentence if the chosen value is the first or last of several: a better one may lie outside."""
    if len(values) == 1 or 0 < chosen < len(values) - 1:
        return ()
    return (f"the chosen {what} {values[chosen]:g} is the {'smallest' if chosen == 0 else 'largest'} of those tried",)
