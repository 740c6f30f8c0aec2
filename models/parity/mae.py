"""MAE's kit: the recurring extras of ViTs."""

from models.parity.vit import arrays, recorded

__all__ = ["arrays", "recorded"]
