"""Copernicus-FM on TorchGeo's modules: generated stem, metadata added to the positions, timm blocks."""

from functools import partial
from math import isqrt

import torch
from torch import Tensor, cat, nn
from torchgeo.models import copernicusfm

from models.common.backbone import Backbone, Batch
from models.common.card import Card
from models.common.errors import UserError
from models.common.spectral import per_band
from models.common.tokens import maps_and_vectors


class CopernicusFM(Backbone):
    """Any bands with their wavelengths and bandwidths (nm), square images.

    `kernel` is the patch size in pixels that the generated kernels are resized to (the authors' argument `kernel_size`).
    `per_sample` gives every image the metadata it has; without it one NaN hides a field from the whole batch, as in the
    authors' function. `card.build`: `depth`, `heads`, `patch`, `grid`, and the authors' `wavelengths` and `bandwidths`
    (nm) by name for bands that the batch knows none of.
    """

    per_sample = True

    def __init__(self, card: Card) -> None:
        super().__init__(card)
        fm = copernicusfm.CopernicusFM(
            img_size=card.build["patch"] * card.build["grid"],
            patch_size=card.build["patch"],
            embed_dim=card.width,
            depth=card.build["depth"],
            num_heads=card.build["heads"],
            global_pool=False,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),  # pyright: ignore[reportArgumentType]  it is only called
        )
        self.kernel = card.build["patch"]
        self.cls_token, self.pos_embed = fm.cls_token, fm.pos_embed
        self.coord_token, self.scale_token, self.time_token = fm.coord_token, fm.scale_token, fm.time_token
        self.coord_fc, self.scale_fc, self.time_fc = fm.coord_fc, fm.scale_fc, fm.time_fc
        self.coord_expansion, self.scale_expansion = fm.coord_expansion, fm.scale_expansion
        self.time_expansion = fm.time_expansion
        self.patch_embed_spectral, self.blocks, self.norm = fm.patch_embed_spectral, fm.blocks, fm.norm

    def encode(self, batch: Batch) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
        """Four maps (B, 768, H / kernel, W / kernel) without norm; vectors (B, 768): `default` = `cls`, `raw`, `mean`.

        Raises `UserError` for a band without wavelength or bandwidth, and for a place that is not on Earth.
        """
        mode = self.card.mode(batch.mode)
        image = batch.images[mode.sensor]
        patches = self.patch_embed_spectral(
            image,
            wavelengths=image.new_tensor(self.told(batch, "wavelengths", lower=100)),
            bandwidths=image.new_tensor(self.told(batch, "bandwidths", lower=1)),
            kernel_size=self.kernel,
        )
        side = isqrt(patches.shape[1])
        positions = copernicusfm.resize_abs_pos_embed(self.pos_embed, side, isqrt(self.pos_embed.shape[1] - 1))
        metadata = self.metadata(batch, image)
        rows = metadata.split(1) if self.per_sample else [metadata]
        positions = positions + cat([self.embed(row) for row in rows])
        tokens = cat([self.cls_token.expand(len(image), -1, -1), patches], dim=1) + positions
        outputs = []
        for index, block in enumerate(self.blocks):
            tokens = block(tokens)
            if index in self.card.blocks:
                outputs.append(tokens)
        return maps_and_vectors(outputs, self.norm, prefix=1, grid=(side, side), norm_stages=False)

    def told(self, batch: Batch, what: str, lower: float) -> tuple[float, ...]:
        """Wavelengths or bandwidths in nm, one per band, within what the Fourier features can tell apart."""
        mode = self.card.mode(batch.mode)
        names = batch.bands.get(mode.sensor) or mode.bands
        values = getattr(batch, what).get(mode.sensor, ())
        count = batch.images[mode.sensor].shape[1]
        found = per_band(self.card.label, what, count, names, values, self.card.build[what])
        for value in found:
            if not lower <= value <= 1e9:
                raise UserError(f"{self.card.label} takes {what} from {lower:g} to 1e9 nm, got {value:g}")
        return found

    def metadata(self, batch: Batch, image: Tensor) -> Tensor:
        """Longitude, latitude (degrees), days since 1970 and km2 of ground per patch: (B, 4) float32, NaN where unknown.

        An area outside the 0.001 to 5.1e8 km2 that the authors assert, as of patches of very fine images, is unknown.
        """
        unknown = torch.full((len(image),), float("nan"), device=image.device)
        location = unknown[:, None].expand(-1, 2) if batch.location is None else batch.location.float()
        if bool((location.abs() > location.new_tensor([180, 90])).any()):
            raise UserError(f"{self.card.label} got a location beyond 180 degrees of longitude or 90 of latitude")
        time = unknown if batch.time is None else batch.time.float()
        of_gsd = torch.full_like(unknown, (self.kernel * batch.gsd / 1000) ** 2)
        area = of_gsd if batch.area is None else batch.area.float()
        area = area.where((area >= 1e-3) & (area <= 5.1e8), unknown)
        return cat([location, time[:, None], area[:, None]], dim=1).to(image.device)

    def embed(self, metadata: Tensor) -> Tensor:
        """What is added to every position, (N, 1, 768), of metadata (N, 4); a NaN in a field hides it from all N.

        As the authors' function, which calls it on the batch; per image it is the same function on N = 1.
        """
        longitude, latitude, time, area = metadata.unbind(dim=1)
        width = self.card.width
        place: Tensor = self.coord_token
        if not bool(metadata[:, :2].isnan().any()):
            place = cat(
                [self.coord_expansion(longitude + 180, width // 2), self.coord_expansion(latitude + 90, width // 2)], 1
            )[:, None]
        scale = self.scale_token if bool(area.isnan().any()) else self.scale_expansion(area, width)[:, None]
        when = self.time_token if bool(time.isnan().any()) else self.time_expansion(time, width)[:, None]
        return self.coord_fc(place) + self.scale_fc(scale) + self.time_fc(when)
