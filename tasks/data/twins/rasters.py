"""What the twins write with: GeoTIFF and PNG, and a generator of its own for every image."""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


def generator(seed: int, *place: int) -> "np.random.Generator":
    """A stream of its own per image, so that one image can change without the others."""
    import numpy as np

    return np.random.default_rng((seed, *place))


def save(path: Path, image: "np.ndarray", names: tuple[str, ...] = (), **profile: Any) -> None:
    """Write (C, H, W), or (H, W) as one band, in the format of the suffix; `profile` goes to rasterio."""
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning

    image = image[None] if image.ndim == 2 else image
    path.parent.mkdir(parents=True, exist_ok=True)
    driver = {".tif": "GTiff", ".png": "PNG"}[path.suffix]
    if driver == "GTiff":
        profile = {"compress": "deflate", **profile}
    count, height, width = image.shape
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(
            path, "w", driver=driver, count=count, height=height, width=width, dtype=image.dtype, **profile
        ) as target:
            target.write(image)
            if names:
                target.descriptions = names


def photograph(image: "np.ndarray", scale: float = 0.09) -> "np.ndarray":
    """Blue, green and red of thirteen bands in DN (`scenes.expose`) as an RGB picture, (3, H, W) uint8."""
    import numpy as np

    return (image[[3, 2, 1]] * scale).clip(0, 255).astype(np.uint8)
