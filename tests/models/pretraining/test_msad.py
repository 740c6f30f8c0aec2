"""MSAD as printed against a plain loop, value and gradient; MSAD as released against torch's cross-entropy by token."""

from math import exp, log

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from models.pretraining.msad import LinearProjectors, ReleasedAlignment, kronecker_targets, msad, reduced


def tokens(count: int, images: int, width: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, images, width, generator=generator, dtype=torch.float64)


def loop(first: Tensor, second: Tensor, tau: float, alpha: float, sum_inside_log: bool) -> Tensor:
    """Equations 6 to 8 written out, one image, one candidate and one token at a time."""
    count, images, _ = first.shape
    total = torch.zeros((), dtype=first.dtype)
    for anchors, candidates in ((first, second), (second, first)):
        for i in range(images):
            shares = []
            for t in range(count):
                cosines = [
                    anchors[t, i] @ candidates[t, k] / (anchors[t, i].norm() * candidates[t, k].norm())
                    for k in range(images)
                ]
                exponentials = [torch.exp(cosine / tau) for cosine in cosines]
                shares.append([value / sum(exponentials) for value in exponentials])
            for j in range(images):
                target = 1 - alpha if i == j else alpha / (images - 1)
                if sum_inside_log:
                    logarithm = torch.log(sum(share[j] for share in shares))
                else:
                    logarithm = sum(torch.log(share[j]) for share in shares) / count
                total = total - target * logarithm / (2 * images)
    return total


@pytest.mark.parametrize("sum_inside_log", [False, True])
@pytest.mark.parametrize(("count", "alpha", "tau"), [(1, 0.0, 1.0), (4, 0.3, 0.1), (4, 0.0, 0.1), (3, 0.3, 0.5)])
def test_the_paper_form_is_the_loop_of_equations_6_to_8(count: int, alpha: float, tau: float, sum_inside_log: bool):
    pair = [tokens(count, 5, 6, seed).requires_grad_() for seed in (1, 2)]
    written_out = loop(*pair, tau, alpha, sum_inside_log)
    expected = torch.autograd.grad(written_out, pair)
    found = msad(pair[0].float(), pair[1].float(), tau, alpha, sum_inside_log)
    gradients = torch.autograd.grad(found, pair)
    torch.testing.assert_close(found.double(), written_out, rtol=1e-5, atol=1e-6)
    for gradient, written in zip(gradients, expected, strict=True):
        torch.testing.assert_close(gradient, written, rtol=1e-4, atol=1e-6)
        assert gradient.abs().max() > 1e-3


def test_two_images_worked_by_hand():
    """Cosines 1 on the pair and 0 off it; tau 1, alpha 0.3: p = e / (e + 1) and 1 / (e + 1) in both directions."""
    same = torch.eye(2)[None]
    expected = -0.7 * log(exp(1) / (exp(1) + 1)) - 0.3 * log(1 / (exp(1) + 1))
    assert msad(same, 3 * same, 1.0, 0.3).item() == pytest.approx(expected, rel=1e-6)


def test_the_order_of_sensors_and_the_length_of_vectors_do_not_matter():
    first, second = tokens(3, 4, 5, 1), tokens(3, 4, 5, 2)
    value = msad(first, second, 0.1, 0.3)
    torch.testing.assert_close(msad(second, first, 0.1, 0.3), value)
    torch.testing.assert_close(msad(first * 7, second / 9, 0.1, 0.3), value)


def test_tokens_of_nothing_told_apart_cost_the_logarithm_of_the_batch():
    constant = torch.ones(3, 6, 4)
    assert msad(constant, constant, 0.1, 0.3).item() == pytest.approx(log(6), rel=1e-6)


def test_targets_sum_to_one_and_a_single_image_costs_nothing():
    like = torch.zeros(())
    targets = kronecker_targets(5, 0.3, like)
    torch.testing.assert_close(targets.sum(dim=1), torch.ones(5))
    torch.testing.assert_close(targets.diagonal(), torch.full((5,), 0.7))
    assert msad(torch.randn(2, 1, 4), torch.randn(2, 1, 4), 0.1, 0.3).item() == 0


def test_half_precision_outside_does_not_coarsen_the_cosines():
    first, second = tokens(2, 4, 64, 1).float(), tokens(2, 4, 64, 2).float()
    exact = msad(first, second, 0.1, 0.3)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(msad(first, second, 0.1, 0.3), exact)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_the_released_form_is_the_mean_over_tokens_of_torchs_cross_entropies(smoothing: float):
    torch.manual_seed(0)
    module = ReleasedAlignment(6, 8, 0.2, temperature=2.0, label_smoothing=smoothing).eval()
    first, second = tokens(4, 5, 6, 1).float(), tokens(4, 5, 6, 2).float()
    losses = []
    for t in range(4):
        one, two = (place(module.shared(each[t])) for place, each in zip(module.places, (first, second), strict=True))
        logits = two @ one.T / 2.0
        targets = functional.softmax((one @ one.T + two @ two.T) / 2 * 2.0, dim=-1)
        forth = functional.cross_entropy(logits, targets, reduction="none", label_smoothing=smoothing)
        back = functional.cross_entropy(logits.T, targets.T, reduction="none", label_smoothing=smoothing)
        losses.append(((forth + back) / 2).mean())
    found = module(module.shared(first), module.shared(second))
    torch.testing.assert_close(found, torch.stack(losses).mean(), rtol=1e-5, atol=1e-6)


def test_a_released_projector_is_layer_normed_and_drops_in_training_only():
    torch.manual_seed(0)
    projector = ReleasedAlignment(6, 8, 0.2, 1.0, 0.3).shared
    inputs = torch.randn(3, 5, 6)
    assert not torch.equal(projector(inputs), projector(inputs))
    projected = projector.eval()(inputs)
    assert torch.equal(projected, projector(inputs))
    torch.testing.assert_close(projected.mean(dim=-1), torch.zeros(3, 5), atol=1e-6, rtol=0)


def test_the_papers_projectors_are_linear():
    projectors = LinearProjectors(("sentinel", "landsat"), 4, 3)
    one, two = torch.randn(2, 5, 4), torch.randn(2, 5, 4)
    layer = projectors["landsat"]
    zero = layer(torch.zeros(1, 4))
    torch.testing.assert_close(layer(one + two) - zero, layer(one) + layer(two) - 2 * zero)
    assert not torch.allclose(projectors["sentinel"](one), layer(one))


def test_pairs_are_averaged_or_summed():
    losses = [torch.tensor(1.0), torch.tensor(2.0), torch.tensor(6.0)]
    assert reduced(losses, "mean") == 3
    assert reduced(losses, "sum") == 9
