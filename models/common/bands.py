"""Data set bands + a model's mode -> the exact transform, compiled before any image is read and printed on request.

Units and bands are where benchmarks go wrong silently, so every rendering has a name, nothing is guessed, and what cannot
be compiled is an error that names the band and the remedy. Compiling needs no torch; only applying does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil, isfinite
from typing import TYPE_CHECKING

from models.common.card import Card, Clip, ClipToDeviations, Divide, DivideByMaximum, Mode, Step, ZScore
from models.common.errors import UserError
from models.common.spectral import Band, matches

if TYPE_CHECKING:
    from torch import Tensor

    from models.common.backbone import Batch

RENDERINGS = {
    ("dn", "reflectance"): "x / 10000",
    ("reflectance", "dn"): "x * 10000",
    ("dn", "uint8"): "clip(x / 10000, 0, 0.3) * 255 / 0.3",
    ("reflectance", "uint8"): "clip(x, 0, 0.3) * 255 / 0.3",
    ("fraction", "uint8"): "x * 255",
    ("uint8", "reflectance"): "x / 255",
    ("fraction", "reflectance"): "x",
}
MISSING_BANDS = ("error", "zero", "repeat")


@dataclass(frozen=True)
class Channel:
    """One channel of the model: the data set's band that fills it (None: zeros after normalisation) and its rendering."""

    wanted: str
    band: Band | None
    rendering: str = ""


