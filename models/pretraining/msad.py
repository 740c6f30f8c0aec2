"""MSAD, the multi-sensor alignment of X-STARS (arXiv:2405.09922, equations 6 to 8), as printed and as released.

Both take tokens (T, N, D) of two sensors, where N images of the batch have T tokens each and image n of one sensor shows
what image n of the other does. T = 1 where the loss is not patchwise.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional


def kronecker_targets(number: int, smoothing: float, like: Tensor) -> Tensor:
    """y (N, N): 1 - alpha on the diagonal, alpha / (N - 1) elsewhere (a single image: 1).

    Equation 7 as printed, (1 - alpha) delta_ij + alpha / (N - 1) for all j, sums to 1 + alpha / (N - 1); the prose means
    what is here.
    """
    if number == 1:
        return like.new_ones(1, 1)
    targets = like.new_full((number, number), smoothing / (number - 1))
    return targets.fill_diagonal_(1 - smoothing)


def msad(
    first: Tensor, second: Tensor, temperature: float, label_smoothing: float, sum_inside_log: bool = False
) -> Tensor:
    """The paper's loss of projected tokens v^A, v^B (T, N, D), a scalar through which gradients flow.

        p^A_ij[t] = exp(cos(v^A_i[t], v^B_j[t]) / tau) / sum_k exp(cos(v^A_i[t], v^B_k[t]) / tau)        (6), one token
        L = -1/(2N) sum_ij y_ij (mean_t log p^A_ij[t] + mean_t log p^B_ij[t])                            (8)

    p^B has the two sensors exchanged; y: `kronecker_targets`. With `sum_inside_log` the tokens are summed as equation 6
    prints it, log sum_t p_ij[t], so that p is up to T and the loss can be negative.
    """
    with torch.autocast(first.device.type, enabled=False):  # a cosine in half precision has three digits
        cosines = functional.normalize(first.float(), dim=-1) @ functional.normalize(second.float(), dim=-1).mT
    targets = kronecker_targets(first.shape[1], label_smoothing, cosines)
    total = cosines.new_zeros(())
    for similarities in (cosines, cosines.mT):
        logs = (similarities / temperature).log_softmax(dim=-1)  # (T, N, N)
        tokens = logs.logsumexp(dim=0) if sum_inside_log else logs.mean(dim=0)
        total = total - (targets * tokens).sum() / len(targets)
    return total / 2


class LinearProjectors(nn.ModuleDict):
    """psi of the paper, one linear layer for each of `names`: tokens (T, N, C) -> (T, N, D)."""

    def __init__(self, names: Iterable[str], width: int, projection_width: int) -> None:
        super().__init__({name: nn.Linear(width, projection_width) for name in names})


class Projector(nn.Module):
    """The release's projection head (`msad.py`): linear, then GELU, linear and dropout as a residual, then LayerNorm."""

    def __init__(self, width: int, projection_width: int, dropout: float) -> None:
        super().__init__()
        self.projection = nn.Linear(width, projection_width)
        self.fc = nn.Linear(projection_width, projection_width)
        self.dropout = nn.Dropout(dropout)
        self.layer_norm = nn.LayerNorm(projection_width)

    def forward(self, tokens: Tensor) -> Tensor:
        """(..., C) -> (..., D)."""
        projected = self.projection(tokens)
        return self.layer_norm(projected + self.dropout(self.fc(functional.gelu(projected))))


class ReleasedAlignment(nn.Module):
    """The release's loss (`msad.py`): a shared projector, one more for each place in a pair, soft targets.

        E1, E2 = the LayerNormed projections of one token of all images (N, D)
        logits = E2 E1^T / tau                                        a dot product, no cosine
        y      = softmax((E1 E1^T + E2 E2^T) / 2 * tau)               by row; not detached, no Kronecker delta
        L      = 1/2 (CE(logits, y) + CE(logits^T, y^T)),  smoothing y <- (1 - alpha) y + alpha / N

    and the mean over tokens. The released training rebuilds that mean from numbers (`torch.tensor` of a list), so that it
    is a constant there; whether it is here is for the caller to say.
    """

    def __init__(
        self, width: int, projection_width: int, dropout: float, temperature: float, label_smoothing: float
    ) -> None:
        super().__init__()
        self.shared = Projector(width, projection_width, dropout)
        self.places = nn.ModuleList(Projector(projection_width, projection_width, dropout) for _ in range(2))
        self.temperature = temperature
        self.label_smoothing = label_smoothing

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Tokens already through `shared`, (T, N, D) each -> a scalar."""
        one, two = (place(tokens).float() for place, tokens in zip(self.places, (first, second), strict=True))
        with torch.autocast(one.device.type, enabled=False):  # dot products reach the hundreds: no digits left in half
            logits = two @ one.mT / self.temperature
            targets = ((one @ one.mT + two @ two.mT) / 2 * self.temperature).softmax(dim=-1)
        smoothed = (1 - self.label_smoothing) * targets + self.label_smoothing / first.shape[1]
        smoothed_back = (1 - self.label_smoothing) * targets.mT + self.label_smoothing / first.shape[1]
        forth = -(smoothed * logits.log_softmax(dim=-1)).sum(dim=-1).mean()
        back = -(smoothed_back * logits.mT.log_softmax(dim=-1)).sum(dim=-1).mean()
        return (forth + back) / 2


def reduced(losses: list[Tensor], how: str) -> Tensor:
    """The losses of all pairs of sensors: their `mean` (paper) or their `sum` (code)."""
    stacked = torch.stack(losses)
    return stacked.mean() if how == "mean" else stacked.sum()
