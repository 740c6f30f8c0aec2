"""Linear probing of pooled features: a linear layer per learning rate, all at once, and the exact logistic solution.

What is fitted: weights and biases, on the train split. What is chosen, on the val split: each head's epoch, then the
learning rate (or C). What is scored, once, on the test split: the chosen head. The backbone is not touched.
"""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, linear, one_hot

from models.common.errors import UserError
from tasks.common import fit, metrics
from tasks.common.fit import edge_note
from tasks.common.splits import Result, Split, check, scaler
from tasks.switches import LinearProbe

VALIDATION_ROWS = 8192  # rows whose logits are held at once
GRADIENT_TOLERANCE = 1e-6
TrainEpoch = Callable[[int, int], Split]


def evaluate(
    train: Split,
    val: Split,
    test: Split,
    num_classes: int,
    multilabel: bool,
    seed: int,
    switches: LinearProbe,
    train_epoch: TrainEpoch | None = None,
) -> Result:
    """Train one head per learning rate, keep its best epoch and then the best rate on val, score that once on test.

    Of equally good learning rates the smallest is taken. `train_epoch(epoch, seed)`, needed where a protocol augments
    images or leaves stochastic depth on, gives the training features anew for each epoch (counted from 0), in the order
    of `train`, which then only provides the statistics of the standardisation. Raises `UserError` on splits that cannot
    be measured, and if every head diverged.

    Metrics: `accuracy`; multi-label `f1_micro`, `f1_macro` (threshold 0.5), `map_micro`, `map_macro`. Samples: `label`,
    `prediction` (N,), `score` (N, C) probabilities as float16; multi-label: all (N, C), `score` as float32. Choices:
    `learning_rate`, `epoch` (from 1), `validation` (accuracy or micro F1 there).
    """
    check(num_classes, multilabel, train=train, val=val, test=test)
    if train_epoch is None and not switches.uses_stored_features:
        raise UserError(
            f"augmentation {switches.augmentation!r} with the backbone in {switches.backbone_mode} mode needs features "
            "of every epoch; stored ones serve augmentation 'none' in eval mode"
        )
    scale = scaler(train.features, switches.standardise)

    def fresh(epoch: int) -> tuple[Tensor, Tensor]:
        if train_epoch is None:
            return stored, train.labels
        split = train_epoch(epoch, seed)
        check(num_classes, multilabel, train=split)
        if split.names != train.names:
            raise ValueError(f"epoch {epoch} gave other images than the train split, or in another order")
        return scale(split.features), split.labels

    stored = scale(train.features)
    kept = sweep(fresh, len(train.names), scale(val.features), val.labels, num_classes, multilabel, seed, switches)
    head, choices = chosen(kept, switches)
    weight, bias = (parameter[head] for parameter in kept.parameters)
    logits = linear(scale(test.features), weight, bias)
    return score(logits, test.labels, multilabel, choices, edge_note("learning rate", switches.learning_rates, head))


def chosen(kept: fit.Kept, switches: LinearProbe) -> tuple[int, dict[str, float]]:
    """The number of the head that val likes best (of equal ones the smallest rate), and what was decided on the way.

    Raises `UserError` if every head diverged.
    """
    head = int(kept.score.argmax())  # the first of equal ones, and the learning rates ascend
    if kept.score[head] == -torch.inf:
        raise UserError(
            f"every learning rate diverged ({switches.learning_rates}); add smaller ones or standardise the features"
        )
    return head, {
        "learning_rate": switches.learning_rates[head],
        "epoch": float(kept.epoch[head]),
        "validation": float(kept.score[head]),
    }


