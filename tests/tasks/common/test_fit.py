"""The head-training loop: its schedule worked by hand, its optimisers against torch.optim, its choice of epochs."""

from dataclasses import replace
from math import cos, pi, sqrt

import pytest
import torch
from torch import Tensor

from models.common.errors import UserError
from tasks.common import fit
from tasks.switches import Training

TEN = Training(epochs=10, warmup_epochs=2, minimum_learning_rate=0.1, learning_rates=(1.0,))


def rate(epoch: float, training: Training = TEN, base: float = 1.0) -> float:
    return float(fit.learning_rate(torch.tensor([base], dtype=torch.float64), epoch, training)[0])


def test_the_warm_up_rises_linearly_from_zero():
    assert [rate(epoch) for epoch in (0.0, 0.5, 1.0, 1.5)] == [0.0, 0.25, 0.5, 0.75]


def test_the_cosine_falls_from_the_base_to_the_minimum():
    # Minimum 0.1, span 0.9. Eight epochs of fall: a half cosine at 0, 1/4, 1/2, 3/4 and (nearly) all of its way.
    assert rate(2.0) == pytest.approx(1.0)
    assert rate(4.0) == pytest.approx(0.1 + 0.9 * (1 + sqrt(0.5)) / 2)
    assert rate(6.0) == pytest.approx(0.55)
    assert rate(8.0) == pytest.approx(0.1 + 0.9 * (1 - sqrt(0.5)) / 2)
    assert rate(9.75) == pytest.approx(0.1 + 0.9 * (1 + cos(pi * 7.75 / 8)) / 2)
    assert rate(10.0) == pytest.approx(0.1)


def test_each_head_has_its_own_base_and_all_share_the_minimum():
    rates = fit.learning_rate(torch.tensor([0.2, 2.0], dtype=torch.float64), 6.0, TEN)
    assert rates.tolist() == pytest.approx([0.15, 1.05])


def test_a_constant_schedule_stays_and_no_warm_up_starts_at_the_base():
    constant = replace(TEN, schedule="constant", warmup_epochs=0)
    assert [rate(epoch, constant) for epoch in (0.0, 5.0, 9.9)] == [1.0, 1.0, 1.0]
    assert rate(0.0, replace(TEN, warmup_epochs=0)) == 1.0


@pytest.mark.parametrize(
    ("count", "sizes"),
    [(130, [64, 66]), (128, [64, 64]), (127, [127]), (64, [64]), (10, [10]), (193, [64, 64, 65]), (1, [1])],
)
def test_a_last_short_batch_is_merged_into_the_one_before(count, sizes):
    slices = fit.batches(count, 64)
    assert [part.stop - part.start for part in slices] == sizes
    assert [i for part in slices for i in range(count)[part]] == list(range(count))


def torch_optimizer(parameters: list[Tensor], training: Training, rate: float) -> torch.optim.Optimizer:
    if training.optimizer == "adamw":
        return torch.optim.AdamW(parameters, lr=rate, weight_decay=training.weight_decay)
    return torch.optim.SGD(parameters, lr=rate, momentum=training.momentum, weight_decay=training.weight_decay)


@pytest.mark.parametrize(("optimizer", "weight_decay"), [("adamw", 0.01), ("adamw", 0.5), ("sgd", 0.0), ("sgd", 0.1)])
def test_stacked_optimisers_equal_torch_optim_head_by_head(optimizer, weight_decay):
    generator = torch.Generator().manual_seed(0)
    rates = (1e-3, 1e-2, 1e-1)
    training = Training(optimizer=optimizer, learning_rates=rates, weight_decay=weight_decay)
    stacked = [torch.randn(3, *shape, generator=generator, dtype=torch.float64) for shape in ((4, 2), (2,))]
    separate = [[tensor[head].clone().requires_grad_(True) for tensor in stacked] for head in range(3)]
    references = [torch_optimizer(parameters, training, rate) for parameters, rate in zip(separate, rates, strict=True)]
    mine = fit.OPTIMIZERS[optimizer](stacked, training)
    for step in range(20):
        gradients = [torch.randn(tensor.shape, generator=generator, dtype=torch.float64) for tensor in stacked]
        factor = 1 / (1 + step)
        mine.step(gradients, torch.tensor(rates, dtype=torch.float64) * factor)
        for head, (parameters, reference) in enumerate(zip(separate, references, strict=True)):
            reference.param_groups[0]["lr"] = rates[head] * factor
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient[head].clone()
            reference.step()
    for head in range(3):
        for tensor, parameter in zip(stacked, separate[head], strict=True):
            assert float((tensor[head] - parameter.detach()).abs().max()) < 1e-12


