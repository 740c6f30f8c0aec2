"""DEO's losses (Wolf et al., CVPR 2026): coding rate, cosine between views, cosine between maps.

All are similarities or rates, to be made large; the sign of the total is the caller's. They compute in float32 (float64
stays float64), whatever the precision of the networks.
"""

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional

from models.common.errors import UserError


def cross_view_cosine(teacher: Tensor, student: Tensor) -> Tensor:
    """C = 1 / (G V - G) sum_{u in G} sum_{v != u} mean_b cos(t_u, s_v): every teacher view against every other view.

    `teacher` (G, B, D) are its global views, `student` (V, B, D) has the same global views first and the local ones
    after; the pairs of one view with itself are left out (paper, first term of eq. 3; release `MCRLoss.calc_compression`
    and `DistLoss`: 22 terms for 2 global and 10 local views). Returns a scalar in -1..1.
    """
    globals_, views = len(teacher), len(student)
    teacher, student = functional.normalize(exact(teacher), dim=-1), functional.normalize(exact(student), dim=-1)
    cosines = (teacher[:, None] * student).sum(dim=3).mean(dim=2)  # no matrix product, which autocast would round
    others = ~torch.eye(globals_, views, dtype=torch.bool, device=cosines.device)
    return (cosines * others).sum() / (globals_ * views - globals_)


def patch_cosine(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean over images and positions of cos(student map, teacher map), the same view of both (paper, eq. 4).

    `student` (N, H, W, D) is a head's output, normalised already; it is resized bilinearly to the grid of `teacher`
    (N, D, H', W') after that, as in the release (`cosine_patch_loss`). Returns a scalar in -1..1.
    """
    resized = functional.interpolate(
        exact(student).permute(0, 3, 1, 2), size=teacher.shape[2:], mode="bilinear", align_corners=False
    )
    return functional.cosine_similarity(resized, exact(teacher), dim=1).mean()


def coding_rate(
    features: Tensor,
    eps: float,
    images: int = 0,
    groups: int = 1,
    all_reduced: bool = False,
    balancing: str = "ratio",
) -> Tensor:
    """R = balance(n) / 2 * mean_{u, g} logdet(I + d / (n eps) Z_ug^T Z_ug), how much space features take up (eqs. 6, 7).

    `features` (G, B, D): views u of the images of this call; d = D, and n = `images` counts those of the whole step, of
    all processes and accumulated parts (0: of all processes). The determinant comes from the Cholesky factor L of A:
    logdet A = 2 sum_i log L_ii. `balance` is (d + n) / (d n) (`ratio`, the release) or sqrt(eps n) / d (`root`, the
    alternative it mentions).

    `groups` cuts the images of the step into so many parts g, each with its own covariance and the scale of the whole:
    what as many GPUs of the authors compute, who do not sum it. With `all_reduced` the covariance is summed over all
    processes, with its gradient, and `groups` does not count. In either case the mean over processes and accumulated
    parts of the gradients is that of one process with all images. The rate is 0 for features 0, and of those of unit
    length it is least if all are one vector. Returns a scalar; raises `UserError` where groups do not go evenly into
    the parts of a step.
    """
    views, batch, width = features.shape
    processes = dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
    images = images or batch * processes
    parts = images // batch
    if all_reduced and parts != processes:
        raise UserError("covariance=all_reduced needs a whole batch at once: without accumulation, or use `groups`")
    groups = parts if all_reduced else groups
    if images % batch or groups % parts or batch % (groups // parts):
        raise UserError(
            f"{groups} covariance groups do not go evenly into a batch of {images} that is computed {batch} images at a "
            f"time: choose `groups` as a multiple of {parts} (processes times accumulation) that divides the batch"
        )
    with torch.autocast(features.device.type, enabled=False):
        rows = exact(features).reshape(views * (groups // parts), -1, width)
        covariance = rows.transpose(1, 2) @ rows
        if all_reduced and processes > 1:
            covariance = all_reduce(covariance)
        matrix = torch.eye(width, dtype=rows.dtype, device=rows.device) + width / (images * eps) * covariance
        factor = torch.linalg.cholesky_ex(matrix).L  # A is positive definite; the plain function would wait for the GPU
        rate = factor.diagonal(dim1=1, dim2=2).log().sum(dim=1).mean()
    balance = (width + images) / (width * images) if balancing == "ratio" else (eps * images) ** 0.5 / width
    return balance * rate


class SumOfProcesses(torch.autograd.Function):
    """The sum of a tensor over all processes, whose gradient is the sum of their gradients."""

    @staticmethod
    def forward(ctx: object, tensor: Tensor) -> Tensor:
        total = tensor.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: object, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total


def all_reduce(tensor: Tensor) -> Tensor:
    """Sum over all processes, differentiable: each process's loss depends on the tensors of all, so gradients are summed."""
    summed = SumOfProcesses.apply(tensor)
    assert isinstance(summed, Tensor)
    return summed


def exact(tensor: Tensor) -> Tensor:
    """Half precision to float32; float32 and float64 as they are."""
    return tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()