def sweep(
    train: Callable[[int], tuple[Tensor, Tensor]],
    count: int,
    val_features: Tensor,
    val_labels: Tensor,
    num_classes: int,
    multilabel: bool,
    seed: int,
    switches: LinearProbe,
) -> fit.Kept:
    """Train a linear head per learning rate: weights (L, C, D) and biases (L, C), in the dtype of `val_features`.

    `train(epoch)` gives features (count, D) and labels; `val_features` are (V, D). All heads of a seed start from the
    same draw (uniform within +-1/sqrt(D), as `torch.nn.Linear`) and see the same batches; both come from a generator of
    the seed's own, so neither the other seeds nor the other learning rates matter. Loss: cross-entropy, or binary
    cross-entropy averaged over images and classes.
    """
    generator = torch.Generator().manual_seed(seed)
    heads, width = len(switches.learning_rates), val_features.shape[1]
    draw = (2 * torch.rand(num_classes, width + 1, generator=generator, dtype=torch.float64) - 1) / width**0.5
    draw = draw.to(val_features).expand(heads, -1, -1)
    weight, bias = draw[..., :-1].contiguous(), draw[..., -1].contiguous()

    def logits(features: Tensor) -> Tensor:
        # All heads side by side are one wide layer, so one matrix product serves them all.
        wide = linear(features, weight.flatten(0, 1), bias.flatten())
        return wide.unflatten(1, (heads, num_classes)).transpose(0, 1)  # (L, n, C)

    def epoch_batches(epoch: int) -> Iterator[tuple[Tensor, ...]]:
        features, labels = train(epoch)
        order = torch.randperm(count, generator=generator).to(features.device)
        for part in slices:
            yield features[order[part]], labels[order[part]]

    def loss(features: Tensor, labels: Tensor) -> Tensor:
        predicted = logits(features)
        if multilabel:
            target = labels.to(predicted.dtype).expand_as(predicted)
            return binary_cross_entropy_with_logits(predicted, target, reduction="none").mean(dim=(1, 2))
        rows = cross_entropy(predicted.flatten(0, 1), labels.repeat(heads), reduction="none")
        return rows.view(heads, -1).mean(dim=1)

    def validate() -> Tensor:
        parts = [logits(part) for part in val_features.split(VALIDATION_ROWS)]
        predicted = torch.cat([metrics.classify(part, multilabel) for part in parts], dim=1)
        finite = torch.stack([torch.isfinite(part).all(dim=(1, 2)) for part in parts]).all(dim=0)
        return torch.where(finite, metrics.selection_score(predicted, val_labels, multilabel), -torch.inf)

    slices = fit.batches(count, switches.batch)
    return fit.fit([weight, bias], epoch_batches, len(slices), loss, validate, switches)


def logistic(
    train: Split, val: Split, test: Split, num_classes: int, multilabel: bool, switches: LinearProbe
) -> Result:
    """The exact counterpart of `evaluate`: L2-regularised logistic regression (multinomial, or one binary per label).

    For each C, ascending and each started from the last solution, L-BFGS in float64 minimises
    mean loss + |weights|^2 / (2 C N), biases free: the minimum of C * summed loss + |weights|^2 / 2. The C that is best
    on val (of equal ones the smallest) is scored once on test. Nothing is random, so all seeds share the result.

    A class that no train image has (multi-label: that none lacks, too) has no finite solution; it is left out of the
    solve and never (always) predicted. Names are those of `evaluate` with `_logistic` appended, `label` apart; choices
    are `c_logistic`, `validation_logistic` and `gradient_logistic`, the largest entry of the gradient at the solution.
    """
    check(num_classes, multilabel, train=train, val=val, test=test)
    scale = scaler(train.features, switches.standardise)
    features, val_features, test_features = (scale(split.features.double()) for split in (train, val, test))
    targets = train.labels if multilabel else one_hot(train.labels, num_classes)
    targets = targets.double().cpu().numpy()
    present = targets.mean(axis=0)
    active = (present > 0) & (present < 1)

    # On the principal axes of the training features the solve is fast; a rotation leaves the penalty and the optimum alone.
    axes = torch.linalg.eigh(features.T @ features / len(features)).eigenvectors
    rotated = (features @ axes).cpu().numpy()
    flat = np.zeros((features.shape[1] + 1) * int(active.sum()))
    best: tuple[float, int, float, Tensor] | None = None
    notes: list[str] = []
    for index, c in enumerate(switches.logistic_c):
        flat, gradient = solve(flat, rotated, targets[:, active], 1 / (c * len(targets)), multilabel)
        if gradient > 10 * GRADIENT_TOLERANCE:
            notes.append(f"the logistic solve at C = {c:g} stopped with a gradient of {gradient:.1e}")
        # A class that is absent (or everywhere) in train keeps a logit that says so, well inside float64.
        layer = np.zeros((features.shape[1] + 1, num_classes))
        layer[-1] = np.where(present > 0, 1e3, -1e3)
        layer[:, active] = flat.reshape(-1, int(active.sum()))
        solution = torch.from_numpy(layer).to(features)
        solution[:-1] = axes @ solution[:-1]
        predicted = metrics.classify(val_features @ solution[:-1] + solution[-1], multilabel)
        validation = float(metrics.selection_score(predicted, val.labels, multilabel))
        if best is None or validation > best[0]:
            best = (validation, index, gradient, solution)
    assert best is not None  # `LinearProbe` refuses an empty list of C
    validation, index, gradient, solution = best
    chosen = switches.logistic_c[index]
    choices = {"c": chosen, "validation": validation, "gradient": gradient}
    notes += edge_note("C", switches.logistic_c, index)
    result = score(test_features @ solution[:-1] + solution[-1], test.labels, multilabel, choices, tuple(notes))
    return Result(
        {f"{name}_logistic": value for name, value in result.metrics.items()},
        {name if name == "label" else f"{name}_logistic": value for name, value in result.samples.items()},
        {f"{name}_logistic": value for name, value in result.choices.items()},
        result.notes,
    )