def run(scores: list[list[float]], selection: str) -> tuple[fit.Kept, list[Tensor]]:
    """Two heads of one number each, whose loss has slope 1, so that they fall by their rate; the scores are given."""
    training = Training(
        optimizer="sgd", momentum=0.0, weight_decay=0.0, learning_rates=(1.0, 10.0), schedule="constant",
        epochs=len(scores), warmup_epochs=0, selection=selection,
    )  # fmt: skip
    value = torch.zeros(2, 1)
    rows = iter(scores if selection == "best_val" else scores[-1:])
    kept = fit.fit(
        [value],
        lambda epoch: [(torch.ones(1),)],
        1,
        lambda one: value[:, 0] * one,
        lambda: torch.tensor(next(rows)).double(),
        training,
    )
    return kept, [value]


def test_each_head_keeps_its_best_epoch_and_the_earliest_of_equal_ones():
    kept, (value,) = run([[0.1, 0.9], [0.5, 0.9], [0.3, 0.2]], "best_val")
    assert kept.epoch.tolist() == [2, 1]
    assert kept.score.tolist() == pytest.approx([0.5, 0.9])
    assert kept.parameters[0].flatten().tolist() == [-2.0, -10.0]  # after two steps of 1, after one of 10
    assert value.flatten().tolist() == [-3.0, -30.0]  # the training itself went on


def test_selection_last_keeps_the_last_epoch_and_asks_once():
    kept, _ = run([[0.1, 0.9], [0.5, 0.9], [0.3, 0.2]], "last")
    assert kept.epoch.tolist() == [3, 3]
    assert kept.parameters[0].flatten().tolist() == [-3.0, -30.0]


def test_a_head_that_diverged_is_never_kept():
    kept, _ = run([[0.1, -torch.inf], [0.2, -torch.inf]], "best_val")
    assert kept.epoch.tolist() == [2, 0]
    assert kept.score[1] == -torch.inf


def test_the_parameters_of_a_module_serve_unstacked_with_one_learning_rate():
    generator = torch.Generator().manual_seed(0)
    features, labels = torch.randn(12, 3, generator=generator), torch.randint(2, (12,), generator=generator)
    training = Training(learning_rates=(0.1,), epochs=3, warmup_epochs=1)
    torch.manual_seed(0)
    mine, reference = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    reference.load_state_dict(mine.state_dict())
    optimizer = torch.optim.AdamW(reference.parameters(), weight_decay=training.weight_decay)
    for epoch in range(3):
        optimizer.param_groups[0]["lr"] = rate(float(epoch), training, 0.1)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(reference(features), labels).backward()
        optimizer.step()

    def loss(x: Tensor, y: Tensor) -> Tensor:
        return torch.nn.functional.cross_entropy(mine(x), y)[None]

    epochs = iter(range(1, 4))
    kept = fit.fit(
        list(mine.parameters()),
        lambda epoch: [(features, labels)],
        1,
        loss,
        lambda: torch.tensor([float(next(epochs))]).double(),
        training,
    )
    for tensor, parameter in zip(kept.parameters, reference.parameters(), strict=True):
        torch.testing.assert_close(tensor, parameter.detach())


@pytest.mark.parametrize(
    ("switches", "sentence"),
    [
        ({"optimizer": "adam"}, "no optimizer 'adam', did you mean 'adamw'?"),
        ({"schedule": "linear"}, "no learning-rate schedule 'linear'"),
        ({"selection": "best"}, "no epoch selection 'best'"),
        ({"learning_rates": ()}, "learning rates are empty"),
        ({"learning_rates": (0.1, 0.01)}, "learning rates must ascend"),
        ({"learning_rates": (-0.1, 0.01)}, "learning rates must be above 0"),
        ({"epochs": 0, "warmup_epochs": 0}, "epochs must be 1 or more"),
        ({"epochs": 5, "warmup_epochs": 5}, "warm-up epochs must lie between 0 and epochs - 1 = 4"),
        ({"batch": 0}, "batch must be 1 or more"),
        ({"minimum_learning_rate": 1.0}, "minimum learning rate must lie between"),
        ({"momentum": 1.0}, "momentum"),
        ({"weight_decay": -1.0}, "weight decay"),
    ],
)
def test_impossible_switches_are_refused(switches, sentence):
    with pytest.raises(UserError, match=sentence.replace("?", r"\?")):
        Training(**switches)
