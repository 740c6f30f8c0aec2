"""SeCo's kit: the stem before its norm, and the recurring names of what carries no norm here anyway."""

from torch import Tensor, nn

from models.common.backbone import Backbone
from models.parity import Run


def recorded(model: Backbone) -> dict[str, nn.Module]:
    """The first convolution, which the authors' change detection takes as a fifth map."""
    return {"conv1": model.get_submodule("encoder_q.0")}


def arrays(model: Backbone, run: Run) -> dict[str, Tensor]:
    """`conv1` (B, 64, H / 2, W / 2), the stages as `raw1..4`, the mean of the last."""
    raw = {f"raw{number}": stage for number, stage in enumerate(run.stages, 1)}
    return {**raw, "conv1": run.outputs["conv1"], "mean_raw": run.vectors["raw"], "pooled_raw": run.vectors["raw"]}
