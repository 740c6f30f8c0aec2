"""SatDiFuser's frozen half: a clean image is inverted through the first steps of diffusion and the UNet's maps are kept.

The image is encoded to a latent, the latent is noised step by step by the network's own prediction (DDIM inversion, 50
steps in all, as many as the noisiest kept one needs), and at each kept step the UNet's up levels give four maps.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from models.common.backbone import Backbone, Batch
from models.common.card import Card
from models.common.errors import choose
from models.networks.diffusion import Size, UNet
from models.networks.diffusion_encoders import TextEncoder, Vae
from models.networks.satdifuser_fusers import FUSERS, Fuser, Layers

STEPS, TRAINED_STEPS = 50, 1000
LATENT_SCALE = 0.18215
SEED = 42
# Names of the VAE's attention in files older than diffusers 0.17, whose values may be 1 x 1 convolutions.
OLDER = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def alphas() -> Tensor:
    """The share of signal left after each of the 1000 training steps, float32 (scaled linear 0.00085..0.012)."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, TRAINED_STEPS, dtype=torch.float32) ** 2
    return (1 - betas).cumprod(dim=0)


def timesteps() -> list[int]:
    """The 50 timesteps of inversion from clean to noisy: 1, 21, ..., 981. The authors count them the other way."""
    return list(range(1, TRAINED_STEPS, TRAINED_STEPS // STEPS))


def inversion(save: Sequence[int]) -> list[int]:
    """The timesteps at which the UNet is called to reach every index of `save` (49 is clean): -1, 1, 21, ..."""
    return [-1, *timesteps()][: STEPS - min(save)]


def clean(x: Tensor, noise: Tensor, signal: Tensor) -> Tensor:
    """The clean latent that `x` and the predicted noise imply, where `signal` is left of it."""
    return (x - noise * (1 - signal).sqrt()) / signal.sqrt()


def invert(
    unet: UNet, latents: Tensor, prompt: Tensor, save: Sequence[int]
) -> dict[int, tuple[tuple[Tensor, ...], Tensor]]:
    """Latents (B, 4, h, w), prompt (B, 77, C) -> for every index in `save` the UNet's four maps and its clean latent.

    Index 49 - i is step i. The step from t to t + 20 uses the UNet at t, and the first one starts from timestep -1,
    where all is signal. The prediction is taken for noise, although Stable Diffusion 2.1 predicts velocity: so do the
    authors, and what is kept depends on it.
    """
    signal = alphas().to(latents.device)
    found, x, here = {}, latents, signal.new_ones(())
    called = inversion(save)
    for step, (t, after) in enumerate(zip(called, timesteps(), strict=False)):
        noise, maps = unet(x, torch.full((len(x),), float(t), device=x.device), prompt)
        start = clean(x, noise, here)
        if STEPS - 1 - step in save:
            found[STEPS - 1 - step] = (maps, start)
        here = signal[after]
        x = here.sqrt() * start + (1 - here).sqrt() * noise
    return found


class SatDiFuser(Backbone):
    """The three frozen networks of DiffusionSat under `unet.`, `vae.` and `text_encoder.`; images of 64 n x 64 m pixels.

    `card.build`: `save`, the kept indices from clean to noisy, and `prompt`, the token ids.
    """

    def __init__(self, card: Card, size: Size) -> None:
        super().__init__(card)
        self.save = tuple(sorted(card.build["save"], reverse=True))
        self.layers = layers(size)
        self.unet, self.vae, self.text_encoder = UNet(size), Vae(size), TextEncoder(size)
        millions = sum(parameter.numel() for parameter in self.parameters()) / 1e6
        widths = [sum(of_scale) for of_scale in self.layers]
        channels = tuple(len(self.save) * width for width in widths)
        # The card follows the size: random weights fill a smaller network than it speaks of.
        self.card = replace(card, channels=channels, width=sum(widths), parameters_millions=round(millions, 1))

    def convert(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Rename the VAE's attention of older files."""
        return {newer(name): flat(name, value) for name, value in state.items()}

    def latents(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) in -1..1 -> sampled latents (B, 4, H/8, W/8).

        The authors draw the noise of one batch after the other from a single generator, so that an image's features
        depend on its place in the queue. Here every image gets the noise that theirs gives to the first.
        """
        mean, logvar = self.vae(images)
        generator = torch.Generator().manual_seed(SEED)
        noise = torch.randn((1, *mean.shape[1:]), generator=generator).to(mean)
        return (mean + (0.5 * logvar).exp() * noise) * LATENT_SCALE

    def encode(self, batch: Batch) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
        """Four maps at strides 8, 16, 32, 64 and the vectors `default` = `mean`, without anything learned on top.

        A stage joins on channels the maps of all kept steps, clean to noisy. The vector (B, C) is the mean over pixels
        and steps of the four maps, largest first. The authors have no such vector: they train a fuser, see `neck`.
        """
        latents = self.latents(batch.images["optical"])
        prompt = self.text_encoder(self.card.build["prompt"]).expand(len(latents), -1, -1)
        found = invert(self.unet, latents, prompt, self.save)
        kept = [found[index][0] for index in self.save]
        stages = tuple(torch.cat(maps, dim=1) for maps in zip(*kept, strict=True))
        means = [stage.mean(dim=(2, 3)).unflatten(1, (len(self.save), -1)).mean(dim=1) for stage in stages]
        vector = torch.cat(means, dim=1)
        return stages, {"default": vector, "mean": vector}

    def neck(self, kind: str = "") -> Fuser:
        """A fresh fuser for these stages, to be trained with the head: `gw` (the authors' default), `lw` or `moe`."""
        fuser = FUSERS[choose(f"neck of {self.card.label}", kind or self.card.necks[0], self.card.necks)]
        return fuser(self.layers, len(self.save))


def layers(size: Size) -> Layers:
    """Width of every tapped layer per stage: three attentions and three convolutions, in the smallest no attention."""
    return tuple((width,) * (3 if index == 3 else 6) for index, width in enumerate(size.unet))


def newer(name: str) -> str:
    """The present name of an entry of the VAE's attention."""
    head, found, tail = name.partition("mid_block.attentions.0.")
    part, dot, leaf = tail.rpartition(".")
    return f"{head}{found}{OLDER[part]}{dot}{leaf}" if found and part in OLDER else name


def flat(name: str, value: Tensor) -> Tensor:
    """Weights of the VAE's attention as a matrix."""
    return value.flatten(1) if "encoder.mid_block.attentions.0." in name and value.ndim == 4 else value
