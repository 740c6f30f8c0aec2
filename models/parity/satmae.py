"""SatMAE's kits: the extras of a ViT, and for `sentinel` those of one whose patches come once for each group of bands."""

from torch import Tensor

from models.common.backbone import Backbone
from models.networks.satmae import GroupChannelViT
from models.parity import Run, vit
from models.parity.vit import recorded

__all__ = ["arrays", "recorded"]


def arrays(model: Backbone, run: Run) -> dict[str, Tensor]:
    """Maps of `sentinel` are means over the groups, vectors those of all patches; `stage4_groups` keeps groups apart."""
    if not isinstance(model, GroupChannelViT):
        return vit.arrays(model, run)
    last = run.outputs["raw4"]
    rows, columns = run.stages[3].shape[2:]
    found = {f"raw{number}": stage for number, stage in enumerate(run.stages, 1)}
    found["stage4_groups"] = model.group_maps(last, (rows, columns))
    found["stage4_normed"] = model.group_maps(model.norm(last), (rows, columns)).mean(dim=1)
    found["mean_normed"] = run.vectors["mean"]
    found["mean_raw"] = last[:, 1:].mean(dim=1)
    found["cls_raw"] = found["pooled_raw"] = run.vectors["raw"]
    return found