def solve(
    start: np.ndarray, features: np.ndarray, targets: np.ndarray, penalty: float, multilabel: bool
) -> tuple[np.ndarray, float]:
    """Minimise `objective` by L-BFGS from `start`; return the solution and the largest entry of its gradient.

    The search runs in variables scaled by the root of the curvature (an upper bound of the loss's, plus the penalty's),
    which changes the path and not the optimum. On principal axes, where features are uncorrelated, this takes a
    seventh of the steps.
    """
    from scipy.optimize import minimize

    curvature = np.append((features**2).mean(axis=0), 1.0) / 4 + np.append(np.full(features.shape[1], penalty), 0.0)
    scale = np.repeat(1 / np.sqrt(np.maximum(curvature, 1e-12)), targets.shape[1])
    largest = np.inf

    def scaled(variables: np.ndarray) -> tuple[float, np.ndarray]:
        nonlocal largest
        value, gradient = objective(variables * scale, features, targets, penalty, multilabel)
        largest = float(np.abs(gradient).max())
        return value, gradient * scale

    def stop(intermediate_result: object) -> None:
        if largest <= GRADIENT_TOLERANCE:
            raise StopIteration

    options = {"maxiter": 5000, "maxfun": 10000, "maxcor": 20, "ftol": 0.0, "gtol": 0.0}
    found = minimize(scaled, start / scale, method="L-BFGS-B", jac=True, callback=stop, options=options)
    _, gradient = objective(found.x * scale, features, targets, penalty, multilabel)
    return found.x * scale, float(np.abs(gradient).max())


def objective(
    flat: np.ndarray, features: np.ndarray, targets: np.ndarray, penalty: float, multilabel: bool
) -> tuple[float, np.ndarray]:
    """Mean loss + penalty * |weights|^2 / 2 and its gradient, float64.

    `flat` is the layer (D + 1, C), row by row, biases last; `features` (N, D); `targets` (N, C) of 0 and 1. The loss of
    an image is the multinomial cross-entropy, or the sum over classes of the binary ones.
    """
    layer = flat.reshape(-1, targets.shape[1])
    weight, bias = layer[:-1], layer[-1]
    logits = _product(features, weight) + bias
    if multilabel:
        # log(1 + e^z) = max(z, 0) + log(1 + e^-|z|), and sigmoid(z) from the same e^-|z|: no overflow either way.
        small = np.exp(-np.abs(logits))
        loss = (np.maximum(logits, 0) + np.log1p(small) - targets * logits).sum(axis=1)
        probability = np.where(logits >= 0, 1, small) / (1 + small)
    else:
        logits -= logits.max(axis=1, keepdims=True)
        probability = np.exp(logits)
        total = probability.sum(axis=1, keepdims=True)
        probability /= total
        loss = np.log(total[:, 0]) - (targets * logits).sum(axis=1)
    residual = (probability - targets) / len(features)
    gradient = np.concatenate([_product(features.T, residual) + penalty * weight, residual.sum(axis=0)[None]])
    return float(loss.mean() + penalty / 2 * (weight**2).sum()), gradient.ravel()


def _product(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Matrix product by torch: its threads are the ones that the command line has set up."""
    return (torch.from_numpy(left) @ torch.from_numpy(right)).numpy()


def score(logits: Tensor, label: Tensor, multilabel: bool, choices: dict[str, float], notes: tuple[str, ...]) -> Result:
    """The result of one chosen head from its test logits (N, C)."""
    prediction = metrics.classify(logits, multilabel)
    if multilabel:
        probability = logits.sigmoid().float()
        scores = metrics.multilabel_scores(prediction, probability, label)
        label = label.to(torch.uint8)
    else:
        probability = logits.softmax(dim=1).half()
        scores = {"accuracy": float(metrics.accuracy(prediction, label))}
    samples = {"prediction": prediction, "label": label, "score": probability}
    return Result(scores, {name: tensor.cpu().numpy() for name, tensor in samples.items()}, choices, notes)
