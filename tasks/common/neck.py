"""Linear probing through a neck: what an adapter offers to be learned between its frozen stages and the head.

SatDiFuser's fuser is one: its tables measure a fuser trained with the head on every task, so a probe of the bare maps
would not be SatDiFuser. One neck and one linear layer per learning rate are trained side by side on the same batches.
"""

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from models.common.backbone import Backbone
from tasks.common import fit, metrics
from tasks.common.chunks import Maps
from tasks.common.splits import Result, Split, check
from tasks.common.stage_maps import StageMaps
from tasks.linear_probe import chosen, edge_note, score
from tasks.switches import LinearProbe


class Probe(nn.Module):
    """A fresh neck and a linear layer on its vector."""

    def __init__(self, model: Backbone, kind: str, stages: Maps, num_classes: int) -> None:
        super().__init__()
        self.neck = model.neck(kind)
        with torch.no_grad():
            width = deepcopy(self.neck).to(stages[0].device).eval()(stages).pooled.shape[1]
        self.head = nn.Linear(width, num_classes)

    def forward(self, stages: Maps) -> Tensor:
        """Stages (B, C_i, H_i, W_i) -> logits (B, classes)."""
        return self.head(self.neck(stages).pooled)


def evaluate(
    model: Backbone,
    maps: StageMaps,
    fresh: Callable[[Sequence[str], int], Maps] | None,
    train: Split,
    val: Split,
    test: Split,
    num_classes: int,
    multilabel: bool,
    seed: int,
    switches: LinearProbe,
) -> Result:
    """Train neck and head per learning rate, keep its best epoch and then the best rate on val, score that once on test.

    `fresh(names, epoch)` gives augmented training maps where a protocol wants them. Metrics, samples and choices are those of
    `tasks.linear_probe.evaluate`; the exact logistic solve has no counterpart. All probes of a seed start alike.
    """
    check(num_classes, multilabel, train=train, val=val, test=test)
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        stages = maps(train.names[:1])
        first = Probe(model, "" if switches.neck == "default" else switches.neck, stages, num_classes)
        first.to(stages[0].device)
    probes = [deepcopy(first) for _ in switches.learning_rates]
    names = [name for name, _ in first.named_parameters()]
    stacked = [torch.stack([parameter.detach()] * len(probes)) for parameter in first.parameters()]

    def logits(number: int, stages: Maps, parameters: Sequence[Tensor]) -> Tensor:
        own = dict(zip(names, (parameter[number] for parameter in parameters), strict=True))
        return torch.func.functional_call(probes[number], own, (stages,))

    def epoch_batches(epoch: int) -> Iterator[tuple[Tensor, ...]]:
        order = torch.randperm(len(train.names), generator=generator).tolist()
        for probe in probes:
            probe.train()
        for part in slices:
            rows = order[part]
            drawn = [train.names[row] for row in rows]
            yield (train.labels[rows], *(fresh(drawn, epoch) if fresh else maps(drawn)))

    def loss(labels: Tensor, *stages: Tensor) -> Tensor:
        losses = []
        for number in range(len(probes)):
            predicted = logits(number, stages, stacked)
            wanted = labels.to(predicted.device)
            losses.append(
                binary_cross_entropy_with_logits(predicted, wanted.to(predicted.dtype))
                if multilabel
                else cross_entropy(predicted, wanted)
            )
        return torch.stack(losses)

    def predict(number: int, split: Split, parameters: Sequence[Tensor]) -> Tensor:
        probes[number].eval()
        parts = [split.names[start : start + maps.batch] for start in range(0, len(split.names), maps.batch)]
        with torch.no_grad():
            return torch.cat([logits(number, maps(part), parameters) for part in parts]).cpu()

    def validate() -> Tensor:
        scores = []
        for number in range(len(probes)):
            predicted = predict(number, val, stacked)
            own = metrics.selection_score(metrics.classify(predicted, multilabel)[None], val.labels, multilabel)[0]
            scores.append(own if bool(torch.isfinite(predicted).all()) else torch.tensor(-torch.inf))
        return torch.stack([one.double() for one in scores]).to(stacked[0].device)

    slices = fit.batches(len(train.names), switches.batch)
    kept = fit.fit(stacked, epoch_batches, len(slices), loss, validate, switches)
    best, choices = chosen(kept, switches)
    notes = (
        f"a neck ({switches.neck}) was trained with the head; no logistic solve",
        *edge_note("learning rate", switches.learning_rates, best),
    )
    return score(predict(best, test, kept.parameters), test.labels, multilabel, choices, notes)
