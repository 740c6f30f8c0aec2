"""Images of coloured blocks, for twins of sets whose scenes do not matter: a colour per class, which a probe can learn.

Blocks keep large images small on disk. Nothing here resembles the ground.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


def colour(number: int, channels: int) -> "np.ndarray":
    """The mean of class `number` in every channel, between 40 and 210, far apart for small numbers."""
    import numpy as np

    steps = np.arange(1, channels + 1)
    return 40 + 170 * ((steps * 0.7548777 + number * 0.5698403 * steps) % 1)


def scene(rng: "np.random.Generator", number: int, height: int, width: int, blocks: int) -> "np.ndarray":
    """An image (3, height, width), uint8, of one class: its colour in `blocks` x `blocks` shades."""
    import numpy as np

    shades = colour(number, 3)[:, None, None] + rng.normal(0, 18, (3, blocks, blocks))
    return _enlarged(np.clip(shades, 0, 255).astype(np.uint8), height, width)


def fields(rng: "np.random.Generator", classes: int, height: int, width: int, blocks: int) -> "np.ndarray":
    """A map (height, width) of class numbers from 0, in `blocks` x `blocks` fields."""
    return _enlarged(rng.integers(0, classes, (blocks, blocks)), height, width)


def painted(rng: "np.random.Generator", classes: "np.ndarray", channels: int) -> "np.ndarray":
    """A map (H, W) in the colours of its classes, (channels, H, W) from 0 to 255, with noise in blocks."""
    import numpy as np

    height, width = classes.shape
    palette = np.stack([colour(number, channels) for number in range(int(classes.max()) + 1)])
    noise = _enlarged(rng.normal(0, 9, (32, 32)), height, width)
    return np.clip(np.moveaxis(palette[classes], -1, 0) + noise, 0, 255)


def save(path: Path, image: "np.ndarray") -> None:
    """Write (3, H, W), uint8, as JPEG or PNG, by the suffix."""
    import numpy as np
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    options: dict[str, Any] = {"quality": 90} if path.suffix == ".jpg" else {"compress_level": 1}
    Image.fromarray(np.ascontiguousarray(np.moveaxis(image, 0, -1))).save(path, **options)


def _enlarged(image: "np.ndarray", height: int, width: int) -> "np.ndarray":
    """(..., h, w) to (..., height, width), the nearest value each."""
    import numpy as np

    rows, columns = np.arange(height) * image.shape[-2] // height, np.arange(width) * image.shape[-1] // width
    return image[..., rows, :][..., columns]
