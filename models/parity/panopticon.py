"""Panopticon's kit: channel ids as real inputs, and the recurring extras of ViTs."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from models.common.backbone import Backbone, Batch
from models.parity.vit import arrays, recorded

__all__ = ["ARGUMENTS", "arrays", "prepare", "recorded"]


def prepare(model: Backbone, batch: Batch, args: Mapping[str, Any]) -> Batch:
    """The batch with the case's channel ids in the place of wavelengths."""
    sensor = next(iter(batch.images))
    return replace(batch, wavelengths={sensor: tuple(float(number) for number in args.get("chn_ids", ()))})


ARGUMENTS = {"chn_ids": lambda model, batch, value: tuple(value) in batch.wavelengths.values()}
