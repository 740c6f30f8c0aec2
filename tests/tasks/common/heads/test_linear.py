"""The per-pixel linear head against its definition, and what its batch norm is for."""

import torch

from tasks.common.heads.linear import PixelLinear


def test_logits_and_gradients_are_resize_concatenate_norm_and_matrix_product(bilinear, normed):
    torch.manual_seed(0)
    head = PixelLinear((2, 3), 4).double()
    maps = [torch.randn(2, 2, 3, 5, dtype=torch.float64), torch.randn(2, 3, 6, 4, dtype=torch.float64)]
    maps = [one.requires_grad_() for one in maps]
    joined = torch.cat([bilinear(maps[0], (6, 4)), maps[1]], dim=1)  # 24 pixels are more than 15
    normal = normed(joined, head.norm.weight, head.norm.bias)
    expected = torch.einsum("oi,bihw->bohw", head.classifier.weight[:, :, 0, 0], normal)
    expected = expected + head.classifier.bias[:, None, None]
    logits = head(maps)
    torch.testing.assert_close(logits, expected, rtol=1e-10, atol=1e-12)
    wrt = [*maps, *head.parameters()]
    for ours, theirs in zip(*(torch.autograd.grad((one**3).sum(), wrt) for one in (logits, expected)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-11)


def test_a_map_in_other_units_gives_the_same_logits():
    maps = [torch.randn(2, 2, 4, 4), torch.randn(2, 3, 4, 4)]
    torch.manual_seed(0)
    head = PixelLinear((2, 3), 4)
    torch.testing.assert_close(head([maps[0] * 1000 + 7, maps[1]]), head(maps), rtol=1e-3, atol=1e-5)
