"""Optical teachers: the blocks that are distilled, their normalisation, and what is said where weights are absent."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

import models
from models import dinov2, radio
from models.common.backbone import Backbone, Batch
from models.common.bands import compile_transform
from models.common.errors import UserError
from models.common.spectral import Band
from models.deo import MEAN, STD
from models.pretraining.teachers import OpticalTeacher, optical_teacher
from models.pretraining.views import normalise

RGB = [Band(name, name, "uint8") for name in ("RGB:red", "RGB:green", "RGB:blue")]


def small_dinov2(depth: int = 12, blocks: tuple[int, ...] = (3, 5, 8, 11)) -> Backbone:
    """DINOv2's network, narrow, with noise in place of weights that start at zero or one."""
    card = models.card("dinov2")
    build = {**card.build, "depth": depth, "heads": 3, "grid": 4}
    torch.manual_seed(0)
    backbone = dinov2.build(replace(card, blocks=blocks, width=48, channels=(48,) * 4, build=build), {})
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return backbone.freeze()


def image(size: int = 56) -> Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))


def test_a_vit_b_gives_blocks_8_and_11_with_the_final_norm_and_the_class_token():
    expected = small_dinov2()(Batch({"optical": image()}, "rgb"))  # the parity kits prove these stages and this vector
    found = OpticalTeacher(small_dinov2())(image())
    assert torch.equal(found.mid, expected.stages[2])
    assert torch.equal(found.late, expected.stages[3])
    assert torch.equal(found.vector, expected.pooled)


def test_a_vit_l_gives_blocks_15_and_23():
    expected = small_dinov2(24, (7, 11, 15, 23))(Batch({"optical": image()}, "rgb"))
    found = OpticalTeacher(small_dinov2(24))(image())
    assert torch.equal(found.mid, expected.stages[2])
    assert torch.equal(found.late, expected.stages[3])


def test_radio_gives_its_summary_which_is_wider_than_its_maps():
    card = models.card("radio")
    build = {**card.build, "width": 48, "heads": 3}
    small = radio.build(replace(card, width=144, channels=(48,) * 4, build={**build, "grid": 8}), {})
    teacher = OpticalTeacher(small)
    found = teacher(image(64))
    assert (teacher.width, teacher.channels) == (144, 48)
    assert found.vector.shape == (2, 144)
    assert found.mid.shape == found.late.shape == (2, 48, 4, 4)


def test_dinov3_is_a_teacher_as_it_is():
    plain = models.build("dinov3", "random", seed=3)
    expected = plain(Batch({"optical": image(32)}, "rgb"))
    found = OpticalTeacher(models.build("dinov3", "random", seed=3))(image(32))
    assert torch.equal(found.mid, expected.stages[2])
    assert torch.equal(found.vector, expected.pooled)


def test_own_statistics_are_those_of_the_teachers_card():
    """An image in 0..1, normalised as DEO does: the teacher undoes that and sees what its adapter's transform makes."""
    values = torch.rand(2, 3, 56, 56, generator=torch.Generator().manual_seed(2))
    backbone = small_dinov2()
    transform = compile_transform(backbone.card, RGB, input_size="native")
    expected = backbone(Batch({"optical": transform(values * 255)}, "rgb")).pooled
    teacher, as_student = OpticalTeacher(backbone), normalise(values, MEAN[:3], STD[:3])
    torch.testing.assert_close(teacher(as_student, own_statistics=True).vector, expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(teacher(as_student).vector, expected, atol=0.01)


def test_a_teacher_is_frozen_and_stays_in_eval_mode():
    teacher = OpticalTeacher(small_dinov2()).train()
    assert not any(module.training for module in teacher.backbone.modules())
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert not teacher(image().requires_grad_()).late.requires_grad


def test_none_is_no_teacher_and_needs_nothing():
    assert optical_teacher("none") is None


def test_absent_weights_are_one_sentence_that_names_the_file_and_the_way_out(tmp_path: Path):
    with pytest.raises(UserError) as raised:
        optical_teacher("dinov3", "official", tmp_path)
    sentence = str(raised.value)
    assert sentence.startswith("no optical teacher dinov3: ")
    for part in (
        "dinov3_vitb16_pretrain_lvd1689m-73cec8be.pth",
        "dinov3-downloads",
        "--teacher-weights",
        "--teacher none",
    ):
        assert part in sentence
    assert "\n" not in sentence
    assert "--weights random" not in sentence


def test_another_models_file_and_another_name_are_refused(tmp_path: Path):
    torch.save({"weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(UserError, match=r"no optical teacher radio: .*other.pth.*this is no checkpoint of radio"):
        optical_teacher("radio", str(tmp_path / "other.pth"))
    with pytest.raises(UserError, match="no optical teacher 'dinov4', did you mean 'dinov3'"):
        optical_teacher("dinov4")


def test_a_model_of_another_depth_cannot_teach():
    with pytest.raises(UserError, match="dinov2 cannot be an optical teacher: it has no 12 or 24 blocks"):
        OpticalTeacher(small_dinov2(6, (1, 2, 3, 5)))
