"""Schedules, clipping, the optimiser's step, and checkpoints that are there whole or not at all."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from models.common.errors import UserError
from models.pretraining import hooks
from models.pretraining.builder import ParameterGroup
from models.pretraining.engine import StepSeed, StepWrapper, clip_gradients, optimiser
from models.pretraining.hooks import Schedule, checkpoints, newest, read, write


def dino_cosine(base: float, final: float, total: int, warmup: int) -> np.ndarray:
    """DINO's schedule as its paper's code describes it: equal steps up from 0, then half a cosine."""
    rising = np.linspace(0, base, warmup)
    steps = np.arange(total - warmup)
    return np.concatenate([rising, final + 0.5 * (base - final) * (1 + np.cos(np.pi * steps / len(steps)))])


@pytest.mark.parametrize(
    ("base", "final", "total", "warmup"), [(5e-4, 1e-6, 100, 10), (0.04, 0.4, 7, 0), (1.0, 0.0, 9, 1)]
)
def test_a_schedule_is_dinos_at_every_step(base: float, final: float, total: int, warmup: int):
    schedule = Schedule(base, final, warmup, total)
    assert np.allclose([schedule(step) for step in range(total)], dino_cosine(base, final, total, warmup), rtol=1e-12)


def gradients(*values: list[float]) -> list[torch.Tensor]:
    tensors = [nn.Parameter(torch.zeros(len(value))) for value in values]
    for tensor, value in zip(tensors, values, strict=True):
        tensor.grad = torch.tensor(value)
    return tensors


def test_per_tensor_clipping_shrinks_only_the_tensor_that_is_too_long():
    long, short = gradients([30.0, 40.0], [0.3, 0.4])
    clip_gradients([long, short], 3.0, "per-tensor")
    assert torch.allclose(long.grad, torch.tensor([1.8, 2.4]), atol=1e-6)
    assert torch.equal(short.grad, torch.tensor([0.3, 0.4]))


def test_global_clipping_is_torchs():
    ours, theirs = (gradients([3.0, 4.0], [12.0]) for _ in range(2))
    clip_gradients(ours, 3.0, "global")
    nn.utils.clip_grad_norm_(theirs, 3.0)
    assert all(torch.allclose(a.grad, b.grad) for a, b in zip(ours, theirs, strict=True))


def wrapper(layers: nn.ModuleList, precision: str = "fp32", accumulate: int = 1) -> StepWrapper:
    groups = [
        ParameterGroup([("0", layers[0].weight)], decay=True),
        ParameterGroup([("1", layers[1].weight)], decay=False, frozen_epochs=2),
    ]
    made = StepWrapper(optimiser(groups), accumulate, 0.0, "per-tensor", precision, torch.device("cpu"))
    for group in made.optimizer.param_groups:
        group["lr"] = 0.1
    return made


@pytest.mark.parametrize(("epoch", "moves"), [(0, False), (1, False), (2, True)])
def test_a_frozen_group_moves_once_its_epochs_are_over(epoch: int, moves: bool):
    layers = nn.ModuleList(nn.Linear(2, 2, bias=False) for _ in range(2))
    before = [layer.weight.detach().clone() for layer in layers]
    made = wrapper(layers)
    made.epoch = epoch
    made.update_params(sum(layer(torch.ones(1, 2)).sum() for layer in layers))
    assert not torch.equal(layers[0].weight, before[0])
    assert torch.equal(layers[1].weight, before[1]) is not moves


def test_two_accumulated_parts_make_the_step_of_the_whole_batch():
    torch.manual_seed(0)
    first, images = nn.ModuleList(nn.Linear(2, 2, bias=False) for _ in range(2)), torch.randn(4, 2)
    second = nn.ModuleList(nn.Linear(2, 2, bias=False) for _ in range(2))
    second.load_state_dict(first.state_dict())
    whole, parts = wrapper(first), wrapper(second, accumulate=2)
    whole.update_params(first[0](images).square().mean())
    for part in images.split(2):
        parts.update_params(second[0](part).square().mean())
    assert torch.allclose(first[0].weight, second[0].weight, atol=1e-7)


def test_half_precision_skips_a_step_whose_gradients_overflow_and_lowers_its_scale():
    layers = nn.ModuleList(nn.Linear(2, 2, bias=False) for _ in range(2))
    made = wrapper(layers, "fp16")
    before, scale = layers[0].weight.detach().clone(), made.scaler.get_scale()
    made.update_params(layers[0](torch.ones(1, 2)).sum() * float("inf"))
    assert torch.equal(layers[0].weight, before)
    assert made.scaler.get_scale() == scale / 2
    made.update_params(layers[0](torch.ones(1, 2)).sum())
    assert not torch.equal(layers[0].weight, before)


def test_the_seed_of_a_step_differs_with_seed_step_and_rank_and_with_nothing_else():
    def number(*key: int) -> float:
        StepSeed(*key).apply()
        return float(torch.rand(()))

    keys = [(0, 1, 0), (1, 0, 0), (0, 0, 1), (0, 0, 0)]
    assert len({number(*key) for key in keys}) == 4
    torch.rand(7)
    assert number(0, 1, 0) == number(0, 1, 0)


def test_a_checkpoint_is_read_back_by_torchs_safe_reader(tmp_path: Path):
    layers = nn.ModuleList(nn.Linear(2, 2, bias=False) for _ in range(2))
    made = wrapper(layers, "fp16")
    made.update_params(layers[0](torch.ones(1, 2)).sum())
    write(tmp_path / "step-00000001.pth", {"wrapper": made.state_dict(), "step": 1})
    again = wrapper(layers, "fp16")
    again.load_state_dict(read(tmp_path / "step-00000001.pth")["wrapper"])
    assert again.scaler.get_scale() == made.scaler.get_scale()
    moments = [each.optimizer.state[layers[0].weight]["exp_avg"] for each in (made, again)]
    assert torch.equal(*moments)


def test_a_write_that_fails_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "step-00000001.pth"
    write(path, {"step": 1})

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"No space left on device.*make room"):
        write(path, {"step": 2})
    assert read(path) == {"step": 1}
    assert os.listdir(tmp_path) == [path.name]


def test_what_a_killed_writer_left_is_swept_away_and_never_taken_for_a_checkpoint(tmp_path: Path):
    (tmp_path / ".step-00000003.pth.123").write_bytes(b"half")
    assert newest(tmp_path) is None
    write(tmp_path / "step-00000003.pth", {"step": 3})
    assert [entry.name for entry in tmp_path.iterdir()] == ["step-00000003.pth"]


def test_a_damaged_checkpoint_names_the_file_and_the_remedy(tmp_path: Path):
    path = tmp_path / "step-00000003.pth"
    path.write_bytes(b"PK\x03\x04 half a file")
    with pytest.raises(UserError, match=r"step-00000003.pth cannot be read .*delete it"):
        read(path)


def test_a_checkpoint_with_an_object_inside_is_refused(tmp_path: Path):
    path = tmp_path / "step-00000003.pth"
    torch.save({"step": Path("x")}, path)
    with pytest.raises(UserError, match="cannot be read"):
        read(path)


def test_checkpoints_are_sorted_by_step(tmp_path: Path):
    for step in (9, 100, 20):
        (tmp_path / f"step-{step:08d}.pth").touch()
    (tmp_path / "other.pth").touch()
    assert [step for step, _ in checkpoints(tmp_path)] == [9, 20, 100]
    assert hooks.KEPT == 2
