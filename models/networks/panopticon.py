"""Panopticon: TorchGeo's patch embedding with attention over channels, in front of a plain ViT."""

from torch import Tensor, cat
from torchgeo.models.panopticon import PanopticonPE

from models.common.backbone import Batch
from models.common.card import Card
from models.common.errors import UserError
from models.common.spectral import per_band
from models.common.tokens import VitShape, resize_positions
from models.networks.vit import PlainViT


class Panopticon(PlainViT):
    """Any bands with a channel id each: a wavelength in nm, or the authors' negative number of a radar channel.

    `card.build` as in `PlainViT`, and the ids under `wavelengths` by name for bands that the batch knows none of.
    """

    def __init__(self, card: Card, shape: VitShape) -> None:
        super().__init__(card, shape, stems={})
        self.patch_embed = PanopticonPE(
            attn_dim=3 * card.width,
            embed_dim=card.width,
            patch_size=shape.patch,
            chnfus_cfg={"attn_cfg": {"num_heads": 16}},
        )

    def channels(self, batch: Batch) -> tuple[float, ...]:
        """One id per band. Raises `UserError` for a band without one, and for a radar id that does not exist."""
        mode = self.card.mode(batch.mode)
        names = batch.bands.get(mode.sensor) or mode.bands
        values, count = batch.wavelengths.get(mode.sensor, ()), batch.images[mode.sensor].shape[1]
        found = per_band(self.card.label, "wavelengths", count, names, values, self.card.build["wavelengths"])
        for value in found:
            if value < 0 and value not in range(-12, 0):
                raise UserError(
                    f"{self.card.label} takes wavelengths in nm or ids of radar channels, -1..-12, got {value:g}"
                )
        return found

    def embed(self, batch: Batch) -> tuple[Tensor, tuple[int, int]]:
        """Tokens with their positions (B, 1 + rows*columns, C), class token first, and the grid (rows, columns)."""
        image = batch.images[self.card.mode(batch.mode).sensor]
        # A tensor of our own for each call: the channel embedding floors the ids in place.
        ids = image.new_tensor(self.channels(batch)).repeat(len(image), 1)
        patches = self.patch_embed({"imgs": image, "chn_ids": ids})
        tokens = cat([self.cls_token.expand(len(image), -1, -1), patches], dim=1)
        grid = (image.shape[2] // self.patch, image.shape[3] // self.patch)
        return tokens + resize_positions(self.pos_embed, (image.shape[2], image.shape[3]), self.patch), grid
