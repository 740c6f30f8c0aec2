"""CROMA's kit: encodings after the norm, the last block of the shallow encoders, and two functions of the authors."""

from collections.abc import Mapping
from math import isqrt
from typing import Any

import torch
from torch import Tensor, nn

from models.common.backbone import Backbone, Batch, tokens_to_map
from models.networks.croma import alibi
from models.parity import Run

MODES = {"optical": "ms", "SAR": "sar", "both": "joint"}


def _modality(model: Backbone, batch: Batch, value: object) -> bool:
    """True if this mode is run and the checkpoint holds what it needs."""
    return MODES.get(str(value)) == batch.mode and any(mode.name == batch.mode for mode in model.card.inputs)


def _resolution(model: Backbone, batch: Batch, value: object) -> bool:
    """True if every image has this height and width."""
    return all(image.shape[2] == image.shape[3] == value for image in batch.images.values())


ARGUMENTS = {"modality": _modality, "image_resolution": _resolution}


def normalise(model: Backbone, inputs: dict[str, Tensor], args: Mapping[str, Any]) -> dict[str, Tensor]:
    """The README's function: mean -+ 2 std of each channel over the whole batch, to 0..1, also by way of uint8.

    As literal as the adapter cannot be: there the statistics are the data set's (`ClipToDeviations`).
    """
    image = inputs["image"].float()
    found: dict[str, list[Tensor]] = {"eight_bit": [], "float": []}
    for channel in image.unbind(dim=1):
        low, high = channel.mean() - 2 * channel.std(), channel.mean() + 2 * channel.std()
        scaled = (channel - low) / (high - low)
        found["eight_bit"].append((scaled * 255.0).clip(0, 255).to(torch.uint8).float() / 255)
        found["float"].append(scaled.clip(0, 1))
    return {name: torch.stack(channels, dim=1) for name, channels in found.items()}


def alibi_row(model: Backbone, inputs: dict[str, Tensor], args: Mapping[str, Any]) -> dict[str, Tensor]:
    """The table's row (heads, patches) of query token 17."""
    return {"row": alibi(args["num_heads"], isqrt(args["num_patches"]))[0, :, 17]}


FUNCTIONS = {"normalize": normalise, "get_2dalibi": alibi_row}


def recorded(model: Backbone) -> dict[str, nn.Module]:
    """The final norms of the encoders there are."""
    norms = {"ms": "s2_encoder.transformer", "sar": "s1_encoder.transformer", "joint": "joint_encoder"}
    return {mode.name: model.get_submodule(f"{norms[mode.name]}.norm_out") for mode in model.card.inputs}


def arrays(model: Backbone, run: Run) -> dict[str, Tensor]:
    """`encodings` as a map, `last_block` (the last stage), and the means over tokens before and after the norm."""
    rows, columns = run.stages[3].shape[2:]
    return {
        "encodings": tokens_to_map(run.outputs[run.batch.mode], (rows, columns)),
        "stage4_normed": tokens_to_map(run.outputs[run.batch.mode], (rows, columns)),
        "last_block": run.stages[3],
        "mean_normed": run.vectors["mean"],
        "mean_raw": run.vectors["raw"],
    }
