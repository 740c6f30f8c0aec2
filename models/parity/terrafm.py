"""TerraFM's kit: the recurring extras of ViTs, and the stem that the authors' forward pass never takes."""

from collections.abc import Mapping

from models.common.backbone import Backbone, Batch
from models.networks.terrafm import TerraFM
from models.parity.vit import arrays, recorded

__all__ = ["ARGUMENTS", "arrays", "prepare", "recorded"]


def prepare(model: Backbone, batch: Batch, args: Mapping[str, object]) -> Batch:
    """Send Sentinel-2 through the L2A stem where the case says so."""
    assert isinstance(model, TerraFM)
    model.l2a = bool(args.get("is_l2a", False))
    return batch


def _sensor(model: Backbone, batch: Batch, value: object) -> bool:
    return {"s2": "ms", "s1": "sar"}.get(str(value)) == batch.mode


def _l2a(model: Backbone, batch: Batch, value: object) -> bool:
    """True if the switch stands so, and means something for this sensor."""
    return isinstance(model, TerraFM) and model.l2a == value and not (value and batch.mode == "sar")


def _stem(model: Backbone, batch: Batch, value: object) -> bool:
    return isinstance(model, TerraFM) and value == f"conv2d_{model.stem(batch)}"


ARGUMENTS = {"sensor": _sensor, "is_l2a": _l2a, "stem": _stem}
