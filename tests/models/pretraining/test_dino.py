"""DINO's head, loss, centre and schedules, against worked numbers and torch's own weight norm."""

import json
import subprocess
import sys
import warnings
from math import cos, log, pi
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from models.pretraining.dino import DinoHead, DinoLoss, Prototypes, follow, momentum, teacher_temperature

ROOT = Path(__file__).resolve().parents[3]


def test_the_loss_of_two_prototypes_is_the_mean_of_the_four_cross_entropies_worked_by_hand():
    loss = DinoLoss(2, student_temperature=1.0, centre_momentum=0.9)
    teacher = torch.tensor([[[0.0, log(3)]], [[0.0, 0.0]]])  # q = (1/4, 3/4) and (1/2, 1/2)
    student = torch.tensor([[[0.0, 0.0]], [[0.0, log(3)]], [[log(3), 0.0]]])  # p = (1/2, 1/2), (1/4, 3/4), (3/4, 1/4)
    expected = (
        -(log(1 / 4) / 4 + 3 * log(3 / 4) / 4)  # first teacher view, second global view
        - (log(3 / 4) / 4 + 3 * log(1 / 4) / 4)  # first teacher view, local view
        + log(2)  # second teacher view, first global view
        - (log(3 / 4) + log(1 / 4)) / 2  # second teacher view, local view
    ) / 4
    assert loss(student, teacher, 1.0).item() == pytest.approx(expected, rel=1e-6)


def test_temperatures_and_centre_act_as_in_a_loop_over_views_and_prototypes():
    generator = torch.Generator().manual_seed(1)
    student = torch.randn(5, 3, 7, generator=generator, requires_grad=True)
    teacher = torch.randn(2, 3, 7, generator=generator)
    loss = DinoLoss(7, 0.1, 0.9)
    loss.center.copy_(torch.randn(1, 7, generator=generator) / 10)
    total, terms = 0.0, 0
    for u in range(2):
        for v in range(5):
            if v == u:
                continue
            for image in range(3):
                shifted = ((teacher[u, image] - loss.center[0]) / 0.04).double().numpy()
                targets = np.exp(shifted - shifted.max())
                targets /= targets.sum()
                scores = (student[v, image] / 0.1).detach().double().numpy()
                logs = scores - scores.max() - np.log(np.exp(scores - scores.max()).sum())
                total -= float((targets * logs).sum())
                terms += 1
    found = loss(student, teacher.requires_grad_(), 0.04)
    assert found.item() == pytest.approx(total / terms, rel=1e-5)
    found.backward()
    assert teacher.grad is None
    assert student.grad is not None


def test_a_view_is_never_compared_with_itself():
    loss = DinoLoss(4, 0.1, 0.9).eval()
    student, teacher = torch.randn(2, 3, 4, requires_grad=True), torch.randn(2, 3, 4)
    loss(student, teacher, 0.04).backward()
    first = student.grad
    assert first is not None
    other = teacher.clone()
    other[0] += torch.randn(3, 4)  # the target of the second view alone
    student.grad = None
    loss(student, other, 0.04).backward()
    assert torch.equal(student.grad[0], first[0])
    assert not torch.allclose(student.grad[1], first[1])


def test_the_centre_moves_once_by_the_mean_of_all_logits_since():
    loss = DinoLoss(2, 0.1, centre_momentum=0.9)
    loss.center.copy_(torch.tensor([[10.0, 20.0]]))
    views = torch.zeros(3, 1, 2)
    loss(views, torch.tensor([[[1.0, 0.0]], [[3.0, 0.0]]]), 0.04)
    loss(views, torch.tensor([[[5.0, 4.0]], [[7.0, 4.0]]]), 0.04)
    assert loss.center.tolist() == [[10.0, 20.0]]
    loss.update_centre()
    torch.testing.assert_close(loss.center, torch.tensor([[0.9 * 10 + 0.1 * 4, 0.9 * 20 + 0.1 * 2]]))
    before = loss.center.clone()
    loss.update_centre()
    loss.eval()(views, torch.ones(2, 1, 2), 0.04)
    loss.update_centre()
    assert torch.equal(loss.center, before)


