"""How much faster the stacked learning-rate sweep is than one torch.optim loop per rate.

    PYTHONPATH=. python tests/benchmarks/probe_stacked.py

Both do the same work (same draws, batches, schedule, best epoch on val) on random features of the size of m-eurosat's,
and the heads they end with are compared. The two are timed alternately and the median of the paired ratios is printed,
so that a machine that is busy for a while slows both. Options: --images, --width, --classes, --epochs, --repeats.
"""

import argparse
from statistics import median
from time import perf_counter

import torch
from torch import Tensor

from tasks import linear_probe
from tasks.common import fit, metrics
from tasks.switches import LinearProbe


def stacked(train: tuple[Tensor, Tensor], val: tuple[Tensor, Tensor], classes: int, switches: LinearProbe) -> Tensor:
    """Weights (L, C, D) of the sweep."""
    kept = linear_probe.sweep(lambda epoch: train, len(train[0]), *val, classes, False, 0, switches)
    return kept.parameters[0]


def separate(train: tuple[Tensor, Tensor], val: tuple[Tensor, Tensor], classes: int, switches: LinearProbe) -> Tensor:
    """Weights (L, C, D) of one loop per learning rate, with torch.nn.Linear and torch.optim.AdamW."""
    width, slices, weights = train[0].shape[1], fit.batches(len(train[0]), switches.batch), []
    for base in switches.learning_rates:
        generator = torch.Generator().manual_seed(0)
        layer = torch.nn.Linear(width, classes)
        draw = (2 * torch.rand(classes, width + 1, generator=generator, dtype=torch.float64) - 1).float() / width**0.5
        layer.weight.data, layer.bias.data = draw[:, :-1].contiguous(), draw[:, -1].clone()
        optimizer = torch.optim.AdamW(layer.parameters(), weight_decay=switches.weight_decay)
        rate, best, weight = torch.tensor([base]), -1.0, layer.weight
        for epoch in range(switches.epochs):
            order = torch.randperm(len(train[0]), generator=generator)
            for step, part in enumerate(slices):
                loss = torch.nn.functional.cross_entropy(layer(train[0][order[part]]), train[1][order[part]])
                optimizer.param_groups[0]["lr"] = float(fit.learning_rate(rate, epoch + step / len(slices), switches))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            with torch.no_grad():
                score = float(metrics.accuracy(layer(val[0]).argmax(dim=1), val[1]))
            if score > best:
                best, weight = score, layer.weight.detach().clone()
        weights.append(weight)
    return torch.stack(weights)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(arguments.classes, arguments.width, generator=generator)

    def draw(count: int) -> tuple[Tensor, Tensor]:
        labels = torch.randint(arguments.classes, (count,), generator=generator)
        return centres[labels] + 6 * torch.randn(count, arguments.width, generator=generator), labels

    train, val = draw(arguments.images), draw(arguments.images // 2)
    switches = LinearProbe(epochs=arguments.epochs, warmup_epochs=min(5, arguments.epochs - 1))
    ratios: list[float] = []
    for repeat in range(arguments.repeats + 1):
        times, weights = [], []
        for way in (stacked, separate):
            start = perf_counter()
            weights.append(way(train, val, arguments.classes, switches))
            times.append(perf_counter() - start)
        difference = float((weights[0] - weights[1]).abs().max())
        if repeat:  # the first pair warms up
            ratios.append(times[1] / times[0])
            print(f"stacked {times[0]:.2f} s, separate {times[1]:.2f} s, weights differ by at most {difference:.1e}")
    print(f"{len(switches.learning_rates)} learning rates at once are {median(ratios):.2f} times as fast as one by one")


if __name__ == "__main__":
    main()
