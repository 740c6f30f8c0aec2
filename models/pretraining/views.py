"""Random views of one image, all chance from a generator: crop, flip, colour jitter, grey, blur, solarise.

Images are float tensors (C, H, W) on any device; numbers are drawn on the device of the generator, so that the same
generator gives the same view wherever the image lies. The colour operations are for RGB in 0..1 and keep it there.
"""

from collections.abc import Sequence
from math import ceil, exp, log, sqrt

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.transforms.v2 import functional as vision


def uniform(low: float, high: float, generator: torch.Generator) -> float:
    """One number from U(low, high)."""
    return low + (high - low) * torch.rand((), generator=generator, device=generator.device).item()


def chance(probability: float, generator: torch.Generator) -> bool:
    """True with this probability; one number is drawn even for 0 and 1."""
    return torch.rand((), generator=generator, device=generator.device).item() < probability


def integer(below: int, generator: torch.Generator) -> int:
    """One of 0 .. below - 1."""
    return int(torch.randint(below, (), generator=generator, device=generator.device).item())


def resize(image: Tensor, size: tuple[int, int], mode: str = "bilinear") -> Tensor:
    """(..., H, W) to `size`, with antialias where it shrinks, as PIL resizes; bicubic may leave the range of the values."""
    flat = image.reshape(1, -1, *image.shape[-2:])
    resized = functional.interpolate(flat, size=size, mode=mode, align_corners=False, antialias=True)
    return resized.reshape(*image.shape[:-2], *size)


def crop_box(
    height: int, width: int, scale: Sequence[float], ratio: Sequence[float], generator: torch.Generator
) -> tuple[int, int, int, int]:
    """Top, left, height and width in pixels of a crop of `scale` (share of the area) and `ratio` (width over height).

    As torchvision's RandomResizedCrop: area and log ratio are uniform, ten tries, then the largest centred crop whose
    ratio is allowed.
    """
    for _ in range(10):
        area = height * width * uniform(scale[0], scale[1], generator)
        shape = exp(uniform(log(ratio[0]), log(ratio[1]), generator))
        wide, high = round(sqrt(area * shape)), round(sqrt(area / shape))
        if 0 < wide <= width and 0 < high <= height:
            return integer(height - high + 1, generator), integer(width - wide + 1, generator), high, wide
    wide, high = width, height
    if width / height < ratio[0]:
        high = min(height, round(width / ratio[0]))
    elif width / height > ratio[1]:
        wide = min(width, round(height * ratio[1]))
    return (height - high) // 2, (width - wide) // 2, high, wide


def random_resized_crop(
    image: Tensor,
    size: int,
    scale: Sequence[float],
    generator: torch.Generator,
    ratio: Sequence[float] = (3 / 4, 4 / 3),
) -> Tensor:
    """A random part of the image (C, H, W), resized to (C, size, size) by bicubic interpolation with antialias."""
    top, left, height, width = crop_box(image.shape[1], image.shape[2], scale, ratio, generator)
    return resize(image[:, top : top + height, left : left + width], (size, size), "bicubic")


def horizontal_flip(image: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """The image (C, H, W), mirrored left to right with this probability."""
    return image.flip(2) if chance(probability, generator) else image


def colour_jitter(image: Tensor, strengths: Sequence[float], probability: float, generator: torch.Generator) -> Tensor:
    """RGB (3, H, W) in 0..1 with brightness, contrast, saturation, hue changed in random order, as torchvision does.

    `strengths` are four: the first three factors are from U(1 - s, 1 + s), not below 0, the hue's shift from U(-s, s).
    """
    if not chance(probability, generator):
        return image
    order = torch.randperm(4, generator=generator, device=generator.device).tolist()
    brightness, contrast, saturation = (uniform(max(0.0, 1 - s), 1 + s, generator) for s in strengths[:3])
    hue = uniform(-strengths[3], strengths[3], generator)
    for which in order:
        if which == 0:
            image = vision.adjust_brightness(image, brightness)
        elif which == 1:
            image = vision.adjust_contrast(image, contrast)
        elif which == 2:
            image = vision.adjust_saturation(image, saturation)
        else:
            image = vision.adjust_hue(image, hue)
    return image


def grey(image: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """RGB (3, H, W), its three bands replaced by their luma (ITU-R 601) with this probability."""
    return vision.rgb_to_grayscale(image, 3) if chance(probability, generator) else image


def blur(
    image: Tensor, probability: float, generator: torch.Generator, sigma: Sequence[float] = (0.1, 2.0), kernel: int = 0
) -> Tensor:
    """The image (C, H, W), Gaussian-blurred with this probability by a sigma (pixels) from U(*sigma).

    `kernel` is the odd side of the window in pixels, 0 for all of the Gaussian that counts (four sigma). Edges are
    repeated, as PIL does.
    """
    if not chance(probability, generator):
        return image
    deviation = uniform(sigma[0], sigma[1], generator)
    reach = kernel // 2 if kernel else max(1, ceil(4 * deviation))
    offsets = torch.arange(-reach, reach + 1, dtype=torch.float32, device=image.device)
    weights = torch.exp(-0.5 * (offsets / deviation) ** 2)
    weights = (weights / weights.sum()).to(image.dtype)
    padded = functional.pad(image[None], (reach, reach, reach, reach), mode="replicate")[0, :, None]
    rows = functional.conv2d(padded, weights.view(1, 1, -1, 1))
    return functional.conv2d(rows, weights.view(1, 1, 1, -1))[:, 0]


def solarise(image: Tensor, probability: float, generator: torch.Generator, threshold: float = 128 / 255) -> Tensor:
    """Values in 0..1, those from `threshold` on replaced by 1 - x with this probability (PIL: 128 of 255)."""
    return torch.where(image < threshold, image, 1 - image) if chance(probability, generator) else image


def normalise(image: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """(x - mean) / std by band, for images (..., C, H, W)."""
    centre, spread = (image.new_tensor(values)[:, None, None] for values in (mean, std))
    return (image - centre) / spread
