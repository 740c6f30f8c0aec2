"""DEO's losses against formulas in float64, plain loops and examples worked by hand."""

import subprocess
import sys
from math import log
from pathlib import Path

import pytest
import torch
from torch import Tensor

from models.common.errors import UserError
from models.pretraining.losses import coding_rate, cross_view_cosine, patch_cosine

ROOT = Path(__file__).resolve().parents[3]


def unit_vectors(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    drawn = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.nn.functional.normalize(drawn, dim=-1).to(dtype)


def by_determinant(features: Tensor, eps: float, rows: int | None = None) -> Tensor:
    """The coding rate from `slogdet`, view by view and part by part."""
    _, batch, width = features.shape
    rates = []
    for view in features:
        for part in view.split(rows or batch):
            matrix = torch.eye(width, dtype=features.dtype) + width / (batch * eps) * part.T @ part
            rates.append(torch.linalg.slogdet(matrix).logabsdet / 2)
    return (width + batch) / (width * batch) * sum(rates, torch.zeros(())) / len(rates)


@pytest.mark.parametrize("eps", [0.5, 0.05])
@pytest.mark.parametrize(("batch", "width"), [(24, 8), (6, 16)])
def test_the_coding_rate_and_its_gradient_are_those_of_the_determinant(eps: float, batch: int, width: int):
    ours, theirs = (unit_vectors(2, batch, width).requires_grad_() for _ in range(2))
    rate, reference = coding_rate(ours, eps), by_determinant(theirs, eps)
    torch.testing.assert_close(rate, reference, rtol=1e-12, atol=0)
    gradients = [torch.autograd.grad(value, features)[0] for value, features in ((rate, ours), (reference, theirs))]
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-12)
    assert gradients[0].abs().max() > 1e-4


def test_the_gradient_of_the_coding_rate_is_the_finite_difference():
    features = unit_vectors(1, 5, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda rows: coding_rate(rows, 0.05), (features,))


def test_constant_features_have_the_worst_rate_which_is_known_and_orthogonal_ones_the_best():
    width, batch, eps = 8, 16, 0.5
    constant = unit_vectors(1, 1, width).expand(2, batch, width)
    orthogonal = torch.eye(width, dtype=torch.float64).repeat(2, 2, 1)
    worst, best = coding_rate(constant, eps), coding_rate(orthogonal, eps)
    balance = (width + batch) / (width * batch)
    assert float(worst) == pytest.approx(balance / 2 * log(1 + width / eps), rel=1e-12)  # one direction has it all
    assert float(best) == pytest.approx(balance / 2 * width * log(1 + 1 / eps), rel=1e-12)  # every direction its share
    for seed in range(20):
        blend = 0.9 * unit_vectors(1, 1, width, seed=100) + 0.3 * unit_vectors(2, batch, width, seed=seed)
        rate = coding_rate(torch.nn.functional.normalize(blend, dim=-1), eps)
        assert worst < rate < best


def test_the_balancing_factor_may_be_the_root_that_the_release_mentions():
    features = unit_vectors(2, 12, 8)
    ratio, root = (coding_rate(features, 0.05, balancing=kind) for kind in ("ratio", "root"))
    assert float(root / ratio) == pytest.approx((0.05 * 12) ** 0.5 / 8 / ((8 + 12) / (8 * 12)), rel=1e-12)


def test_groups_are_the_mean_over_parts_each_with_the_scale_of_the_whole():
    features = unit_vectors(2, 12, 8)
    torch.testing.assert_close(coding_rate(features, 0.05, groups=3), by_determinant(features, 0.05, rows=4))
    assert coding_rate(features, 0.05, groups=3) < coding_rate(features, 0.05) - 0.01


@pytest.mark.parametrize("groups", [5, 24])
def test_groups_that_do_not_divide_the_batch_are_refused(groups: int):
    with pytest.raises(UserError, match=f"{groups} covariance groups do not go evenly into a batch of 12"):
        coding_rate(unit_vectors(2, 12, 8), 0.05, groups=groups)


def test_accumulated_parts_have_the_mean_rate_and_gradient_of_the_whole_batch():
    whole, parts = (unit_vectors(2, 12, 8).requires_grad_() for _ in range(2))
    rate = coding_rate(whole, 0.05, groups=4)
    each = [coding_rate(parts[:, start : start + 6], 0.05, images=12, groups=4) for start in (0, 6)]
    torch.testing.assert_close(torch.stack(each).mean(), rate)
    gradients = [torch.autograd.grad(value, rows)[0] for value, rows in ((sum(each) / 2, parts), (rate, whole))]
    torch.testing.assert_close(*gradients)
    with pytest.raises(UserError, match="choose `groups` as a multiple of 2"):
        coding_rate(unit_vectors(2, 6, 8), 0.05, images=12, groups=1)
    with pytest.raises(UserError, match="without accumulation"):
        coding_rate(unit_vectors(2, 6, 8), 0.05, images=12, all_reduced=True)


