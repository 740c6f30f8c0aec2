"""DINOv2: which checkpoints are taken and which are refused (its numbers are the parity kit's affair)."""

import pytest
import torch

import models
from models import dinov2
from models.common.backbone import Backbone, state_shapes
from models.common.errors import UserError
from models.common.weights import load, parameters_on_meta, state_dict

CARD = models.card("dinov2")


def build(shapes: dict[str, tuple[int, ...]]) -> Backbone:
    with parameters_on_meta():
        return dinov2.build(CARD, shapes)


def official() -> dict[str, tuple[int, ...]]:
    return state_shapes(build({}).state_dict())


def test_names_are_those_of_the_official_file_which_has_a_mask_token_beside_them():
    model = build(official())
    file = {key: torch.zeros(shape) for key, shape in official().items()} | {"mask_token": torch.zeros(1, 768)}
    load(model, state_dict(file, CARD.checkpoint))
    assert model.get_parameter("blocks.11.ls2.gamma").shape == (768,)


def test_the_grid_of_positions_is_read_off_the_file():
    shapes = official()
    assert shapes["pos_embed"] == (1, 1 + 37 * 37, 768)
    assert build(shapes | {"pos_embed": (1, 257, 768)}).get_parameter("pos_embed").shape == (1, 257, 768)


REFUSED = {
    "the model with registers": ({"register_tokens": (1, 4, 768)}, "register tokens"),
    "ViT-L": ({"patch_embed.proj.weight": (1024, 3, 14, 14)}, "width 1024 and 12 blocks; dinov2 has 768 and 12"),
    "patch 16": ({"patch_embed.proj.weight": (768, 3, 16, 16)}, "patch size 16 and 37"),
    "no positions": ({"pos_embed": (1, 1, 768)}, "a position table"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_another_checkpoint_is_refused_with_a_sentence(what: str):
    change, sentence = REFUSED[what]
    with pytest.raises(UserError, match=sentence):
        build(official() | change)


def test_a_checkpoint_of_the_transformers_library_is_named_as_such():
    with pytest.raises(UserError, match="key layout of the transformers library"):
        build({"embeddings.cls_token": (1, 1, 768)})
