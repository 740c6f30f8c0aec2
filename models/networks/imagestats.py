"""Band statistics behind the feature contract: no parameters, no weights."""

import torch
from torch import Tensor
from torch.nn import functional

from models.common.backbone import Backbone, Batch


class ImageStats(Backbone):
    """Mean, standard deviation and `card.build["quantiles"]` of each band; maps of local mean and standard deviation.

    With C bands: stages (B, 2C, ceil(H / stride), ceil(W / stride)), C means before C deviations, incomplete windows at
    the edge taken over the pixels they hold; the vector (B, nC) holds C means, C deviations, then C of each quantile.
    Deviations are those of the population, in the unit of the input, so that a single pixel has one (0).
    """

    def encode(self, batch: Batch) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
        """The four stages and the vector `default`, of whatever sensor the batch holds first."""
        image = next(iter(batch.images.values()))
        exact = image.double()  # sums of digital numbers over a window need more digits than float32 has
        stages = tuple(local_statistics(exact, stride).to(image.dtype) for stride in self.card.strides)
        pixels = exact.flatten(2)
        parts = [pixels.mean(dim=2), pixels.std(dim=2, correction=0)]
        if self.card.build["quantiles"]:
            at = torch.tensor(self.card.build["quantiles"], dtype=pixels.dtype, device=pixels.device)
            parts += torch.quantile(pixels, at, dim=2).unbind(0)
        return stages, {"default": torch.cat(parts, dim=1).to(image.dtype)}


def local_statistics(image: Tensor, window: int) -> Tensor:
    """Mean and standard deviation of each band (B, C, H, W) in windows of that side -> (B, 2C, rows, columns).

    In two passes, since the mean of squares less the square of the mean may come out below zero.
    """
    rows, columns = image.shape[2:]
    mean = functional.avg_pool2d(image, window, ceil_mode=True)
    spread = mean.repeat_interleave(window, dim=2).repeat_interleave(window, dim=3)[..., :rows, :columns]
    variance = functional.avg_pool2d((image - spread).square(), window, ceil_mode=True)
    return torch.cat([mean, variance.sqrt()], dim=1)