def test_half_precision_is_computed_in_float32_also_under_autocast():
    features = unit_vectors(2, 64, 32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rate = coding_rate(features.bfloat16(), 0.05)
    assert rate.dtype == torch.float32
    torch.testing.assert_close(rate, by_determinant(features.bfloat16().double(), 0.05).float(), rtol=1e-5, atol=0)


PROCESS = """
import sys
import torch
import torch.distributed as dist
from models.pretraining.losses import coding_rate
rank, folder = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
weight = torch.load(f"{folder}/weight.pt")
rows = torch.load(f"{folder}/rows.pt")[:, 4 * rank : 4 * rank + 4]
for name, switches in (("grouped", {"groups": 4}), ("all_reduced", {"all_reduced": True})):
    weight.requires_grad_()
    features = torch.nn.functional.normalize(rows @ weight, dim=-1)
    rate = coding_rate(features, 0.05, **switches)
    (gradient,) = torch.autograd.grad(rate, weight)
    both = torch.cat([rate.detach().view(1), gradient.flatten()])
    dist.all_reduce(both)
    if rank == 0:
        torch.save(both / 2, f"{folder}/{name}.pt")  # the mean over processes, as DistributedDataParallel takes it
dist.destroy_process_group()
"""


def test_two_processes_have_the_rate_and_the_gradient_of_one(tmp_path: Path):
    rows, weight = unit_vectors(2, 8, 5), unit_vectors(5, 6, seed=1)
    torch.save(rows, tmp_path / "rows.pt")
    torch.save(weight, tmp_path / "weight.pt")
    both = [
        subprocess.Popen([sys.executable, "-c", PROCESS, str(rank), str(tmp_path)], cwd=ROOT, stderr=subprocess.PIPE)
        for rank in range(2)
    ]
    for process in both:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors.decode()
    for name, groups in (("grouped", 4), ("all_reduced", 1)):
        weight.requires_grad_()
        rate = coding_rate(torch.nn.functional.normalize(rows @ weight, dim=-1), 0.05, groups=groups)
        (gradient,) = torch.autograd.grad(rate, weight)
        torch.testing.assert_close(
            torch.load(tmp_path / f"{name}.pt"), torch.cat([rate.detach().view(1), gradient.flatten()])
        )


def test_the_cosine_between_views_leaves_out_each_view_with_itself():
    """Two global views and one local of one image, as directions in the plane: 0, 90; student 0, 60, 180 degrees."""
    teacher = torch.tensor([[[1.0, 0.0]], [[0.0, 2.0]]])
    student = torch.tensor([[[3.0, 0.0]], [[0.5, 3**0.5 / 2]], [[-1.0, 0.0]]])
    # teacher 0 with student 1 and 2: cos 60 = 0.5, cos 180 = -1; teacher 1 with student 0 and 2: cos 90 = 0, twice
    assert float(cross_view_cosine(teacher, student)) == pytest.approx((0.5 - 1 + 0 + 0) / 4)


def test_two_global_and_ten_local_views_are_22_pairs():
    teacher, student = unit_vectors(2, 3, 5), unit_vectors(12, 3, 5, seed=1)
    pairs = [
        torch.dot(teacher[u, image], student[v, image])
        for u in range(2)
        for v in range(12)
        if v != u
        for image in range(3)
    ]
    assert len(pairs) == 22 * 3
    torch.testing.assert_close(cross_view_cosine(teacher, student), torch.stack(pairs).mean())


def test_maps_are_compared_position_by_position_after_the_student_is_resized():
    teacher = torch.tensor([1.0, 0.0])[None, :, None, None].expand(1, 2, 2, 2)
    student = torch.zeros(1, 1, 2, 2)  # one row of two positions: along the teacher's direction, and across it
    student[0, 0, 0, 0], student[0, 0, 1, 1] = 1.0, 1.0
    assert float(patch_cosine(student, teacher)) == pytest.approx(0.5)
    wider = torch.tensor([1.0, 0.0])[None, :, None, None].expand(1, 2, 1, 4)
    # bilinear to four columns: (1, 0), (3/4, 1/4), (1/4, 3/4), (0, 1)
    expected = (1 + 0.75 / 0.625**0.5 + 0.25 / 0.625**0.5 + 0) / 4
    assert float(patch_cosine(student, wider)) == pytest.approx(expected)
