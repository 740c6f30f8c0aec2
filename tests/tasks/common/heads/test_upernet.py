"""UPerNet against the paper written out in float64, forward and backward, and against mmsegmentation's plain module."""

import pytest
import torch
from torch import Tensor

from tasks.common.heads import upernet
from tasks.common.heads.mmseg import building, decode_heads

CHANNELS = (3, 4, 5, 6)
SIZES = ((13, 10), (7, 5), (4, 3), (2, 2))


def maps(dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [
        torch.randn(3, channels, *size, generator=generator, dtype=dtype).requires_grad_()
        for channels, size in zip(CHANNELS, SIZES, strict=True)
    ]


def gradients(logits: Tensor, wrt: list[Tensor]) -> tuple[Tensor, ...]:
    weigh = torch.linspace(-1, 1, logits.numel(), dtype=logits.dtype).reshape(logits.shape)
    return torch.autograd.grad((logits * weigh).sum(), wrt)


def pooled(one: Tensor, scale: int) -> Tensor:
    """Means of scale x scale cells: cell i spans floor(i H / scale) .. ceil((i + 1) H / scale)."""
    bounds = [[(i * side // scale, -(-(i + 1) * side // scale)) for i in range(scale)] for side in one.shape[2:]]
    rows = [
        torch.stack([one[:, :, top:end, left:right].mean(dim=(2, 3)) for left, right in bounds[1]], dim=2)
        for top, end in bounds[0]
    ]
    return torch.stack(rows, dim=2)


@pytest.fixture
def reference(bilinear, convolved, normed):
    """`reference(weights, maps)` -> logits, section 3 of the paper: pyramid pooling, laterals, top-down sums, fusion."""

    def block(weights: dict[str, Tensor], name: str, one: Tensor) -> Tensor:
        conv, norm, bias = (weights[f"{name}.{key}"] for key in ("conv.weight", "bn.weight", "bn.bias"))
        return normed(convolved(one, conv), norm, bias).clamp(min=0)

    def forward(weights: dict[str, Tensor], maps: list[Tensor]) -> Tensor:
        last = maps[3]
        context = [
            bilinear(block(weights, f"psp_modules.{number}.1", pooled(last, scale)), last.shape[2:])
            for number, scale in enumerate((1, 2, 3, 6))
        ]
        top = block(weights, "bottleneck", torch.cat([last, *context], dim=1))
        third = block(weights, "lateral_convs.2", maps[2]) + bilinear(top, maps[2].shape[2:])
        second = block(weights, "lateral_convs.1", maps[1]) + bilinear(third, maps[1].shape[2:])
        first = block(weights, "lateral_convs.0", maps[0]) + bilinear(second, maps[0].shape[2:])
        smooth = [block(weights, f"fpn_convs.{number}", one) for number, one in enumerate((first, second, third))]
        fused = torch.cat([bilinear(one, maps[0].shape[2:]) for one in (*smooth, top)], dim=1)
        classifier = convolved(block(weights, "fpn_bottleneck", fused), weights["conv_seg.weight"])
        return classifier + weights["conv_seg.bias"][:, None, None]

    return forward


def test_logits_and_all_gradients_are_those_of_the_paper_written_out(reference):
    torch.manual_seed(0)
    head = upernet.decode_head(CHANNELS, 3, hidden=7, dropout=0).double()
    weights = dict(head.named_parameters())
    inputs = maps()
    wrt = [*inputs, *weights.values()]
    logits, expected = head(inputs), reference(weights, inputs)
    assert logits.shape == (3, 3, 13, 10)
    torch.testing.assert_close(logits, expected, rtol=1e-10, atol=1e-12)
    for ours, theirs in zip(gradients(logits, wrt), gradients(expected, wrt), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-11)


def plain(name: str, **options) -> torch.nn.Module:
    with building():
        return getattr(decode_heads(), name)(num_classes=2, norm_cfg={"type": "BN"}, **options)


@pytest.mark.parametrize(("training", "dropout"), [(True, 0.1), (False, 0.1), (True, 0.0)])
def test_it_is_mmsegmentations_module_key_by_key_forward_and_backward(training: bool, dropout: float):
    torch.manual_seed(0)
    ours = upernet.decode_head(CHANNELS, 2, dropout=dropout).train(training)
    torch.manual_seed(0)
    theirs = plain(
        "UPerHead", in_channels=list(CHANNELS), in_index=[0, 1, 2, 3], channels=512, dropout_ratio=dropout
    ).train(training)
    for (name, value), (key, other) in zip(ours.state_dict().items(), theirs.state_dict().items(), strict=True):
        assert name == key
        assert torch.equal(value, other) or name.startswith("conv_seg"), name
    theirs.load_state_dict(ours.state_dict())
    inputs, results = maps(torch.float32), []
    for head in (ours, theirs):
        torch.manual_seed(5)  # for the dropout
        logits = head(inputs)
        results.append((logits, *gradients(logits, [*inputs, *head.parameters()])))
    for own, other in zip(*results, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-5, atol=1e-5)


def test_the_classifier_is_drawn_as_mmsegmentation_initialises_it():
    torch.manual_seed(0)
    head = upernet.decode_head(CHANNELS, 50)
    assert float(head.conv_seg.weight.detach().std()) == pytest.approx(0.01, rel=0.02)
    assert not head.conv_seg.bias.any()


def test_the_auxiliary_head_is_mmsegmentations_fcn_head_on_the_third_map():
    torch.manual_seed(0)
    ours = upernet.auxiliary_head(CHANNELS, 2)
    torch.manual_seed(0)
    theirs = plain("FCNHead", in_channels=5, in_index=2, channels=256, num_convs=1, concat_input=False)
    assert [*ours.state_dict()] == [*theirs.state_dict()]
    theirs.load_state_dict(ours.state_dict())
    inputs = maps(torch.float32)
    torch.testing.assert_close(ours.eval()(inputs), theirs.eval()(inputs))
    assert ours(inputs).shape == (3, 2, 4, 3)


def test_the_lite_head_has_a_fiftieth_of_the_parameters_that_cost_time():
    sizes = [
        sum(
            value.numel()
            for name, value in upernet.decode_head((768,) * 4, 2, hidden).named_parameters()
            if "fpn" in name
        )
        for hidden in (upernet.HIDDEN, upernet.LITE_HIDDEN)
    ]
    assert sizes[0] / sizes[1] == pytest.approx(64, rel=0.01)
