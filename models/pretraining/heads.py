"""The projection head of DEO: an MLP onto the unit sphere, without batch norm and without prototypes."""

from torch import Tensor, nn
from torch.nn import functional


class ProjectionHead(nn.Module):
    """Linear, GELU, Linear, GELU, Linear, then divided by its length: (..., width) -> (..., output).

    Weights start truncated normal with std 0.02, biases zero. As `DINOHead` of the release, whose keys it has.
    """

    def __init__(self, width: int, hidden: int, output: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, output)
        )
        for layer in self.mlp:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)

    def forward(self, features: Tensor) -> Tensor:
        return functional.normalize(self.mlp(features).float(), dim=-1)
