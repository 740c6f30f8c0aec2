"""Model cards: what a model eats, where its weights are, what it costs. Standard library only: `list` answers at once."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from models.common.errors import choose


@dataclass(frozen=True)
class Divide:
    """x / by, elementwise (255 turns uint8 into 0..1)."""

    by: float

    def describe(self) -> str:
        return f"divide by {self.by:g}"


@dataclass(frozen=True)
class DivideByMaximum:
    """Divide `bands` of each image by their joint maximum over that image (if above 1e-6), then clamp them to 0..1.

    Source: DEO, `DataAugmentationDINOMS` of the release (per crop); it makes the bands independent of their unit.
    """

    bands: tuple[str, ...]

    def describe(self) -> str:
        return f"divide {', '.join(self.bands)} by their joint maximum in the image, clamp to 0..1"


@dataclass(frozen=True)
class Clip:
    """Limit every value to `low`..`high`."""

    low: float
    high: float

    def describe(self) -> str:
        return f"clip to {self.low:g}..{self.high:g}"


@dataclass(frozen=True)
class ZScore:
    """(x - mean) / std per band, in the order of the mode's bands."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def describe(self) -> str:
        pairs = zip(self.mean, self.std, strict=True)
        return "z-score with mean/std " + ", ".join(f"{mean:.6g}/{std:.6g}" for mean, std in pairs)


@dataclass(frozen=True)
class ClipToDeviations:
    """Map mean -+ `deviations` std of each band to 0..1 and clip; with `eight_bit` through 0..255, truncated to integers.

    Empty `mean` and `std` stand for the data set's statistics, which compiling fills in.
    """

    deviations: float = 2.0
    eight_bit: bool = True
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def describe(self) -> str:
        whose = "of the data set"
        if self.mean:
            pairs = zip(self.mean, self.std, strict=True)
            whose = ", ".join(f"{mean:.6g}/{std:.6g}" for mean, std in pairs)
        ending = ", in 255 steps, truncated" if self.eight_bit else ""
        return f"clip to mean -+ {self.deviations:g} std and scale to 0..1{ending}; mean/std {whose}"


Step = Divide | DivideByMaximum | ZScore | ClipToDeviations | Clip


@dataclass(frozen=True)
class Mode:
    """One way of feeding a model: which bands, in which unit, scaled how, at which size.

    `bands` are canonical (`S2:B04`) or common (`red`) names in the model's order; empty means whatever the data set has.
    `unit` is what `normalisation` expects: `dn` (reflectance x 10000), `reflectance`, `uint8`, `db`, or `any` when the
    normalisation does not depend on it. `size` is the pretraining size in pixels (0: none, images are taken as they are),
    `multiple` what height and width must be divisible by, `shape` whether they may differ (`any`), must be equal
    (`square`) or must both be `size` (`fixed`). `normalisation_source` is `authors`, `dataset` (the authors z-score with
    the statistics of the data set), or `undocumented` (then the data set's z-score stands in). `wants` names what the
    network is told beside the pixels: `wavelength`, `bandwidth`, `gsd`, `location`, `time`, `area`. A mode of several
    sensors has the further ones `beside` it, each as a mode of its own; it is for batches that hold them all.
    `resize` says whether images are resized before the normalisation (`first`) or after it (`last`), which differs where
    a step clips.
    """

    name: str
    bands: tuple[str, ...]
    unit: str
    normalisation: tuple[Step, ...]
    size: int
    multiple: int
    normalisation_source: str = "authors"
    sensor: str = "optical"
    shape: str = "any"
    wants: tuple[str, ...] = ()
    beside: tuple["Mode", ...] = ()
    resize: str = "first"


@dataclass(frozen=True)
class Checkpoint:
    """Where the official weights are, and how the state dict sits in the file.

    `fetch`: `hub` (needs `repo`), `https` (needs `url`), `manual` (the caller downloads; `where` says from where), or
    `none` (nothing to load). `container`: keys to descend, each optional in the file. `parts`: entries that are state
    dicts of their own, whose keys get the entry's name in front. `strip`: removed from key names, anywhere, in this
    order. `ignore`: prefixes of entries that features do not need. `sha256`: where published, or its beginning.
    `folders`: for a file that is a zip of a diffusers folder, the folder of every network in it, by the prefix that its
    entries get; the folder itself may then be given in place of the file.
    """

    fetch: str
    file: str = ""
    where: str = ""
    repo: str = ""
    revision: str = ""
    url: str = ""
    sha256: str = ""
    container: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    strip: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    folders: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Card:
    """Who a model is. `variants` maps each variant's name (the first is the default) to the fields it changes.

    `blocks` are the 0-based blocks whose outputs are the four stages (hierarchical backbones: stage numbers);
    `channels` and `strides` describe the stages, `width` the pooled vector; with `per_band` both count per band of the
    input. `build` holds constructor facts for the adapter alone; `source` is the path of a caller's own adapter file.
    `necks` names what the adapter offers to be trained between stages and head (the first is usual).
    `revision` rises when the adapter is corrected, so that old rows are not taken for new ones.
    """

    name: str
    title: str
    inputs: tuple[Mode, ...]
    checkpoint: Checkpoint
    channels: tuple[int, int, int, int]
    strides: tuple[int, int, int, int]
    width: int
    licence: str
    paper: str
    blocks: tuple[int, ...] = ()
    parameters_millions: float = 0.0
    gmacs: str = ""
    pretraining_data: str = ""
    published_as: tuple[str, ...] = ()
    per_band: bool = False
    necks: tuple[str, ...] = ()
    revision: int = 1
    build: Mapping[str, Any] = field(default_factory=dict)
    variants: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: {"default": {}})
    variant: str = ""
    source: str = ""

    def choose_variant(self, name: str = "") -> "Card":
        """Return the card of one variant (the default one for an empty name); unknown names raise a `UserError`."""
        name = choose(f"variant of {self.name}", name, self.variants) if name else next(iter(self.variants))
        return replace(self, variant=name, **self.variants[name])

    @property
    def address(self) -> str:
        """What `models.build` takes: name and variant, with the path in place of the name for an adapter file."""
        return f"{self.source or self.name}:{self.variant}"

    @property
    def label(self) -> str:
        """`name` for the default variant, else `name:variant`, as on the command line."""
        return self.name if self.variant in ("", next(iter(self.variants))) else f"{self.name}:{self.variant}"

    def mode(self, name: str) -> Mode:
        """Return the input mode of this name."""
        modes = {mode.name: mode for mode in self.inputs}
        return modes[choose(f"input mode of {self.label}", name, modes)]
