"""Copernicus-FM's kit: wavelengths, bandwidths, metadata and kernel size as real inputs, and the GAP of its benchmark."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from models.common.backbone import Backbone, Batch
from models.networks.copernicus_fm import CopernicusFM
from models.parity import Run, vit
from models.parity.vit import recorded

__all__ = ["ARGUMENTS", "arrays", "prepare", "recorded"]


def prepare(model: Backbone, batch: Batch, args: Mapping[str, Any]) -> Batch:
    """The batch with what the case tells the network; the metadata switch is the authors', for the whole batch."""
    assert isinstance(model, CopernicusFM)
    model.per_sample = False
    model.kernel = args.get("kernel_size") or model.card.build["patch"]
    sensor, image = next(iter(batch.images.items()))
    rows = args.get("meta") or [[None] * 4]
    values = [[float("nan") if value is None else value for value in row] for row in rows]
    metadata = torch.tensor(values, dtype=torch.float32).expand(len(image), -1)
    return replace(
        batch,
        wavelengths={sensor: tuple(args.get("wavelengths_nm", ()))},
        bandwidths={sensor: tuple(args.get("bandwidths_nm", ()))},
        location=metadata[:, :2],
        time=metadata[:, 2],
        area=metadata[:, 3],
    )


def _of_batch(name: str) -> Any:
    """True if the batch tells the network these numbers."""
    return lambda model, batch, value: tuple(value) in getattr(batch, name).values()


def _bands(model: Backbone, batch: Batch, value: Any) -> bool:
    """True if there are so many bands; the network knows them by wavelength and not by name."""
    return all(image.shape[1] == len(value) for image in batch.images.values())


def _metadata(model: Backbone, batch: Batch, value: Any) -> bool:
    """True if one row is for all images, or every image has its own."""
    return all(len(row) == 4 for row in value) and len(value) in (1, len(next(iter(batch.images.values()))))


ARGUMENTS = {
    "wavelengths_nm": _of_batch("wavelengths"),
    "bandwidths_nm": _of_batch("bandwidths"),
    "bands": _bands,
    "kernel_size": lambda model, batch, value: value in (None, model.kernel),
    "meta": _metadata,
    "input_mode": lambda model, batch, value: value == "spectral",
    "language_embed": lambda model, batch, value: value is None,
}


def arrays(model: Backbone, run: Run) -> dict[str, Tensor]:
    """The extras of ViTs, and `pooled_gap`: the mean of the last patch tokens through a norm that was never trained."""
    found = vit.arrays(model, run)
    mean = found["mean_raw"]
    return found | {"pooled_gap": functional.layer_norm(mean, mean.shape[-1:], eps=1e-6)}
