"""The views of DEO's pretraining: crops of ten bands, and heavy augmentation of red, green and blue.

Follows `DataAugmentationDINOMS` of the release, in its order of steps; all chance is from the generator.
"""

import torch
from torch import Tensor
from torch.nn import functional

from models.common.errors import UserError
from models.deo import BANDS, MEAN, STD
from models.pretraining.builder import Sample
from models.pretraining.deo_recipe import DeoRecipe
from models.pretraining.views import (
    blur,
    chance,
    colour_jitter,
    crop_box,
    grey,
    horizontal_flip,
    normalise,
    resize,
    uniform,
)

STORED = (2, 1, 0)  # Sentinel-2's order of the three optical bands, from red, green, blue


def views(recipe: DeoRecipe, sample: Sample, generator: torch.Generator) -> dict[str, Tensor]:
    """All views of one image, normalised: `global_ms` (G, 10, S, S) and `local_ms` (L, 10, s, s).

    `sample` has `ms` (10, H, W) in digital numbers, red, green and blue first, and maybe `rgb` (3, H', W') of the same
    ground in any unit. Where the optical branch sees other RGB than the MS branch, `global_rgb` (G, 3, S, S) and
    `local_rgb` (L, 3, s, s) come too; otherwise its RGB are the first three bands. Without local views there are no
    `local_*`. Raises `UserError` for images of another number of bands.
    """
    found: dict[str, list[Tensor]] = {}
    sizes = [recipe.global_size] * recipe.global_views + [recipe.local_size] * recipe.local_views
    for number, size in enumerate(sizes):
        kind = "global" if number < recipe.global_views else "local"
        bands = crop(recipe, sample, size, recipe.global_scale if kind == "global" else recipe.local_scale, generator)
        plain = scale_to_maximum(bands[:3])
        heavy = augment(recipe, plain, number, generator) if recipe.rgb_aug else plain
        in_ms = heavy if recipe.ms_branch_rgb == "augmented" else plain
        found.setdefault(f"{kind}_ms", []).append(normalise(torch.cat([in_ms, bands[3:]]), MEAN, STD))
        if recipe.separate_rgb:
            found.setdefault(f"{kind}_rgb", []).append(normalise(heavy, MEAN[:3], STD[:3]))
    return {name: torch.stack(images) for name, images in found.items()}


def crop(
    recipe: DeoRecipe, sample: Sample, size: int, scale: tuple[float, float], generator: torch.Generator
) -> Tensor:
    """One crop (10, size, size) of all bands, flipped or not; the optical ones from the RGB image where it takes over.

    The same part of the ground is cut from both and each is resized by itself, so that a finer RGB image stays finer.
    (The release trains on a file in which this is done already; how, it does not say.)
    """
    image = sample["ms"]
    if image.shape[0] != len(BANDS):
        raise UserError(f"DEO trains on {len(BANDS)} bands ({', '.join(BANDS)}), got an image of {image.shape[0]}")
    top, left, height, width = crop_box(image.shape[1], image.shape[2], scale, recipe.crop_ratio, generator)
    bands = resize(image[:, top : top + height, left : left + width].float(), (size, size), "bicubic")
    if recipe.hr_rgb and "rgb" in sample:
        rgb = sample["rgb"]
        if rgb.shape[0] != 3:
            raise UserError(f"an RGB image has 3 bands, got {rgb.shape[0]}")
        fine_rows, fine_columns = rgb.shape[1] / image.shape[1], rgb.shape[2] / image.shape[2]
        rows = slice(round(top * fine_rows), max(round((top + height) * fine_rows), round(top * fine_rows) + 1))
        columns = slice(
            round(left * fine_columns), max(round((left + width) * fine_columns), round(left * fine_columns) + 1)
        )
        bands = torch.cat([resize(rgb[:, rows, columns].float(), (size, size), "bicubic"), bands[3:]])
    if recipe.bands == "as_stored":
        bands = torch.cat([bands[list(STORED)], bands[3:]])
    return horizontal_flip(bands, recipe.flip, generator)


def scale_to_maximum(rgb: Tensor) -> Tensor:
    """(3, H, W) divided by its own maximum, if that is above 1e-6, and clamped to 0..1: what the adapter does to images."""
    maximum = rgb.amax()
    return (rgb / maximum.where(maximum > 1e-6, 1)).clamp(0, 1)


def augment(recipe: DeoRecipe, rgb: Tensor, number: int, generator: torch.Generator) -> Tensor:
    """View `number` of RGB (3, H, W) in 0..1: jitter, grey, blur, and solarise in global views but the first."""
    first, local = number == 0, number >= recipe.global_views
    rgb = colour_jitter(rgb, recipe.jitter_strengths, recipe.jitter, generator)
    rgb = grey(rgb, recipe.gray, generator)
    probability = recipe.blur[2 if local else 0 if first else 1]
    # kornia reflects the image at its edges; `blur` would repeat the edge.
    reach = recipe.blur_kernel // 2
    padded = functional.pad(rgb[None], (reach, reach, reach, reach), mode="reflect")[0] if probability else rgb
    if probability:
        blurred = blur(padded, probability, generator, recipe.blur_sigma, recipe.blur_kernel)
        rgb = blurred[:, reach:-reach, reach:-reach] if reach else blurred
    return rgb if first or local else solarise(rgb, recipe.solarise, generator)


def solarise(rgb: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """RGB in 0..1, solarised with this probability as kornia's `RandomSolarize(thresholds=0.5)` does.

    A number from U(-0.1, 0.1) is added and the sum clamped to 0..1; then values not below a threshold from U(0, 1), and
    not one of 0.5, are replaced by 1 - x.
    """
    if not chance(probability, generator):
        return rgb
    threshold, addition = uniform(0.0, 1.0, generator), uniform(-0.1, 0.1, generator)
    shifted = (rgb + addition).clamp(0, 1)
    return shifted.where(shifted < threshold, 1 - shifted)
