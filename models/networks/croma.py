"""CROMA on TorchGeo's encoders, with stages tapped between blocks and one ALiBi table per size of image."""

from functools import lru_cache

import torch
from torch import Tensor, nn
from torchgeo.models.croma import CROMA

from models.common.backbone import Backbone, Batch, tokens_to_map
from models.common.card import Card


@lru_cache(maxsize=8)
def alibi(heads: int, side: int) -> Tensor:
    """The bias (1, heads, side^2, side^2) on attention scores: minus slope times distance in patches, float32.

    Slopes fall from 2^-0.5 in steps of 2^-(8/heads): for 16 heads 2^-0.5, 2^-1, ..., 2^-8. Not learned, and not in the
    checkpoint. TorchGeo's function gives the same numbers in a Python loop over all pairs of patches.
    """
    slopes = torch.tensor([2 ** (-8 * (head + 1) / heads) for head in range(heads)])
    row, column = torch.arange(side**2).div(side, rounding_mode="floor").double(), torch.arange(side**2) % side
    distance = ((row[:, None] - row) ** 2 + (column[:, None] - column) ** 2).sqrt().float()
    return -(distance * slopes[:, None, None])[None]


class Croma(Backbone):
    """The encoders of `card.inputs`, with the keys of the release: `s1_encoder`, `s2_encoder`, `joint_encoder`.

    Patches of 8 x 8 pixels, no class token, square images only. `card.build`: `depth` of the optical encoder, `heads`;
    the other two encoders are half as deep, and tapped half as deep as `card.blocks` says.
    """

    def __init__(self, card: Card) -> None:
        super().__init__(card)
        modes = {mode.name for mode in card.inputs}
        sensors = [name for name, mode in (("sar", "sar"), ("optical", "ms")) if mode in modes]
        croma = CROMA(sensors, card.width, card.build["depth"], card.build["heads"], image_size=8)
        for name, module in croma.named_children():
            if name != "joint_encoder" or "joint" in modes:
                self.add_module(name, module)

    def encode(self, batch: Batch) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
        """Four maps (B, 768, H / 8, W / 8) before the final norm, and vectors (B, 768).

        `default` is the authors' GAP: for one sensor an FFN on the mean of the normed tokens, for `joint` that mean
        itself. `mean` is the mean of the normed tokens, `raw` that of the tokens before the norm.
        """
        image = next(iter(batch.images.values()))
        grid = (image.shape[2] // 8, image.shape[3] // 8)
        bias = alibi(self.card.build["heads"], grid[0]).to(image)
        if batch.mode == "joint":
            _, context = self.tokens("s2_encoder", batch.images["optical"], bias)
            _, sar = self.tokens("s1_encoder", batch.images["sar"], bias)
            outputs, normed = self.joint(sar, context, bias)
        else:
            name = {"ms": "s2", "sar": "s1"}[batch.mode]
            outputs, normed = self.tokens(f"{name}_encoder", image, bias)
        mean = normed.mean(dim=1)
        default = mean if batch.mode == "joint" else self.get_submodule(f"{name}_GAP_FFN")(mean)
        vectors = {"default": default, "mean": mean, "raw": outputs[-1].mean(dim=1)}
        return tuple(tokens_to_map(output, grid) for output in outputs), vectors

    def tokens(self, name: str, image: Tensor, bias: Tensor) -> tuple[list[Tensor], Tensor]:
        """Tapped block outputs (B, N, 768) of one sensor's encoder, and the last one after the norm."""
        encoder = self.get_submodule(name)
        patches = nn.functional.unfold(image, 8, stride=8).transpose(1, 2)  # channel, row, column within a patch
        return self.layers(encoder.get_submodule("transformer"), encoder.get_submodule("linear_input")(patches), bias)

    def joint(self, sar: Tensor, optical: Tensor, bias: Tensor) -> tuple[list[Tensor], Tensor]:
        """The same of the joint encoder, in which radar tokens look at optical ones."""
        return self.layers(self.get_submodule("joint_encoder"), sar, bias, optical)

    def layers(
        self, transformer: nn.Module, tokens: Tensor, bias: Tensor, context: Tensor | None = None
    ) -> tuple[list[Tensor], Tensor]:
        """Run blocks of self-attention, cross-attention (with a `context`) and FFN, each with its residual."""
        layers = list(transformer.get_submodule("layers").children())
        taps = [block * len(layers) // self.card.build["depth"] for block in self.card.blocks]
        outputs = []
        for index, layer in enumerate(layers):
            attention, *cross, ffn = layer.children()
            tokens = attention(tokens, bias) + tokens
            if cross:
                tokens = cross[0](tokens, context, bias) + tokens
            tokens = ffn(tokens) + tokens
            if index in taps:
                outputs.append(tokens)
        return outputs, transformer.get_submodule("norm_out")(tokens)
