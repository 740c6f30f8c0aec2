"""The views of X-STARS: DINO's crops of one sensor, and the full scene of every sensor for MSAD.

As `DataAugmentationDINO` and `CustomImageFolder` of the release, on tensors: an item there is one sensor at one location,
and all items are shuffled; here it is a location, and its sensor for the crops is drawn.
"""

import torch
from torch import Tensor

from models.common.errors import UserError
from models.pretraining import views
from models.pretraining.builder import Sample
from models.pretraining.xstars_recipe import Sensor, XstarsRecipe

SCENE = "scene."  # what the full scene of a sensor is called, with the sensor's name behind it


def xstars_views(recipe: XstarsRecipe, sample: Sample, generator: torch.Generator) -> dict[str, Tensor]:
    """`global` (2, 3, S, S) and `local` (n, 3, s, s) crops of one sensor, `scene.<sensor>` (3, S, S) where MSAD is on.

    `sample` holds images (3, H, W) in 0..1 by sensor, those of one place, of any sizes; further sensors are passed over.
    The scenes are resized whole, whatever their sides, which is how the paper aligns them. Raises `UserError` for a
    sample without a needed sensor, and for images that are not RGB in 0..1.
    """
    there = [name for name in recipe.crop_sensors if name in sample]
    missing = [name for name in recipe.scene_sensors or recipe.crop_sensors[:1] if name not in sample]
    if missing and (recipe.scene_sensors or not there):
        raise UserError(
            f"an image of {', '.join(missing)} is missing in a sample that has {', '.join(sample) or 'none'}: give co-located "
            f"images of {', '.join(recipe.sensors)}"
        )
    sensor = there[views.integer(len(there), generator)]
    image = checked(sample[sensor], sensor)
    statistics = recipe.sensor(sensor) if recipe.crop_statistics == "sensor" else recipe.joint()
    crops = [global_crop(recipe, image, number, generator) for number in range(2)]
    found = {"global": normalised(torch.stack(crops), statistics)}
    if recipe.local_crops:
        small = [local_crop(recipe, image, generator) for _ in range(recipe.local_crops)]
        found["local"] = normalised(torch.stack(small), statistics)
    for name in recipe.scene_sensors:
        found[SCENE + name] = scene(recipe, checked(sample[name], name), name)
    return found


def scene(recipe: XstarsRecipe, image: Tensor, sensor: str) -> Tensor:
    """An un-augmented full scene (3, H, W) -> (3, S, S), bilinear, z-scored once or twice as the recipe says."""
    resized = views.resize(image, (recipe.input_size, recipe.input_size))
    if recipe.scene_normalisation == "twice":
        resized = normalised(resized, recipe.joint())
    return normalised(resized, recipe.sensor(sensor))


def global_crop(recipe: XstarsRecipe, image: Tensor, number: int, generator: torch.Generator) -> Tensor:
    """The first (0) or second (1) global view (3, S, S) in 0..1; the second may be solarised."""
    crop = augmented(recipe, image, recipe.input_size, recipe.global_scale, recipe.blur[number], generator)
    return views.solarise(crop, recipe.solarise, generator, recipe.solarise_threshold) if number else crop


def local_crop(recipe: XstarsRecipe, image: Tensor, generator: torch.Generator) -> Tensor:
    """A local view (3, s, s) in 0..1."""
    return augmented(recipe, image, recipe.local_size, recipe.local_scale, recipe.blur[2], generator)


def augmented(
    recipe: XstarsRecipe, image: Tensor, size: int, scale: tuple[float, float], blur: float, generator: torch.Generator
) -> Tensor:
    """Crop, flip, jitter, grey, blur in DINO's order."""
    crop = views.random_resized_crop(image, size, scale, generator).clamp(0, 1)  # bicubic overshoots; PIL clips it too
    crop = views.horizontal_flip(crop, recipe.flip, generator)
    crop = views.colour_jitter(crop, recipe.jitter, recipe.jitter_probability, generator)
    crop = views.grey(crop, recipe.grey, generator)
    return views.blur(crop, blur, generator, recipe.blur_sigma)


def normalised(image: Tensor, statistics: Sensor) -> Tensor:
    """(x - mean) / std of one sensor's or of the joint statistics, for (..., 3, H, W)."""
    return views.normalise(image, statistics.mean, statistics.std)


def checked(image: Tensor, sensor: str) -> Tensor:
    """The image, if it is RGB in 0..1; NaN is refused with it."""
    if image.ndim != 3 or image.shape[0] != 3 or not image.is_floating_point():
        raise UserError(
            f"X-STARS wants float images (3, H, W), and that of {sensor} is {image.dtype} {tuple(image.shape)}"
        )
    low, high = torch.aminmax(image)
    if not (low >= 0 and high <= 1):
        raise UserError(f"X-STARS wants RGB in 0..1, and an image of {sensor} has {low.item():g}..{high.item():g}")
    return image
