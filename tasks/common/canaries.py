"""Run-time checks of raw patches against what the data set declares: units, ranges, dead and broken bands.

A canary never changes a number. It watches every patch that is extracted and says, in sentences that enter the row, what
contradicts the declared unit: the commonest silent error of the field is an input on the wrong scale.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from models.common.spectral import Band

# Declared range per unit, generous enough for saturated clouds and for radiometric offsets.
RANGES = {
    "dn": (-1000.0, 32767.0),
    "reflectance": (-0.5, 4.0),
    "uint8": (0.0, 255.0),
    "fraction": (0.0, 1.0),
    "db": (-90.0, 60.0),
}
SAMPLED_PIXELS = 64


class Canary:
    """Watches patches (B, C, H, W) of the given bands; `state` is plain JSON, so that a resumed extraction goes on counting."""

    def __init__(self, bands: Sequence[Band], state: dict[str, Any] | None = None) -> None:
        self.bands = tuple(bands)
        blank = {"nan": 0, "constant": 0, "low": None, "high": None}
        self.state: dict[str, Any] = state or {
            "images": 0,
            "sampled": [],
            "bands": {band.name: dict(blank) for band in bands},
        }

    def watch(self, patches: np.ndarray) -> np.ndarray:
        """Count what is wrong in (B, C, H, W) and return the patches as float32 with non-finite pixels filled.

        The filling is the band's mean where the data set has statistics, else 0: after normalisation an uninformative value.
        """
        patches = patches.astype(np.float32)
        finite = np.isfinite(patches)
        whole = bool(finite.all())
        self.state["images"] += len(patches)
        for index, band in enumerate(self.bands):
            seen = self.state["bands"][band.name]
            plane, good = patches[:, index], finite[:, index]
            if not whole:
                seen["nan"] += int((~good).any(axis=(1, 2)).sum())
                plane = np.where(good, plane, band.mean if np.isfinite(band.mean) else 0.0)
                patches[:, index] = plane
            low, high = plane.min(axis=(1, 2)), plane.max(axis=(1, 2))
            seen["constant"] += int((low == high).sum())
            seen["low"] = float(low.min() if seen["low"] is None else min(seen["low"], low.min()))
            seen["high"] = float(high.max() if seen["high"] is None else max(seen["high"], high.max()))
        if len(self.state["sampled"]) < 4096:
            step = max(1, patches[0, 0].size // SAMPLED_PIXELS)
            in_unit = [index for index, band in enumerate(self.bands) if band.unit == "dn"]
            if in_unit:
                brightest = patches[:, in_unit].max(axis=1).reshape(len(patches), -1)[:, ::step]
                self.state["sampled"] += [float(value) for value in brightest.mean(axis=1)]
        return patches

    def warnings(self) -> list[str]:
        """One sentence per contradiction found so far, in the order of the bands."""
        found = []
        images = self.state["images"]
        for band in self.bands:
            seen = self.state["bands"][band.name]
            if seen["nan"]:
                found.append(
                    f"{band.name}: non-finite pixels in {seen['nan']} of {images} images, filled with the band's mean"
                )
            if seen["constant"]:
                found.append(f"{band.name}: constant in {seen['constant']} of {images} images")
            if band.unit not in RANGES or seen["low"] is None:
                continue
            low, high = RANGES[band.unit]
            if seen["low"] < low or seen["high"] > high:
                found.append(
                    f"{band.name}: values {seen['low']:g}..{seen['high']:g} leave the range {low:g}..{high:g} of unit {band.unit}"
                )
            if band.unit == "uint8" and seen["high"] <= 1.5:
                found.append(f"{band.name}: nothing above {seen['high']:g}; unit uint8 looks like fraction (0..1)")
        brightness = float(np.median(self.state["sampled"])) if self.state["sampled"] else None
        if brightness is not None and brightness < 256:
            unit = "reflectance" if brightness < 5 else "uint8"
            found.append(f"the brightest of the dn bands is {brightness:.3g} on average; unit dn looks like {unit}")
        return found
