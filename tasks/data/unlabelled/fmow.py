"""fMoW-Sentinel (Cong et al. 2022) and fMoW-RGB (Christie et al. 2018) as distributed, and the rules that pair them.

    fmow-sentinel/train/airport/airport_0/airport_0_0.tif            13 bands, Sentinel-2's order
    fmow-rgb/train/airport/airport_0/airport_0_0_rgb.jpg             (and ..._msrgb.jpg, which is not read)

DEO replaces the optical bands of 150,000 of its 500,000 images by fMoW-RGB of the same place. Which rule made the pairs
is not known; the first author's scripts (github.com/wolfilip/satmae_experiments) have two, both within one instance
folder: `cycle`, sorted image i with sorted RGB i, the shorter list repeated until the longer one ends; and `exact`, equal
file stems once `_rgb` is taken off.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from models.common.errors import UserError, choose
from tasks.data.unlabelled.geotiff import RGB, Bands, colour, digital_numbers
from tasks.data.unlabelled.images import SENTINEL2, TEN, Images, Sample, sized

RULES = ("cycle", "exact")
RGB_SUFFIX = "_rgb"
BANDS = Bands(SENTINEL2, "fMoW-Sentinel's order")


class Pair(NamedTuple):
    """One sample: a Sentinel-2 image, and an RGB image of the same place or None."""

    image: Path
    rgb: Path | None


def instances(files: Sequence[Path]) -> dict[tuple[str, str], list[Path]]:
    """Files by class and instance folder, the names of the two folders they lie in; sorted within."""
    found: dict[tuple[str, str], list[Path]] = {}
    for file in sorted(files):
        found.setdefault((file.parent.parent.name.lower(), file.parent.name), []).append(file)
    return found


def is_instance(file: Path) -> bool:
    """True for `<class>/<class>_<n>/<class>_<n>_<m>...`, the naming of both sets."""
    instance, kind = file.parent.name, file.parent.parent.name
    return file.name.startswith(f"{instance}_") and instance.startswith(f"{kind}_") and instance != kind


def rgb_images(files: Sequence[Path]) -> list[Path]:
    """The true-colour images among the files of fMoW-RGB: those whose stem ends in `_rgb`."""
    return [file for file in files if file.stem.endswith(RGB_SUFFIX)]


def pair(images: Sequence[Path], rgb: Sequence[Path], rule: str) -> list[Pair]:
    """Every image at least once, with its partner where the rule finds one, ordered by class and instance."""
    choose("pairing rule", rule, RULES)
    colours, pairs = instances(rgb), []
    for key, own in instances(images).items():
        others = colours.get(key, [])
        if rule == "exact":
            by_stem = {other.stem.removesuffix(RGB_SUFFIX): other for other in others}
            pairs += [Pair(image, by_stem.get(image.stem)) for image in own]
        elif others:
            count = max(len(own), len(others))
            pairs += [Pair(own[i % len(own)], others[i % len(others)]) for i in range(count)]
        else:
            pairs += [Pair(image, None) for image in own]
    return pairs


def open_pairs(
    root: Path, images: Sequence[Path], rgb_root: Path, rgb: Sequence[Path], rule: str, share: float
) -> Images:
    """Samples `{"ms": ..., "rgb": ...}`; at most a `share` of all keeps its RGB, told by a hash of the name.

    A share is reached as nearly as the hash allows; the paper's is 150,000 of 500,000.
    """
    pairs = pair(images, rgb, rule)
    names = [f"{one.image.relative_to(root).as_posix()}{_beside(one, rgb_root)}" for one in pairs]
    paired = sum(one.rgb is not None for one in pairs)
    if not paired:
        raise UserError(
            f"no image of {rgb_root} has a partner in {root} under the rule {rule!r}: same class and folder"
        )
    kept = min(1.0, share * len(pairs) / paired)
    pairs = [one if one.rgb and fraction(name) < kept else Pair(one.image, None) for one, name in zip(pairs, names)]
    used = sum(one.rgb is not None for one in pairs)

    def read(number: int) -> Sample:
        one = pairs[number]
        sample = digital_numbers(one.image, BANDS)
        return sample | ({"rgb": colour(one.rgb, Bands(RGB, "red, green, blue"))} if one.rgb else {})

    return Images(
        layout=f"fMoW-Sentinel with fMoW-RGB, paired by the rule {rule!r}: {len(pairs)} samples, {used} with RGB; "
        f"bands {', '.join(TEN)}",
        sensors=("ms", "rgb"),
        names=tuple(names),
        files=sized(root, images) + sized(rgb_root, rgb),
        reader=read,
        notes=(f"{paired} of {len(pairs)} samples have a partner in fMoW-RGB; {used} of them are used",),
    )


def fraction(name: str) -> float:
    """A number in 0..1 that belongs to a name: the same on every machine, evenly spread."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) / 2**64


def _beside(one: Pair, rgb_root: Path) -> str:
    return f" + {one.rgb.relative_to(rgb_root).as_posix()}" if one.rgb else ""