SHARED_CENTRE = """
import sys
import torch
from models.pretraining.dino import DinoLoss
rank, address = int(sys.argv[1]), sys.argv[2]
torch.distributed.init_process_group("gloo", init_method=f"file://{address}", rank=rank, world_size=2)
loss, images = DinoLoss(2, 0.1, 0.9), 1 + rank
loss(torch.zeros(3, images, 2), torch.full((2, images, 2), 3.0 * (1 + rank)), 0.04)
loss.update_centre()
print(loss.center.tolist())
"""


def test_two_processes_with_different_numbers_of_images_share_one_centre(tmp_path: Path):
    command = [sys.executable, "-c", SHARED_CENTRE]
    processes = [
        subprocess.Popen([*command, str(rank), str(tmp_path / "meeting")], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    first, second = (json.loads(process.communicate(timeout=120)[0]) for process in processes)
    assert first == second
    assert first[0] == pytest.approx([0.1 * (1 * 3 + 2 * 6) / 3] * 2)


def test_prototypes_are_torchs_weight_norm_with_the_official_keys():
    layer = Prototypes(5, 9, train_norm=True)
    with warnings.catch_warnings(action="ignore"):
        theirs = nn.utils.weight_norm(nn.Linear(5, 9, bias=False))
    assert set(layer.state_dict()) == set(theirs.state_dict())
    with torch.no_grad():
        layer.weight_g.uniform_(0.5, 2)
    theirs.load_state_dict(layer.state_dict())
    vectors = torch.randn(4, 5)
    torch.testing.assert_close(layer(vectors), theirs(vectors))
    for network in (layer, theirs):
        network(vectors).square().sum().backward()
    torch.testing.assert_close(layer.weight_v.grad, theirs.weight_v.grad)
    torch.testing.assert_close(layer.weight_g.grad, theirs.weight_g.grad)


def test_the_head_has_the_keys_of_official_checkpoints_and_bounded_logits():
    head = DinoHead(6, 8, 4, 32, norm_last_layer=True)
    layers = [f"mlp.{number}.{part}" for number in (0, 2, 4) for part in ("weight", "bias")]
    assert sorted(head.state_dict()) == sorted([*layers, "last_layer.weight_g", "last_layer.weight_v"])
    logits = head(torch.randn(10, 6) * 100)
    assert logits.shape == (10, 32)
    assert logits.abs().max() <= 1 + 1e-6  # cosines: both sides have norm 1
    assert not head.last_layer.weight_g.requires_grad
    assert DinoHead(6, 8, 4, 32, norm_last_layer=False).last_layer.weight_g.requires_grad


def test_the_teachers_temperature_warms_up_along_numpys_linspace():
    schedule = [*np.linspace(0.04, 0.07, 5), *[0.07] * 3]
    assert [teacher_temperature(epoch, 0.04, 0.07, 5) for epoch in range(8)] == pytest.approx(schedule)
    assert teacher_temperature(0, 0.01, 0.04, 0) == 0.04


def test_the_momentum_climbs_from_its_start_towards_one():
    assert momentum(0, 100, 0.996) == pytest.approx(0.996)
    assert momentum(50, 100, 0.996) == pytest.approx(0.998)
    assert momentum(99, 100, 0.996) == pytest.approx(1 + 0.5 * (0.996 - 1) * (1 + cos(pi * 99 / 100)))


def test_the_teacher_keeps_its_share():
    teacher, student = nn.Linear(2, 2), nn.Linear(2, 2)
    expected = 0.9 * teacher.weight.detach() + 0.1 * student.weight.detach()
    follow(teacher, student, 0.9)
    torch.testing.assert_close(teacher.weight.detach(), expected)
