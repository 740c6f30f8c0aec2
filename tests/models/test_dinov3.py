"""DINOv3: how the authors' names and rotary periods are taken over, and what is refused."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

import models
from models import dinov3
from models.common.backbone import Backbone, Batch, state_shapes
from models.common.errors import UserError
from models.common.weights import load, parameters_on_meta, state_dict
from models.networks.dinov3 import PERIODS

CARD = models.card("dinov3")
FORMULA = torch.tensor([100.0 ** (2 * index / 32) for index in range(16)], dtype=torch.float64)


def official_file(width: int = 768, depth: int = 12) -> dict[str, Tensor]:
    """The entries of the authors' file, with small values that let every part be seen."""
    generator = torch.Generator().manual_seed(0)
    shapes = {
        "cls_token": (1, 1, width),
        "storage_tokens": (1, 4, width),
        "mask_token": (1, width),
        "rope_embed.periods": (16,),
        "patch_embed.proj.weight": (width, 3, 16, 16),
        "patch_embed.proj.bias": (width,),
        "norm.weight": (width,),
        "norm.bias": (width,),
    }
    for block in range(depth):
        for name, shape in {
            "norm1.weight": (width,),
            "norm1.bias": (width,),
            "attn.qkv.weight": (3 * width, width),
            "attn.qkv.bias": (3 * width,),
            "attn.qkv.bias_mask": (3 * width,),
            "attn.proj.weight": (width, width),
            "attn.proj.bias": (width,),
            "ls1.gamma": (width,),
            "norm2.weight": (width,),
            "norm2.bias": (width,),
            "mlp.fc1.weight": (4 * width, width),
            "mlp.fc1.bias": (4 * width,),
            "mlp.fc2.weight": (width, 4 * width),
            "mlp.fc2.bias": (width,),
            "ls2.gamma": (width,),
        }.items():
            shapes[f"blocks.{block}.{name}"] = shape
    return {name: torch.randn(shape, generator=generator) * 0.05 for name, shape in shapes.items()}


def build(file: dict[str, Tensor], label: str = "dinov3") -> Backbone:
    card = models.card(label)
    state = state_dict(file, card.checkpoint)
    with parameters_on_meta():
        model = dinov3.build(card, state_shapes(state))
    load(model, state)
    return model.freeze()


@pytest.fixture(scope="module")
def file() -> Iterator[dict[str, Tensor]]:
    return official_file()


@pytest.fixture(scope="module")
def model(file: dict[str, Tensor]) -> Iterator[Backbone]:
    return build(file)


def test_the_bias_of_the_keys_is_masked_and_those_of_queries_and_values_are_kept(
    model: Backbone, file: dict[str, Tensor]
):
    query, _, value = file["blocks.3.attn.qkv.bias"].chunk(3)
    assert torch.equal(model.get_parameter("blocks.3.attn.q_bias"), query)
    assert torch.equal(model.get_parameter("blocks.3.attn.v_bias"), value)
    assert not model.get_buffer("blocks.3.attn.k_bias").any()


def test_periods_come_from_the_file_and_from_the_formula_where_it_has_none(model: Backbone, file: dict[str, Tensor]):
    rounded = FORMULA.to(torch.bfloat16)
    load(model, state_dict({**file, PERIODS: rounded}, CARD.checkpoint))
    assert torch.equal(model.get_buffer(PERIODS), rounded.float())
    assert (rounded.double() != FORMULA).any()
    without = {name: value for name, value in file.items() if name != PERIODS}
    load(model, state_dict(without, CARD.checkpoint))
    torch.testing.assert_close(model.get_buffer(PERIODS).double(), FORMULA, rtol=1e-6, atol=0)


def test_a_remainder_of_rows_and_columns_is_dropped_by_the_network_and_refused_at_the_door(model: Backbone):
    image = torch.randn(1, 3, 57, 40, generator=torch.Generator().manual_seed(3))
    stages, vectors = model.encode(Batch({"optical": image}, "rgb"))
    assert stages[0].shape == (1, 768, 3, 2)
    exact, exact_vectors = model.encode(Batch({"optical": image[..., :48, :32]}, "rgb"))
    torch.testing.assert_close(stages, exact)
    torch.testing.assert_close(vectors, exact_vectors)
    with pytest.raises(UserError, match="divisible by 16"):
        model(Batch({"optical": image}, "rgb"))


def test_a_checkpoint_of_the_other_variant_is_refused(file: dict[str, Tensor]):
    with pytest.raises(UserError, match="width 768 and 12 blocks; dinov3:sat has 1024 and 24"):
        build(file, "dinov3:sat")


def test_another_models_checkpoint_is_refused(file: dict[str, Tensor]):
    plain = {name: value for name, value in file.items() if name != "storage_tokens"}
    with pytest.raises(UserError, match="no storage_tokens; it looks like another ViT"):
        build(plain)
    with pytest.raises(UserError, match="key layout of the transformers library"):
        build({"embeddings.cls_token": torch.zeros(1, 1, 768)})
    with pytest.raises(UserError, match="patch size 14; dinov3 has 16"):
        build({**file, "patch_embed.proj.weight": torch.zeros(768, 3, 14, 14)})


def test_the_local_norm_of_the_satellite_file_is_left_out_and_no_other_files(file: dict[str, Tensor]):
    local = {"local_cls_norm.weight": torch.zeros(768)}
    with pytest.raises(UserError, match=r"1 unexpected: local_cls_norm\.weight"):
        build({**file, **local})
    assert state_dict({**file, **local}, models.card("dinov3:sat").checkpoint).keys().isdisjoint(local)


def test_satellite_and_web_images_are_normalised_differently():
    assert CARD.mode("rgb").normalisation[1] != models.card("dinov3:sat").mode("rgb").normalisation[1]
