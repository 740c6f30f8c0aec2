"""DOFA on TorchGeo's modules: a convolution generated from wavelengths, then timm's blocks."""

from torch import Tensor, cat
from torch.nn import functional
from torchgeo.models import dofa

from models.common.backbone import Backbone, Batch, tokens_to_map
from models.common.card import Card
from models.common.spectral import per_band


class Dofa(Backbone):
    """Any bands with their wavelengths, 224 x 224 pixels: the authors never resize the position table.

    `old_layout` reads generated kernels as weights from before September 2024 want it, for parity runs. `card.build`:
    `depth`, `heads`, `patch`, `grid`, and the authors' `wavelengths` (nm) by name for bands that the batch knows none of.
    """

    old_layout = False

    def __init__(self, card: Card) -> None:
        super().__init__(card)
        network = dofa.DOFA(
            img_size=card.build["patch"] * card.build["grid"],
            patch_size=card.build["patch"],
            embed_dim=card.width,
            depth=card.build["depth"],
            num_heads=card.build["heads"],
            num_classes=0,
        )
        self.cls_token, self.pos_embed = network.cls_token, network.pos_embed
        self.patch_embed, self.blocks = network.patch_embed, network.blocks

    def encode(self, batch: Batch) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
        """Four maps (B, 768, 14, 14) without norm, and vectors (B, 768).

        `default` = `mean` is the mean of the last patch tokens through a norm without weights (`fc_norm` is not in the
        file, whose own `norm` the authors do not use), `raw` that mean before the norm, `cls` the last class token.
        Raises `UserError` for a band without wavelength.
        """
        image = batch.images[self.card.mode(batch.mode).sensor]
        patches = self.patches(image, self.wavelengths(batch))
        grid = (patches.shape[2], patches.shape[3])
        tokens = patches.flatten(2).transpose(1, 2)
        tokens = cat([self.cls_token.expand(len(image), -1, -1), tokens], dim=1) + self.pos_embed
        outputs = []
        for index, block in enumerate(self.blocks):
            tokens = block(tokens)
            if index in self.card.blocks:
                outputs.append(tokens)
        mean = outputs[-1][:, 1:].mean(dim=1)
        normed = functional.layer_norm(mean, mean.shape[-1:], eps=1e-6)
        vectors = {"default": normed, "mean": normed, "raw": mean, "cls": outputs[-1][:, 0]}
        return tuple(tokens_to_map(output[:, 1:], grid) for output in outputs), vectors

    def wavelengths(self, batch: Batch) -> tuple[float, ...]:
        """One wavelength per band in nm."""
        mode = self.card.mode(batch.mode)
        names = batch.bands.get(mode.sensor) or mode.bands
        values, count = batch.wavelengths.get(mode.sensor, ()), batch.images[mode.sensor].shape[1]
        return per_band(self.card.label, "wavelengths", count, names, values, self.card.build["wavelengths"])

    def patches(self, image: Tensor, wavelengths: tuple[float, ...]) -> Tensor:
        """The image (B, C, 224, 224) through the convolution generated for its wavelengths (nm): (B, 768, 14, 14).

        Encoded in float32 and from micrometres, as in the authors' code: in float64, or without the detour, the long
        wavelength of radar comes out otherwise. The padding of one pixel is theirs too.
        """
        stem, patch = self.patch_embed, self.card.build["patch"]
        micrometres = image.new_tensor([wavelength / 1000 for wavelength in wavelengths])
        waves = stem.fclayer(dofa.position_embedding(stem.dynamic_embed_dim, micrometres * 1000))
        kernel, bias = stem.weight_generator(waves)
        if self.old_layout:
            kernel = kernel.view(self.card.width, len(wavelengths), patch, patch)
        else:
            kernel = kernel.view(len(wavelengths), patch, patch, self.card.width).permute(3, 0, 1, 2)
        bias = bias.view(self.card.width) * stem.scaler
        return functional.conv2d(image, kernel * stem.scaler, bias, stride=patch, padding=1)
