"""The factorised fusion against the convolution that it replaces, forward and backward."""

import pytest
import torch

from tasks.common import heads
from tasks.common.heads import upernet
from tasks.common.heads.factorised import Factorised, enlarged_convolution


@pytest.mark.parametrize(("have", "want"), [((2, 3), (7, 9)), ((1, 1), (4, 2)), ((4, 4), (8, 8)), ((3, 5), (3, 5))])
def test_the_exchanged_products_are_the_convolution_of_the_enlarged_map(have, want, bilinear, convolved):
    x, weight = torch.randn(2, 3, *have, dtype=torch.float64), torch.randn(4, 3, 3, 3, dtype=torch.float64)
    expected = convolved(bilinear(x, want), weight)
    torch.testing.assert_close(enlarged_convolution(x, weight, want), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("training", [True, False])
def test_logits_gradients_and_running_statistics_are_those_of_mmsegmentations_module(training: bool):
    channels, sizes = (3, 4, 5, 6), ((13, 10), (7, 5), (4, 3), (2, 2))
    results = []
    for wrap in (lambda head: head, Factorised):
        torch.manual_seed(0)
        head = wrap(upernet.decode_head(channels, 2, hidden=8).double()).train(training)
        maps = [torch.randn(3, width, *size).double() for width, size in zip(channels, sizes, strict=True)]
        maps = [one.requires_grad_() for one in maps]
        torch.manual_seed(5)  # for the dropout
        logits = head(maps)
        gradients = torch.autograd.grad((logits**3).sum(), [*maps, *head.parameters()])
        results.append((logits, *gradients, *head.buffers()))
    for plain, other in zip(*results, strict=True):
        torch.testing.assert_close(other, plain, rtol=1e-9, atol=1e-12)


def test_in_single_precision_the_full_head_differs_by_less_than_a_hundred_thousandth():
    torch.manual_seed(0)
    built = heads.build("upernet", (64, 64, 64, 64), (16, 16, 16, 16), 3, dropout=0)
    assert isinstance(built.decoder, Factorised)
    maps = [torch.randn(2, 64, side, side) for side in (16, 8, 4, 2)]
    results = []
    for head in (built.decoder.head, built.decoder):
        logits = head(maps)
        results.append((logits, *torch.autograd.grad(logits.square().sum(), [*built.decoder.parameters()])))
    for plain, other in zip(*results, strict=True):
        assert float((other - plain).detach().abs().max()) <= 1e-5 * max(1.0, float(plain.detach().abs().max()))
