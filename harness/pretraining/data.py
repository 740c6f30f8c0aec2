"""Batches by number: which images a step sees, and which chance makes their views, follow from the seed and the step."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from models.common.errors import UserError
from models.pretraining.builder import Pretraining


class Samples(Protocol):
    """What `tasks.data.unlabelled` gives: samples of images by sensor, float32 (C, H, W), by number."""

    @property
    def layout(self) -> str: ...

    def __len__(self) -> int: ...

    def __getitem__(self, number: int, /) -> dict[str, np.ndarray]: ...

    @property
    def digest(self) -> str: ...


class Item(NamedTuple):
    """One image of one epoch."""

    epoch: int
    number: int


@dataclass
class StepBatches(Sampler[list[Item]]):
    """The batches of one process from step `start` on, `accumulate` of them to a step.

    An epoch is a permutation of all items keyed by (seed, epoch), cut into batches of `batch`; the rest is left out, as
    DINO's loader drops it. Of every part of a batch each process takes an equal run of neighbours.
    """

    items: int
    batch: int
    accumulate: int
    total: int
    seed: int
    rank: int = 0
    processes: int = 1
    start: int = 0

    def __post_init__(self) -> None:
        divisor = self.accumulate * self.processes
        if self.batch % divisor:
            raise UserError(
                f"a batch of {self.batch} does not divide into {self.accumulate} part(s) on {self.processes} "
                f"process(es): choose --batch as a multiple of {divisor}"
            )
        if self.items < self.batch:
            raise UserError(
                f"the data hold {self.items} images, fewer than the {self.batch} of a batch: give more, or a smaller --batch"
            )

    @property
    def epoch_steps(self) -> int:
        """Steps of an epoch."""
        return self.items // self.batch

    def step(self, number: int) -> np.ndarray:
        """The numbers of the images of a step, by all processes (batch,)."""
        epoch, place = divmod(number, self.epoch_steps)
        return self._order(epoch)[place * self.batch : (place + 1) * self.batch]

    def __iter__(self) -> Iterator[list[Item]]:
        for number in range(self.start, self.total):
            epoch = number // self.epoch_steps
            for part in np.split(self.step(number), self.accumulate):
                own = np.split(part, self.processes)[self.rank]
                yield [Item(epoch, int(each)) for each in own]

    def __len__(self) -> int:
        return (self.total - self.start) * self.accumulate

    def _order(self, epoch: int) -> np.ndarray:
        if getattr(self, "_epoch", None) != epoch:
            self._epoch, self._permutation = epoch, np.random.default_rng([self.seed, epoch]).permutation(self.items)
        return self._permutation


class ViewSet(Dataset[Any]):
    """Views by item. An image is read anew in every epoch; `items` may be several times the images (see `repeats`).

    What cannot be read becomes a sentence in place of the views, because an exception that crosses from a worker brings
    its traceback into the message.
    """

    def __init__(self, images: Samples, method: Pretraining, seed: int, here: bool = True) -> None:
        self.images, self.method, self.seed, self.here = images, method, seed, here

    def __getitem__(self, item: Item) -> dict[str, Tensor] | str | tuple[Item, dict[str, Tensor]]:
        try:
            arrays = self.images[item.number % len(self.images)]
            sample = {sensor: torch.from_numpy(array) for sensor, array in arrays.items()}
            return self.method.views(sample, generator(self.seed, item)) if self.here else (item, sample)
        except UserError as error:
            return str(error)


def generator(seed: int, item: Item) -> torch.Generator:
    """The chance of one item: the same on every machine and for any number of workers or processes."""
    key = np.random.SeedSequence([seed, item.epoch, item.number]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(key >> np.uint64(1)))


def stacked(views: Sequence[Any]) -> Any:
    """Views of a batch, stacked (B, ...); the first sentence where an image could not be read; samples as they are."""
    wrong = next((view for view in views if isinstance(view, str)), None)
    if wrong is not None:
        return wrong
    return default_collate(list(views)) if isinstance(views[0], dict) else list(views)


class Loader:
    """Batches of views from step `start` on, made in `workers` processes (0: in this one), or on the device.

    Workers are forked, so that they share the images' index and the method with this process instead of receiving a copy
    each; they make views on the CPU alone. With `on_device` they only read, and views are made where the training is.
    """

    def __init__(
        self,
        images: Samples,
        method: Pretraining,
        batches: StepBatches,
        workers: int,
        device: torch.device,
        on_device: bool,
    ) -> None:
        self.method, self.plan, self.device, self.on_device = method, batches, device, on_device
        self.start = 0
        self.loader = DataLoader(
            ViewSet(images, method, batches.seed, here=not on_device),
            batch_sampler=batches,
            num_workers=workers,
            collate_fn=stacked,
            pin_memory=device.type == "cuda" and not on_device,
            prefetch_factor=4 if workers else None,
            multiprocessing_context="fork" if workers else None,
            worker_init_fn=_one_thread,
            generator=torch.Generator(),  # otherwise the loader takes a number from the global one when it starts
        )

    def __iter__(self) -> Iterator[dict[str, Tensor] | str]:
        self.plan.start = self.start
        for batch in self.loader:
            yield batch if isinstance(batch, str | dict) else default_collate([self.there(*pair) for pair in batch])

    def there(self, item: Item, sample: dict[str, Tensor]) -> dict[str, Tensor]:
        """The views of one sample, made on the device; the numbers are those that a worker would draw."""
        moved = {sensor: image.to(self.device, non_blocking=True) for sensor, image in sample.items()}
        return self.method.views(moved, generator(self.plan.seed, item))


def _one_thread(_: int) -> None:
    """A worker per core already keeps the cores busy."""
    torch.set_num_threads(1)
