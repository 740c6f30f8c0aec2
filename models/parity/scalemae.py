"""Scale-MAE's kit: the extras of a ViT, the relative scale of each image, and DEO's run without the class token."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from models.common.backbone import Backbone, Batch
from models.networks.scalemae import ScaleMaeViT
from models.parity import Run, vit
from models.parity.vit import recorded

__all__ = ["ARGUMENTS", "arrays", "prepare", "recorded"]


def prepare(model: Backbone, batch: Batch, args: Mapping[str, object]) -> Batch:
    """The batch with `input_res` (one value per image, or one for all), and the class token kept unless `args` drop it."""
    assert isinstance(model, ScaleMaeViT)
    model.class_token = not args.get("drop_class_token_before_blocks", False)
    if "input_res" not in args:
        return batch
    scale = torch.as_tensor(args["input_res"], dtype=torch.float32)
    return replace(batch, relative_gsd=scale.expand(len(batch.images["optical"])) if scale.numel() == 1 else scale)


def _scale(model: Backbone, batch: Batch, value: object) -> bool:
    """True if every image has its scale."""
    return batch.relative_gsd is not None and batch.relative_gsd.shape == (len(batch.images["optical"]),)


def _dropped(model: Backbone, batch: Batch, value: object) -> bool:
    """True if the network was told so."""
    return isinstance(model, ScaleMaeViT) and model.class_token is not value


ARGUMENTS = {"input_res": _scale, "drop_class_token_before_blocks": _dropped}


def arrays(model: Backbone, run: Run) -> dict[str, Tensor]:
    """As of any ViT; without a class token there is none to return."""
    found = vit.arrays(model, run)
    if isinstance(model, ScaleMaeViT) and not model.class_token:
        del found["cls_raw"]
    return found
