"""DINO (Caron et al., ICCV 2021, arXiv:2104.14294): head, loss with its centre, and the schedules of teachers.

Names of parameters and buffers are those of the official checkpoints (github.com/facebookresearch/dino).
"""

from math import cos, pi

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional


class Prototypes(nn.Module):
    """A linear layer without bias whose rows are g_k v_k / |v_k|: (..., D) -> (..., K). `weight_g` (K, 1), `weight_v` (K, D).

    As `torch.nn.utils.weight_norm`, which is deprecated; the keys of its successor are not those of official files.
    """

    def __init__(self, width: int, prototypes: int, train_norm: bool) -> None:
        super().__init__()
        self.weight_g = nn.Parameter(torch.ones(prototypes, 1), requires_grad=train_norm)
        self.weight_v = nn.Parameter(nn.Linear(width, prototypes, bias=False).weight.detach())

    def forward(self, vectors: Tensor) -> Tensor:
        rows = self.weight_v * (self.weight_g / self.weight_v.norm(dim=1, keepdim=True))
        return functional.linear(vectors, rows)


class DinoHead(nn.Module):
    """Three linear layers with GELU between, L2 norm, weight-normed prototypes: (B, C) -> (B, K) logits.

    `norm_last_layer` keeps the norms g_k at 1. The official head without batch norm.
    """

    def __init__(self, width: int, hidden: int, bottleneck: int, prototypes: int, norm_last_layer: bool) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, bottleneck)
        )
        for layer in self.mlp:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)
        self.last_layer = Prototypes(bottleneck, prototypes, train_norm=not norm_last_layer)

    def forward(self, vectors: Tensor) -> Tensor:
        return self.last_layer(functional.normalize(self.mlp(vectors), dim=-1))


class DinoLoss(nn.Module):
    """Cross-entropy between the teacher's view of one crop and the student's of another, with a running centre.

        q_u = softmax((t_u - c) / T_t),  p_v = softmax(s_v / T_s)
        L   = 1 / (2 (V - 1)) sum_{u in G} sum_{v != u} mean_batch H(q_u, p_v)          (DINO, equations 1 to 3)
        c  <- m c + (1 - m) mean(t)  over both views and the batch of all devices       (DINO, equation 4)

    `center` (1, K) is zero at first. The released loss moves it inside its forward pass; here `update_centre`, called after
    the step, does so once for all passes since (the next pass sees the same centre), so that a batch in several parts
    counts as one.
    """

    center: Tensor

    def __init__(self, prototypes: int, student_temperature: float, centre_momentum: float) -> None:
        super().__init__()
        self.student_temperature = student_temperature
        self.centre_momentum = centre_momentum
        self.register_buffer("center", torch.zeros(1, prototypes))
        self.seen: list[tuple[Tensor, int]] = []

    def forward(self, student: Tensor, teacher: Tensor, teacher_temperature: float) -> Tensor:
        """Logits of the student (V, B, K), global views first, and of the teacher (2, B, K) -> a scalar."""
        targets = ((teacher.detach().float() - self.center) / teacher_temperature).softmax(dim=-1)
        logs = (student.float() / self.student_temperature).log_softmax(dim=-1)
        if self.training:
            self.seen.append((teacher.detach().float().sum(dim=(0, 1)), teacher[..., 0].numel()))
        pairs = [(q, p) for q in range(len(targets)) for p in range(len(logs)) if p != q]
        return torch.stack([-(targets[q] * logs[p]).sum(dim=-1).mean() for q, p in pairs]).mean()

    @torch.no_grad()
    def update_centre(self) -> None:
        """Move the centre by the teacher's logits since the last call, over all processes where there are several."""
        if not self.seen:
            return
        total = torch.stack([logits for logits, _ in self.seen]).sum(dim=0)
        # The number travels with the sum: 65,536 logits and one count in one message.
        message = torch.cat([total, total.new_tensor([float(sum(count for _, count in self.seen))])])
        self.seen.clear()
        if distributed.is_available() and distributed.is_initialized():
            distributed.all_reduce(message)
        self.center.mul_(self.centre_momentum).add_((1 - self.centre_momentum) * message[:-1] / message[-1])


def teacher_temperature(epoch: int, start: float, end: float, warmup: int) -> float:
    """T_t of an epoch (from 0): `warmup` values from `start` to `end`, both included, then `end`."""
    if epoch >= warmup:
        return end
    return start + (end - start) * epoch / max(1, warmup - 1)


def momentum(step: int, total: int, start: float) -> float:
    """m of a step (from 0) of `total`: a half cosine from `start` towards 1."""
    return 1 - (1 - start) * (1 + cos(pi * step / total)) / 2


@torch.no_grad()
def follow(teacher: nn.Module, student: nn.Module, keep: float) -> None:
    """teacher <- keep * teacher + (1 - keep) * student, by parameter. Buffers stay: batch norms have their own averages."""
    for ours, theirs in zip(teacher.parameters(), student.parameters(), strict=True):
        ours.lerp_(theirs, 1 - keep)
