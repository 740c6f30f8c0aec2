"""One pass over the images: read, transform, encode, store. Every head, seed, k and train fraction lives on its result."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.common.backbone import Backbone, Features
from models.common.bands import Transform
from models.common.errors import UserError
from tasks.common.canaries import Canary
from tasks.common.store import entry
from tasks.data.dataset import Dataset

Progress = Callable[[str, int, int], None]
CHECKPOINT_BATCHES = 16


@dataclass(frozen=True)
class Compute:
    """Where and how fast: provenance, never identity (except `precision`, which changes numbers)."""

    device: str = "cpu"
    precision: str = "fp32"
    batch: int = 32
    workers: int = 2


@dataclass(frozen=True)
class Table:
    """Pooled features (N, D) of `names`, and what the extraction noticed."""

    names: tuple[str, ...]
    features: np.ndarray
    warnings: tuple[str, ...]
    extracted: int

    def rows(self, names: Sequence[str]) -> Tensor:
        """Features (len(names), D), float32, in the order of `names`."""
        position = {name: index for index, name in enumerate(self.names)}
        return torch.from_numpy(np.ascontiguousarray(self.features[[position[name] for name in names]]))


def extract(
    backbone: Callable[[], Backbone],
    dataset: Dataset,
    names: Sequence[str],
    transform: Transform,
    *,
    pooled: str,
    weights_digest: str,
    card_revision: str,
    store: Path,
    compute: Compute,
    progress: Progress,
    strict: bool = False,
) -> Table:
    """Return the pooled features of `names`, from the store if they are there; `backbone` is only called if they are not.

    Batches are cut by index, always the same, so that a resumed extraction sees the batches of an undisturbed one.
    Raises `UserError` under `strict` if a canary has anything to say.
    """
    names = tuple(dict.fromkeys(names))
    key = {
        "weights": weights_digest,
        "card": card_revision,
        "transform": transform.describe(),
        "pooled": pooled,
        "dataset": [dataset.card.name, dataset.version, [band.name for band in dataset.bands]],
        "names": list(names),
        "precision": compute.precision,
    }
    with entry(store, key, len(names)) as slot:
        stored = slot.load()
        if stored is not None:
            features, notes = stored
            _refuse(notes["warnings"], dataset, strict)
            return Table(names, features, tuple(notes["warnings"]), 0)
        done, notes = slot.resume()
        done -= done % compute.batch
        table = np.load(slot.data, mmap_mode="r+") if done else None
        canary = Canary([_band(dataset, name) for name in transform.read], notes.get("canary") if done else None)
        model = backbone()
        for count, (start, patches) in enumerate(_batches(dataset, names, transform.read, compute, done), 1):
            vectors = encode(
                model, [canary.watch(patch[None]) for patch in patches], transform, dataset, pooled, compute
            )
            if table is None:
                table = slot.create(vectors.shape[1])
            table[start : start + len(vectors)] = vectors
            progress(dataset.card.name, start + len(vectors), len(names))
            if count % CHECKPOINT_BATCHES == 0:
                slot.checkpoint(table, start + len(vectors), {"canary": canary.state})
        assert table is not None, "an extraction of no images reached the store"
        warnings = canary.warnings()
        _refuse(warnings, dataset, strict)
        features = slot.finish(table, {"warnings": warnings})
        return Table(names, features, tuple(warnings), len(names) - done)


def _refuse(warnings: Sequence[str], dataset: Dataset, strict: bool) -> None:
    if strict and warnings:
        raise UserError(f"{dataset.card.name}: {warnings[0]} (--strict makes warnings errors; {len(warnings)} in all)")


def _band(dataset: Dataset, name: str) -> Any:
    return next(band for band in dataset.bands if band.name == name)


def _batches(
    dataset: Dataset, names: Sequence[str], bands: Sequence[str], compute: Compute, start: int
) -> Iterator[tuple[int, list[np.ndarray]]]:
    """(first index, patches (C, H, W)) batch by batch; the next batch is read while the caller computes."""
    cuts = range(start, len(names), compute.batch)
    with ThreadPoolExecutor(max(1, compute.workers)) as pool:

        def submit(cut: int) -> list[Any]:
            return [pool.submit(dataset.read, name, bands) for name in names[cut : cut + compute.batch]]

        waiting = [submit(cut) for cut in cuts[:1]]
        for index, cut in enumerate(cuts):
            if index + 1 < len(cuts):
                waiting.append(submit(cuts[index + 1]))
            try:
                yield cut, [future.result() for future in waiting.pop(0)]
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise


def encode(
    model: Backbone,
    patches: Sequence[np.ndarray],
    transform: Transform,
    dataset: Dataset,
    pooled: str,
    compute: Compute,
) -> np.ndarray:
    """Patches, each (1, C, H, W) in sensor units -> pooled vectors (B, D), float32."""
    found = [features.pooled.float() for features in forward(model, patches, transform, dataset, pooled, compute)]
    return torch.cat(found).cpu().numpy()


def forward(
    model: Backbone,
    patches: Sequence[np.ndarray],
    transform: Transform,
    dataset: Dataset,
    pooled: str,
    compute: Compute,
    gradients: bool = False,
) -> list[Features]:
    """Patches, each (1, C, H, W) in sensor units -> their features, in order, in groups of equal size.

    Images of one size are encoded together; where sizes differ and stay different after the transform, one by one.
    With `gradients` the features lead back to the backbone's parameters.
    """
    device = torch.device(compute.device)
    tensors = [torch.from_numpy(patch).to(device, non_blocking=True) for patch in patches]
    groups = [torch.cat(tensors)] if len({tensor.shape for tensor in tensors}) == 1 else tensors
    autocast = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[compute.precision]
    found = []
    try:
        with torch.set_grad_enabled(gradients), torch.autocast(device.type, autocast, enabled=autocast is not None):
            for group in groups:
                batch = transform.batch(group, dataset.card.gsd)
                found.append(model(batch, pooled))
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"{compute.device} ran out of memory with {len(patches)} images; choose a smaller --batch-size"
        ) from error
    return found