@dataclass(frozen=True)
class Transform:
    """What happens between a patch in sensor units and the network: select, render, resize, normalise, in this order
    (or the last two the other way round, where the mode says so).

    `size` is `native` or a side in pixels; `fit` says how a height or width that `multiple` does not divide is mended
    (`resize` to the nearest multiple, or `pad` with zeros at the bottom and right). `notes` are warnings for the row.
    """

    mode: Mode
    channels: tuple[Channel, ...]
    steps: tuple[Step, ...]
    size: str | int
    fit: str
    notes: tuple[str, ...] = ()

    @property
    def read(self) -> tuple[str, ...]:
        """The data set's bands to read, each once, in the order in which the channels first use them."""
        return tuple(dict.fromkeys(channel.band.name for channel in self.channels if channel.band is not None))

    def sizes(self, height: int, width: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """For an image of this size: the size it is resized to, and the size the network sees (larger only if padded)."""
        if self.mode.shape == "fixed":
            return (self.mode.size, self.mode.size), (self.mode.size, self.mode.size)
        base = (height, width) if self.size == "native" else (int(self.size), int(self.size))
        multiple = self.mode.multiple
        if self.mode.shape == "square" and base[0] != base[1]:
            longer = max(base)
            if self.fit == "pad":
                padded = ceil(longer / multiple) * multiple
                return base, (padded, padded)
            base = (longer, longer)
        if self.fit == "pad":
            return base, (ceil(base[0] / multiple) * multiple, ceil(base[1] / multiple) * multiple)
        nearest = (max(1, round(base[0] / multiple)) * multiple, max(1, round(base[1] / multiple)) * multiple)
        return nearest, nearest

    def describe(self) -> list[str]:
        """The transform in words, one line per step: what `run -v` prints and every row keeps."""
        lines = [f"mode {self.mode.name} ({self.mode.sensor}), {len(self.channels)} bands"]
        for channel in self.channels:
            source = channel.band.name if channel.band else "zeros (missing band)"
            lines.append(f"  {channel.wanted} <- {source}{f': {channel.rendering}' if channel.rendering else ''}")
        size = "native size" if self.size == "native" else f"resize to {self.size} x {self.size}, bilinear, antialiased"
        if self.mode.multiple > 1:
            size += f"; sides to multiples of {self.mode.multiple} by {self.fit}"
        if self.mode.shape == "square":
            size += "; shorter sides to the longer one"
        if self.mode.shape == "fixed":
            size = f"resize to {self.mode.size} x {self.mode.size}, the only size, bilinear, antialiased"
        steps = [step.describe() for step in self.steps] or ["no normalisation"]
        lines += [*steps, size] if self.mode.resize == "last" else [size, *steps]
        return lines + [f"note: {note}" for note in self.notes]

    def __call__(self, patches: Tensor) -> Tensor:
        """Patches (B, len(read), H, W) in sensor units -> network input (B, len(channels), H', W'), float32."""
        import torch
        from torch.nn import functional

        patches = patches.float()
        position = {name: index for index, name in enumerate(self.read)}
        planes = [
            torch.zeros_like(patches[:, 0])
            if channel.band is None
            else _render(patches[:, position[channel.band.name]], channel.rendering)
            for channel in self.channels
        ]
        images = torch.stack(planes, dim=1)
        inner, seen = self.sizes(*images.shape[2:])
        if self.mode.resize == "last":
            images = self._normalise(images)
        if inner != tuple(images.shape[2:]):
            images = functional.interpolate(images, size=inner, mode="bilinear", align_corners=False, antialias=True)
        if self.mode.resize == "first":
            images = self._normalise(images)
        for index, channel in enumerate(self.channels):
            if channel.band is None:
                images[:, index] = 0
        return functional.pad(images, (0, seen[1] - inner[1], 0, seen[0] - inner[0])) if seen != inner else images

    def _normalise(self, images: Tensor) -> Tensor:
        names = tuple(channel.wanted for channel in self.channels)
        for step in self.steps:
            images = _apply(step, images, names)
        return images

    def batch(self, patches: Tensor, gsd: float) -> Batch:
        """Patches in sensor units -> the `Batch` a backbone takes; `gsd` (m) is that of the patches and is scaled with them."""
        from models.common.backbone import Batch

        sensor, bands = self.mode.sensor, [channel.band for channel in self.channels]
        inner, _ = self.sizes(*patches.shape[2:])
        return Batch(
            images={sensor: self(patches)},
            mode=self.mode.name,
            bands={sensor: tuple(channel.wanted for channel in self.channels)},
            wavelengths={sensor: tuple(band.wavelength if band else float("nan") for band in bands)},
            bandwidths={sensor: tuple(band.bandwidth if band else float("nan") for band in bands)},
            gsd=gsd * patches.shape[2] / inner[0],
        )


def compile_transform(
    card: Card,
    bands: Sequence[Band],
    *,
    normalisation: str = "model",
    input_size: str | int = "model",
    fit: str = "resize",
    missing_bands: str = "error",
    only_rgb: bool = False,
    swap_rgb_std: bool = False,
) -> Transform:
    """Compile the first of the card's modes that `bands` satisfy.

    `normalisation`: `model` (the card's), or `dataset` (z-score with the data set's statistics; also the stand-in where
    the card says `undocumented`). `missing_bands` is tried only when no mode is satisfied. `only_rgb` keeps modes whose bands
    are red, green, blue. `swap_rgb_std` repeats a slip of DEO's evaluation code, in which the standard deviations of the red
    and blue Sentinel-2 bands are exchanged. Raises `UserError` naming every mode's obstacle.
    """
    modes = [mode for mode in card.inputs if not mode.beside]  # one sensor is compiled; a joint mode wants several
    modes = [mode for mode in modes if not only_rgb or not mode.bands or mode.bands == ("red", "green", "blue")]
    if only_rgb:
        bands = [band for band in bands if any(matches(colour, band.name) for colour in ("red", "green", "blue"))]
    obstacles = []
    for policy in dict.fromkeys(("error", missing_bands)):
        for mode in modes:
            try:
                # The data set's own z-score is of its own unit, so that nothing is rendered before it.
                render = normalisation == "model" and mode.normalisation_source == "authors"
                channels = _select(mode, bands, policy, render)
                steps, notes = _steps(mode, channels, normalisation, swap_rgb_std)
            except UserError as obstacle:
                obstacles.append(f"{mode.name}: {obstacle}")
                continue
            size = input_size if input_size != "model" else (mode.size or "native")
            # A mode with more bands that fails for a unit is no small matter: the model sees less than it could.
            notes += tuple(f"{mode.name} is used instead of {said}" for said in obstacles if "in unit" in said)
            return Transform(mode, channels, steps, size, fit, notes + _left_out(mode, bands))
    if not modes:
        obstacles = ["it has no mode that takes red, green and blue alone"]
    raise UserError(f"{card.label} cannot read these bands ({'; '.join(dict.fromkeys(obstacles))})")


def _select(mode: Mode, bands: Sequence[Band], policy: str, render: bool) -> tuple[Channel, ...]:
    """Fill every channel of the mode from the data set's bands."""
    if not mode.bands:
        taken = [band for band in bands if "wavelength" not in mode.wants or isfinite(band.wavelength)]
        if not taken:
            raise UserError(f"the data set has no band of known wavelength ({', '.join(band.name for band in bands)})")
        return tuple(Channel(band.name, band) for band in taken)
    channels: list[Channel] = []
    missing = []
    for wanted in mode.bands:
        found = next((band for band in bands if matches(wanted, band.name)), None)
        if found is None:
            missing.append(wanted)
        channels.append(Channel(wanted, found, _rendering(found, mode.unit) if found and render else ""))
    if missing and policy == "error":
        raise UserError(f"the data set has no {', '.join(missing)}")
    if missing and policy == "repeat":
        channels = [channel if channel.band else _nearest(channel.wanted, mode, bands, render) for channel in channels]
    if all(channel.band is None for channel in channels):
        raise UserError("the data set has none of the bands")
    return tuple(channels)


def _nearest(wanted: str, mode: Mode, bands: Sequence[Band], render: bool) -> Channel:
    """`missing_bands=repeat`: the band nearest in wavelength takes the missing band's place."""
    from models.common.spectral import COMMON, SPECTRAL

    wavelength = SPECTRAL[COMMON.get(wanted, (wanted,))[0]].wavelength
    known = [band for band in bands if isfinite(band.wavelength)]
    if not known or not isfinite(wavelength):
        raise UserError(f"no band of known wavelength can stand in for {wanted}")
    band = min(known, key=lambda band: abs(band.wavelength - wavelength))
    return Channel(wanted, band, _rendering(band, mode.unit) if render else "")


def _rendering(band: Band, unit: str) -> str:
    if unit in ("any", band.unit):
        return ""
    if (band.unit, unit) not in RENDERINGS:
        raise UserError(
            f"{band.name} is in unit {band.unit!r} and no rendering leads to {unit!r}; "
            "`--set normalisation=dataset` z-scores it as it is"
        )
    return f"{band.unit} -> {unit}"


def _steps(
    mode: Mode, channels: tuple[Channel, ...], normalisation: str, swap_rgb_std: bool
) -> tuple[tuple[Step, ...], tuple[str, ...]]:
    """The mode's own steps, or the data set's z-score, with the notes that the row must carry."""
    authors = mode.normalisation_source == "authors"
    if normalisation == "model" and authors:
        return _fill(mode.normalisation, channels)
    if not mode.normalisation and mode.unit == "any" and authors:
        return (), ()
    undocumented = normalisation == "model" and mode.normalisation_source == "undocumented"
    notes = [f"normalisation of {mode.name} is undocumented: the data set's z-score stands in"] if undocumented else []
    mean, std, of_std = _statistics(channels)
    notes += of_std
    sources = [channel.band.name if channel.band else "" for channel in channels]
    if swap_rgb_std and "S2:B04" in sources and "S2:B02" in sources:
        red, blue = sources.index("S2:B04"), sources.index("S2:B02")
        std[red], std[blue] = std[blue], std[red]
        notes.append("standard deviations of S2:B04 and S2:B02 exchanged, as in DEO's evaluation code")
    return (ZScore(tuple(mean), tuple(std)),), tuple(notes)


def _left_out(mode: Mode, bands: Sequence[Band]) -> tuple[str, ...]:
    """The note on bands that a mode by wavelength cannot take."""
    unknown = [band.name for band in bands if not isfinite(band.wavelength)]
    if mode.bands or "wavelength" not in mode.wants or not unknown:
        return ()
    return (f"left out, since {mode.name} takes bands by wavelength and theirs is not known: {', '.join(unknown)}",)


def _fill(steps: tuple[Step, ...], channels: tuple[Channel, ...]) -> tuple[tuple[Step, ...], tuple[str, ...]]:
    """The steps with the data set's statistics, which are in the unit of its files, in those that ask for them."""
    if not any(isinstance(step, ClipToDeviations) and not step.mean for step in steps):
        return steps, ()
    assert not any(channel.rendering for channel in channels), "a mode that asks for statistics takes any unit"
    mean, std, notes = _statistics(channels)
    statistics = {"mean": tuple(mean), "std": tuple(std)}
    filled = (
        replace(step, **statistics) if isinstance(step, ClipToDeviations) and not step.mean else step for step in steps
    )
    return tuple(filled), tuple(notes)


def _statistics(channels: tuple[Channel, ...]) -> tuple[list[float], list[float], list[str]]:
    """Mean and std of every channel's band in the data set, with a note for each std that cannot divide."""
    mean, std, notes = [], [], []
    for channel in channels:
        band = channel.band or Band(channel.wanted, "", "any", mean=0.0, std=1.0)
        if not (isfinite(band.mean) and isfinite(band.std)):
            raise UserError(f"{band.name} has no statistics in the data set, so it cannot be z-scored")
        if band.std <= 0:
            notes.append(f"{band.name} has standard deviation {band.std:g} in the statistics; divided by 1 instead")
            band = replace(band, std=1.0)
        mean.append(band.mean)
        std.append(band.std)
    return mean, std, notes


def _render(plane: Tensor, rendering: str) -> Tensor:
    match rendering:
        case "" | "fraction -> reflectance":
            return plane
        case "dn -> reflectance":
            return plane / 10000
        case "reflectance -> dn":
            return plane * 10000
        case "dn -> uint8":
            return (plane / 10000).clamp(0, 0.3) * (255 / 0.3)
        case "reflectance -> uint8":
            return plane.clamp(0, 0.3) * (255 / 0.3)
        case "fraction -> uint8":
            return plane * 255
        case "uint8 -> reflectance":
            return plane / 255
    raise ValueError(f"no rendering {rendering!r}")


def _apply(step: Step, images: Tensor, names: tuple[str, ...]) -> Tensor:
    """One normalisation step on images (B, C, H, W) whose channels are called `names`."""
    match step:
        case Divide(by=by):
            return images / by
        case DivideByMaximum(bands=bands):
            index = [names.index(band) for band in bands]
            part = images[:, index]
            maximum = part.amax(dim=(1, 2, 3), keepdim=True)
            images = images.clone()
            images[:, index] = (part / maximum.where(maximum > 1e-6, 1)).clamp(0, 1)
            return images
        case ClipToDeviations(deviations=deviations, eight_bit=eight_bit, mean=mean, std=std):
            low = [m - deviations * s for m, s in zip(mean, std, strict=True)]
            span = [2 * deviations * s for s in std]
            images = (images - images.new_tensor(low).view(-1, 1, 1)) / images.new_tensor(span).view(-1, 1, 1)
            return (images * 255).clamp(0, 255).trunc() / 255 if eight_bit else images.clamp(0, 1)
        case Clip(low=low, high=high):
            return images.clamp(low, high)
        case ZScore(mean=mean, std=std):
            return (images - images.new_tensor(mean).view(-1, 1, 1)) / images.new_tensor(std).view(-1, 1, 1)
