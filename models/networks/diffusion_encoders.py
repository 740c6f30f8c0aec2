"""What stands before the denoising UNet of Stable Diffusion 2.1: the encoder of the VAE, and the text encoder."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.networks.diffusion import GROUPS, LENGTH, PAD, Attention, Down, Middle, Size

EPS = 1e-6  # of every group norm in the VAE
VOCABULARY = 49408


class PixelAttention(Attention):
    """Attention of one head over all pixels of a map, beside a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__(width, heads=1, bias=True)
        self.group_norm = nn.GroupNorm(GROUPS, width, EPS)

    def forward(self, tokens: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) -> the map, and what attention added."""
        added = super().forward(self.group_norm(tokens).flatten(2).transpose(1, 2))
        added = added.transpose(1, 2).unflatten(2, tokens.shape[2:])
        return tokens + added, added


class Encoder(nn.Module):
    """Images to the moments of a latent: four levels of two residual blocks, and attention over all pixels."""

    def __init__(self, widths: tuple[int, int, int, int]) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(3, widths[0], 3, padding=1)
        inputs = [(widths[max(index - 1, 0)], width) for index, width in enumerate(widths)]
        self.down_blocks = nn.ModuleList(
            Down(inputs[index], width, 0, eps=EPS, last=index == 3, padding=0) for index, width in enumerate(widths)
        )
        self.mid_block = Middle(widths[3], 0, PixelAttention(widths[3]), EPS)
        self.conv_norm_out = nn.GroupNorm(GROUPS, widths[3], EPS)
        self.conv_out = nn.Conv2d(widths[3], 8, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 8, H/8, W/8)."""
        x = self.conv_in(images)
        for level in self.down_blocks:
            x = level(x)[-1]
        return self.conv_out(functional.silu(self.conv_norm_out(self.mid_block(x))))


class Vae(nn.Module):
    """The encoding half of the VAE: nothing here decodes."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.encoder = Encoder(size.vae)
        self.quant_conv = nn.Conv2d(8, 8, 1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, 3, H, W) in -1..1 -> mean and logarithm of the variance of the latent, each (B, 4, H/8, W/8)."""
        mean, logvar = self.quant_conv(self.encoder(images)).chunk(2, dim=1)
        return mean, logvar.clamp(-30, 20)


class TextAttention(nn.Module):
    """Attention of each token to itself and those before it."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nn.Linear(width, width) for _ in range(4))

    def forward(self, tokens: Tensor) -> Tensor:
        q, k, v = (
            project(tokens).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        attended = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out_proj(attended.transpose(1, 2).flatten(2))


class TextMlp(nn.Module):
    """Two linear layers with an exact GELU between."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.fc2(functional.gelu(self.fc1(tokens)))


class TextLayer(nn.Module):
    """A pre-norm layer of CLIP's text tower."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.layer_norm1, self.layer_norm2 = nn.LayerNorm(size.text), nn.LayerNorm(size.text)
        self.self_attn = TextAttention(size.text, size.text_heads)
        self.mlp = TextMlp(size.text, size.text_hidden)

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.self_attn(self.layer_norm1(tokens))
        return tokens + self.mlp(self.layer_norm2(tokens))


class TextLayers(nn.Module):
    """The layers one after the other."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.layers = nn.ModuleList(TextLayer(size) for _ in range(size.text_layers))

    def forward(self, tokens: Tensor) -> Tensor:
        for layer in self.layers:
            tokens = layer(tokens)
        return tokens


class TextEmbeddings(nn.Module):
    """Token and position tables, under their released names."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(VOCABULARY, width)
        self.position_embedding = nn.Embedding(LENGTH, width)

    def forward(self, ids: Tensor) -> Tensor:
        return self.token_embedding(ids) + self.position_embedding.weight[: ids.shape[1]]


class TextModel(nn.Module):
    """CLIP's text tower without its projection."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.embeddings = TextEmbeddings(size.text)
        self.encoder = TextLayers(size)
        self.final_layer_norm = nn.LayerNorm(size.text)

    def forward(self, ids: Tensor) -> Tensor:
        return self.final_layer_norm(self.encoder(self.embeddings(ids)))


class TextEncoder(nn.Module):
    """The text tower, under the prefix of its released names. Padding is attended to as any token is."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.text_model = TextModel(size)

    def forward(self, prompt: tuple[int, ...]) -> Tensor:
        """Token ids of one prompt, start and end included, at most 77 -> its embedding (1, 77, C)."""
        ids = [*prompt, *[PAD] * (LENGTH - len(prompt))]
        return self.text_model(torch.tensor([ids], device=self.text_model.final_layer_norm.weight.device))
