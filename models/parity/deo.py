"""DEO's kits: the extras of a Swin for `deo`, those of a ViT for `deo:vit`."""

from torch import Tensor, nn

from models.common.backbone import Backbone, Batch, channels_last_to_first
from models.parity import Run, vit


def _stem(model: Backbone, batch: Batch, value: object) -> bool:
    """True if an image of so many bands goes through the stem of that name."""
    ending = "_ms" if batch.images["optical"].shape[1] == 10 else "_rgb"
    return value == ("patch_embed" if model.card.variant == "vit" else "conv") + ending


def _window(model: Backbone, batch: Batch, value: object) -> bool:
    """True if the window read off the weights is this one."""
    return getattr(model, "window", None) == value


ARGUMENTS = {"stem": _stem, "window": _window}


def recorded(model: Backbone) -> dict[str, nn.Module]:
    """The patch mergings of the Swin, or the tapped blocks of the ViT."""
    if model.card.variant == "vit":
        return vit.recorded(model)
    return {f"layer{number}_out": model.get_submodule(f"features.{2 * number - 1}") for number in (1, 2, 3)}


def arrays(model: Backbone, run: Run) -> dict[str, Tensor]:
    """A Swin's stages carry no norm, so that `raw1..4` are the stages, and its vectors are means over the last map."""
    if model.card.variant == "vit":
        return vit.arrays(model, run)
    found = {name: channels_last_to_first(output) for name, output in run.outputs.items()}
    found |= {f"raw{number}": stage for number, stage in enumerate(run.stages, 1)}
    normed = model.get_submodule("norm")(run.stages[3].permute(0, 2, 3, 1))
    found["stage4_normed"] = channels_last_to_first(normed)
    found["mean_normed"] = run.vectors["mean"]
    found["mean_raw"] = found["pooled_raw"] = run.vectors["raw"]
    return found
