"""DOFA's kit: wavelengths as real inputs, both layouts of generated kernels, and what the stem puts out."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from models.common.backbone import Backbone, Batch
from models.networks.dofa import Dofa
from models.parity import Run

LAYOUTS = {"new": False, "old": True}


def prepare(model: Backbone, batch: Batch, args: Mapping[str, Any]) -> Batch:
    """The batch with the case's wavelengths, in nm, and the kernel layout it names."""
    assert isinstance(model, Dofa)
    model.old_layout = LAYOUTS.get(args.get("kernel_layout", "new"), False)
    sensor = next(iter(batch.images))
    return replace(batch, wavelengths={sensor: tuple(1000 * value for value in args.get("wavelengths_um", ()))})


def _wavelengths(model: Backbone, batch: Batch, value: Any) -> bool:
    return tuple(1000 * number for number in value) in batch.wavelengths.values()


def _layout(model: Backbone, batch: Batch, value: Any) -> bool:
    return isinstance(model, Dofa) and value in LAYOUTS and model.old_layout == LAYOUTS[value]


ARGUMENTS = {"wavelengths_um": _wavelengths, "kernel_layout": _layout}


def arrays(model: Backbone, run: Run) -> dict[str, Tensor]:
    """The stem's output before positions, and the mean and class token of the last block without norm."""
    assert isinstance(model, Dofa)
    image = next(iter(run.batch.images.values()))
    return {
        "patch_embed": model.patches(image, model.wavelengths(run.batch)),
        "mean_raw": run.vectors["raw"],
        "cls_raw": run.vectors["cls"],
    } | {f"raw{number}": stage for number, stage in enumerate(run.stages, 1)}
