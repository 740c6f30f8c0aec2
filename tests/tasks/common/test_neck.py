"""Probing through a neck: it is trained with the head, the backbone is not, and maps are encoded once while there is room."""

from collections.abc import Sequence

import pytest
import torch
from torch import nn

from models.common.backbone import Backbone, Features
from models.common.card import Card, Checkpoint, Mode
from models.common.errors import UserError, choose
from tasks.common.neck import evaluate
from tasks.common.splits import Split
from tasks.common.stage_maps import StageMaps
from tasks.switches import LinearProbe

CARD = Card(
    *("toy", "a toy", (Mode("any", (), "any", (), 0, 1),), Checkpoint("none")),
    *((4, 4, 4, 4), (1, 1, 1, 1), 4, "MIT", "none"),
    necks=("weigh",),
)
NAMES = [str(number) for number in range(90)]
SWITCHES = LinearProbe(learning_rates=(1e-2, 1e-1), epochs=30, warmup_epochs=1, batch=8)


class Weigh(nn.Module):
    """A 1 x 1 convolution, a rectifier and the mean: finds a channel that the plain mean over all of them hides."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(4, 8, 1)

    def forward(self, stages: Sequence[torch.Tensor]) -> Features:
        maps = self.convolution(stages[0]).relu()
        return Features((maps,) * 4, maps.mean(dim=(2, 3)))


class Toy(Backbone):
    def __init__(self) -> None:
        super().__init__(CARD)
        self.weight = nn.Parameter(torch.ones(1))

    def neck(self, kind: str = "") -> nn.Module:
        choose("neck of toy", kind or CARD.necks[0], CARD.necks)
        return Weigh()


def maps_of(name: str) -> torch.Tensor:
    """(4, 3, 3): class 1 has its checkerboard in channel 0 stronger, with a mean of zero in every image."""
    number = int(name)
    noise = torch.randn(4, 3, 3, generator=torch.Generator().manual_seed(number)) * 0.1
    board = torch.tensor([[1.0, -1, 1], [-1, 0, -1], [1, -1, 1]])
    noise[0] += board * (2.0 if number % 2 else 0.5)
    return noise - noise.mean(dim=(1, 2), keepdim=True)


def split(first: int, last: int) -> Split:
    names = tuple(str(number) for number in range(first, last))
    vectors = torch.stack([maps_of(name).mean(dim=(1, 2)) for name in names])
    return Split(vectors, torch.tensor([int(name) % 2 for name in names]), names)


class Encoder:
    def __init__(self) -> None:
        self.calls: list[tuple[str, ...]] = []

    def __call__(self, names: Sequence[str]) -> tuple[torch.Tensor, ...]:
        self.calls.append(tuple(names))
        return (torch.stack([maps_of(name) for name in names]),) * 4


def probe(seed: int = 0, switches: LinearProbe = SWITCHES, maps: StageMaps | None = None):
    model = Toy().freeze()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    splits = (split(0, 40), split(40, 60), split(60, 90))
    result = evaluate(model, maps or StageMaps(Encoder(), NAMES, 8), None, *splits, 2, False, seed, switches)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    return result


def test_the_neck_learns_what_no_linear_layer_on_the_mean_can_see():
    assert probe().metrics["accuracy"] == 1.0
    from tasks.linear_probe import evaluate as plain

    blind = plain(split(0, 40), split(40, 60), split(60, 90), 2, False, 0, SWITCHES)
    assert blind.metrics["accuracy"] < 0.8


def test_a_seed_gives_the_same_result_again_and_another_seed_another_path():
    first, again, other = (probe(seed).samples["score"] for seed in (0, 0, 1))
    assert (first == again).all()
    assert (first != other).any()


def test_every_image_is_encoded_once_while_there_is_room():
    encoder = Encoder()
    probe(maps=StageMaps(encoder, NAMES, 8))
    assert sorted((name for call in encoder.calls for name in call), key=int) == NAMES


def test_without_room_nothing_is_kept_and_nothing_changes():
    encoder = Encoder()
    kept = probe()
    encoded = probe(maps=StageMaps(encoder, NAMES, 8, room=0))
    assert (kept.samples["score"] == encoded.samples["score"]).all()
    assert len(encoder.calls) > 100


def test_an_unknown_neck_is_refused_with_those_there_are():
    with pytest.raises(UserError, match=r"no neck of toy 'gw'.*weigh"):
        probe(switches=LinearProbe(neck="gw", epochs=1, warmup_epochs=0))


def test_probes_that_all_diverge_are_refused_as_without_a_neck():
    wild = LinearProbe(optimizer="sgd", learning_rates=(1e20,), epochs=4, warmup_epochs=0, batch=8)
    with pytest.raises(UserError, match="every learning rate diverged"):
        probe(switches=wild)
