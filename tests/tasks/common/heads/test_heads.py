"""The door to the heads: sizes that come out, what is refused, and what decides the draw."""

from copy import deepcopy

import pytest
import torch
from torch import Tensor

from models.common.errors import UserError
from models.common.pyramid import pyramid
from tasks.common import heads

VIT = (16, 16, 16, 16)
SWIN = (4, 8, 16, 32)


def stages(batch: int = 2, side: int = 4) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(batch, width, side, side, generator=generator) for width in (2, 3, 4, 5)]


def head(kind: str, strides: tuple[int, ...] = VIT, **options) -> heads.Head:
    torch.manual_seed(0)
    return heads.build(kind, (2, 3, 4, 5), strides, 3, **options)


@pytest.mark.parametrize(
    ("kind", "size"), [("upernet", 16), ("upernet-lite", 16), ("linear", 4), ("unet", 64)], ids=lambda one: str(one)
)
def test_every_head_learns_from_four_maps_of_a_vit(kind: str, size: int):
    built = head(kind)
    main, auxiliary = built(stages())
    assert (main.shape, auxiliary) == ((2, 3, size, size), None)
    main.square().sum().backward()
    assert all(parameter.grad is not None for parameter in built.parameters())


def test_upernet_sees_the_pyramid_with_the_corners_it_was_told():
    for align_corners in (False, True):
        built = head("upernet-lite", pyramid_align_corners=align_corners).eval()
        expected = built.decoder(list(pyramid(stages(), VIT, align_corners)))
        assert torch.equal(built(stages()).main, expected)
    assert not torch.equal(head("upernet-lite").eval()(stages()).main, expected)


def test_linear_and_unet_see_the_maps_as_they_are():
    for kind in ("linear", "unet"):
        built = head(kind).eval()
        assert torch.equal(built(stages()).main, built.decoder(stages()))


def test_auxiliary_logits_come_in_training_alone_and_leave_the_decoders_draw_as_it_is():
    built, without = head("upernet-lite", auxiliary=True), head("upernet-lite")
    auxiliary = built(stages()).auxiliary
    assert auxiliary is not None
    assert auxiliary.shape == (2, 3, 4, 4)
    assert built.eval()(stages()).auxiliary is None
    pairs = zip(head("upernet-lite", auxiliary=True).decoder.parameters(), without.decoder.parameters(), strict=True)
    assert all(torch.equal(*pair) for pair in pairs)


@pytest.mark.parametrize("kind", heads.KINDS)
def test_the_same_global_seed_gives_the_same_head_and_another_another(kind: str):
    first, again = head(kind), head(kind)
    torch.manual_seed(1)
    other = heads.build(kind, (2, 3, 4, 5), VIT, 3)
    assert all(torch.equal(*pair) for pair in zip(first.parameters(), again.parameters(), strict=True))
    assert not all(torch.equal(*pair) for pair in zip(first.parameters(), other.parameters(), strict=True))
    assert deepcopy(first).state_dict().keys() == first.state_dict().keys()


def test_an_unknown_kind_is_answered_with_the_nearest():
    with pytest.raises(UserError, match="no head 'upernett', did you mean 'upernet'"):
        heads.build("upernett", (2,) * 4, VIT, 3)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"channels": (2, 3, 4)}, r"a head takes four maps; the model gives 3 \(2, 3, 4 channels"),
        ({"strides": (4, 8)}, r"strides 4, 8\)"),
        ({"num_classes": 0}, "at least one class, got 0"),
        ({"kind": "unet", "auxiliary": True}, "the unet head has no auxiliary head"),
    ],
)
def test_a_head_that_cannot_be_is_refused_in_a_sentence(options: dict, sentence: str):
    given = {"kind": "upernet", "channels": (2, 3, 4, 5), "strides": VIT, "num_classes": 3} | options
    with pytest.raises(UserError, match=sentence):
        heads.build(**given)


@pytest.mark.parametrize("kind", heads.KINDS)
def test_stages_that_the_model_does_not_have_are_refused(kind: str):
    built = head(kind)
    with pytest.raises(
        UserError, match=f"the {kind} head was built for 4 maps of 2, 3, 4, 5 channels, and got 3 of 2, 3, 4"
    ):
        built(stages()[:3])
    with pytest.raises(UserError, match="and got 4 of 5, 4, 3, 2: build it"):
        built(stages()[::-1])


def test_a_training_batch_of_one_is_refused_where_batch_norm_has_one_value_and_nowhere_else():
    with pytest.raises(UserError, match="the upernet-lite head cannot train on a batch of one image"):
        head("upernet-lite")(stages(batch=1))
    with pytest.raises(UserError, match="the linear head cannot train on a batch of one image"):
        head("linear")(stages(batch=1, side=1))
    assert head("upernet-lite").eval()(stages(batch=1)).main.shape[0] == 1
    for kind in ("linear", "unet"):
        assert head(kind)(stages(batch=1)).main.shape[0] == 1


@pytest.mark.parametrize("kind", heads.KINDS)
def test_the_smallest_image_goes_through_every_head(kind: str):
    assert bool(torch.isfinite(head(kind)(stages(side=1)).main).all())


def test_a_hierarchical_backbone_is_read_at_its_first_maps_size():
    maps = [torch.randn(2, width, 16 // 2**n, 16 // 2**n) for n, width in enumerate((2, 3, 4, 5))]
    sizes = {kind: head(kind, SWIN)(maps).main.shape[2] for kind in heads.KINDS}
    assert sizes == {"upernet": 16, "upernet-lite": 16, "linear": 16, "unet": 32}
