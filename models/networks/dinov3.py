"""DINOv3 on timm's EVA blocks (those with a qkv bias), with the rotary periods of the authors' file."""

from timm import create_model
from timm.layers.pos_embed_sincos import RotaryEmbeddingDinoV3
from timm.models.eva import Eva
from torch import Tensor, cat

from models.common.backbone import Backbone, Batch
from models.common.card import Card
from models.common.tokens import maps_and_vectors

PERIODS = "rope_embed.periods"


class DinoV3(Backbone):
    """Class token, four storage tokens, patches; rotary positions on the patches alone; every stage is normed.

    `card.build`: `timm` (its name there), `depth`.
    """

    def __init__(self, card: Card) -> None:
        super().__init__(card)
        eva = create_model(card.build["timm"], pretrained=False, num_classes=0, global_pool="token")
        assert isinstance(eva, Eva)
        assert isinstance(eva.rope, RotaryEmbeddingDinoV3)
        self.cls_token, self.storage_tokens = eva.get_parameter("cls_token"), eva.get_parameter("reg_token")
        self.patch_embed, self.blocks, self.norm = eva.patch_embed, eva.blocks, eva.norm
        # The released periods are said to be rounded to bfloat16, and the authors compute with what the file holds:
        # they must be part of the state dict. timm recomputes them in float32, 0.003 away in the features.
        self.rope_embed = eva.rope
        self.formula = eva.get_buffer("rope.periods").clone()
        self.rope_embed.register_buffer("periods", eva.get_buffer("rope.periods"), persistent=True)

    def convert(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Official keys to those of timm's blocks. The authors mask the k third of the qkv bias to zero; timm has none.

        A file without periods gets the float32 ones of the formula 100 ** (2i / 32).
        """
        own = {PERIODS: self.formula}
        for key, value in state.items():
            if key.endswith("qkv.bias"):
                own[key.replace("qkv.bias", "q_bias")], _, own[key.replace("qkv.bias", "v_bias")] = value.chunk(3)
            elif not key.endswith("qkv.bias_mask"):
                own[key.replace("ls1.gamma", "gamma_1").replace("ls2.gamma", "gamma_2")] = value
        return own

    def encode(self, batch: Batch) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
        """Four normed maps (B, C, H // 16, W // 16), and the vectors `default` = `cls`, `raw`, `mean` (B, C)."""
        image = batch.images["optical"]
        patches = self.patch_embed.proj(image)  # drops a remainder of rows and columns, as the authors' network does
        grid = (patches.shape[2], patches.shape[3])
        prefix = [token.expand(len(image), -1, -1) for token in (self.cls_token, self.storage_tokens)]
        tokens = cat([*prefix, patches.flatten(2).transpose(1, 2)], dim=1)
        rope = self.rope_embed.get_embed(shape=list(grid))
        outputs = []
        for index, block in enumerate(self.blocks):
            tokens = block(tokens, rope=rope)
            if index in self.card.blocks:
                outputs.append(tokens)
        return maps_and_vectors(outputs, self.norm, prefix=5, grid=grid, norm_stages=self.card.build["norm_stages"])
