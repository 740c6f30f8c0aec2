"""The UNet decoder against itself written out in float64, and the two places where it is not BTC's to the letter."""

import pytest
import torch
from torch import Tensor

from models.common.pyramid import resize
from tasks.common.heads.unet import UNet

VIT, HIERARCHICAL = (16,) * 4, (4, 8, 16, 32)


def written_out(head: UNet, maps: list[Tensor], bilinear, convolved, normed) -> Tensor:
    x = maps[3]
    for block, skip in zip(head.blocks, (maps[2], maps[1], maps[0], None), strict=True):
        x = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
        if skip is not None:
            x = torch.cat([x, bilinear(skip, x.shape[2:])], dim=1)
        first, norm, _, second, other, _ = block.convolutions
        x = normed(convolved(x, first.weight), norm.weight, norm.bias).clamp(min=0)
        x = normed(convolved(x, second.weight), other.weight, other.bias).clamp(min=0)
    return convolved(x, head.classifier.weight) + head.classifier.bias[:, None, None]


@pytest.mark.parametrize(
    ("strides", "sizes"),
    [(VIT, ((2, 1),) * 4), (HIERARCHICAL, ((9, 8), (5, 4), (3, 2), (2, 1)))],
    ids=["vit", "hierarchical, odd"],
)
def test_logits_and_gradients_are_those_of_the_decoder_written_out(strides, sizes, bilinear, convolved, normed):
    torch.manual_seed(0)
    channels = (2, 3, 4, 5)
    head = UNet(channels, strides, 2, dropout=0).double()
    maps = [torch.randn(2, width, *size, dtype=torch.float64) for width, size in zip(channels, sizes, strict=True)]
    maps = [one.requires_grad_() for one in maps]
    logits, expected = head(maps), written_out(head, maps, bilinear, convolved, normed)
    assert logits.shape == (2, 2, 32, 16)  # 16 times the last map
    torch.testing.assert_close(logits, expected, rtol=1e-9, atol=1e-12)
    weigh, wrt = torch.randn_like(logits), [*maps, *head.parameters()]
    pairs = zip(
        *(torch.autograd.grad((one * weigh).sum(), wrt, retain_graph=True) for one in (logits, expected)), strict=True
    )
    for ours, theirs in pairs:
        torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-10)


def test_widths_are_512_256_128_64_and_weights_are_drawn_normal_with_deviation_001():
    torch.manual_seed(0)
    head = UNet((8, 8, 8, 8), VIT, 1)
    shapes = [[tuple(module.weight.shape[:2]) for module in block.convolutions[::3]] for block in head.blocks]
    assert shapes == [
        [(512, 16), (512, 512)],
        [(256, 520), (256, 256)],
        [(128, 264), (128, 128)],
        [(64, 128), (64, 64)],
    ]
    assert float(head.blocks[1].convolutions[0].weight.detach().std()) == pytest.approx(0.01, rel=0.01)
    assert head.dropout.p == 0.1
    assert not head.classifier.bias.any()


def test_resizing_logits_is_resizing_the_map_before_the_classifier():
    torch.manual_seed(0)
    head = UNet((2, 3, 4, 5), HIERARCHICAL, 3).eval()
    maps = [torch.randn(1, width, 8 // 2**n, 8 // 2**n) for n, width in enumerate((2, 3, 4, 5))]
    before: list[Tensor] = []
    head.classifier.register_forward_pre_hook(lambda module, inputs: before.append(inputs[0]))
    logits = head(maps)
    enlarged = torch.nn.functional.interpolate(before[0], scale_factor=2, mode="bilinear")
    torch.testing.assert_close(resize(logits, (32, 32)), torch.nn.functional.conv2d(enlarged, head.classifier.weight))


@pytest.mark.parametrize(("stride", "side"), [(8, 24), (14, 48), (16, 48)])
def test_maps_are_doubled_four_times_but_not_beyond_the_image(stride: int, side: int):
    head = UNet((2,) * 4, (stride,) * 4, 1)
    assert head([torch.randn(2, 2, 3, 3)] * 4).shape == (2, 1, side, side)
