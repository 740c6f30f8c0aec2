"""What a head per pixel sees of one model on one data set: tiles of images, their labels, and the stages for them.

A frozen backbone's stages come from `StageMaps` (disk, memory, or encoded again); where a protocol augments images, leaves
stochastic depth on, or fine-tunes, they are computed for every batch. Of a pair both dates go through the backbone in one
batch, and `fuse` makes one set of stages of the two.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from models.common.backbone import Backbone
from models.common.bands import Transform
from models.common.errors import UserError
from tasks.common.augmentation import draw
from tasks.common.canaries import Canary
from tasks.common.features import Compute, forward
from tasks.common.stage_maps import StageMaps, joined
from tasks.common.tiles import Tile, cut
from tasks.data.dataset import Dataset
from tasks.switches import Dense

Maps = tuple[Tensor, ...]
Fuse = Callable[[Maps, Maps], Maps]
Store = Callable[[Callable[[Sequence[str]], Maps], Sequence[str]], StageMaps]

IGNORE = -1  # what every reader's no-label becomes
DATES = ("before", "after")
LABEL_BYTES = 2**31


class Scenes:
    """Tiles, labels and stages. `store(encode, keys)` makes the `StageMaps` of the frozen backbone; `names` are all images."""

    def __init__(
        self,
        dataset: Dataset,
        transform: Transform,
        backbone: Callable[[], Backbone],
        switches: Dense,
        compute: Compute,
        store: Store,
        names: dict[str, tuple[str, ...]],
        fuse: Fuse | None = None,
    ) -> None:
        self.dataset, self.transform, self.backbone, self.switches = dataset, transform, backbone, switches
        self.compute, self.store, self.names, self.fuse = compute, store, names, fuse
        self.canary = Canary([_band(dataset, name) for name in transform.read])
        self.watched: set[str] = set()
        self.labels: dict[str, np.ndarray] = {}
        self.room = LABEL_BYTES
        self.ignored_class = -1
        if getattr(switches, "no_data", "count") == "ignore":
            self.ignored_class = dataset.card.no_data

    def label(self, name: str) -> np.ndarray:
        """The label of a whole image, (H, W) int16, `IGNORE` where there is none.

        Raises `UserError` for values that are no class, and for what is not a map.
        """
        if name in self.labels:
            return self.labels[name]
        card, stored = self.dataset.card, np.asarray(self.dataset.label(name))
        if stored.ndim != 2:
            raise UserError(f"{name}: its label has {stored.ndim} axes, not the two of a mask")
        label = np.where(stored == card.ignore, IGNORE, stored.astype(np.int64))  # masks of uint8 have no -1
        if label.size and not IGNORE <= label.min() <= label.max() < card.num_classes:
            raise UserError(
                f"{name}: its label holds {label.min()}..{label.max()}, outside the classes 0..{card.num_classes - 1} of "
                f"{card.name}; declare the value as `ignore`, or mend the mask"
            )
        if self.ignored_class >= 0:
            label = np.where(label == self.ignored_class, IGNORE, label)
        label = label.astype(np.int16)
        if label.nbytes <= self.room:
            self.labels[name] = label
            self.room -= label.nbytes
        return label

    def target(self, tile: Tile) -> np.ndarray:
        """The label of a tile, (h, w) int16."""
        return self.label(tile.name)[tile.window]

    def tiles(self, name: str, stride: int) -> list[Tile]:
        """How one image is cut under the protocol's `tile`."""
        side, size = self.switches.tile, self.dataset.card.size
        if not side or 0 < size <= side:  # no need to look at the image
            return [Tile(name)]
        height, width = self.label(name).shape
        return cut(name, height, width, side, stride)

    def training(self, names: Sequence[str]) -> list[Tile]:
        """The tiles of training images, side by side. Tiles without any label teach nothing and are left out."""
        tiles = [tile for name in names for tile in self.tiles(name, self.switches.tile)]
        labelled = [tile for tile in tiles if (self.target(tile) != IGNORE).any()]
        if not labelled:
            raise UserError(f"{self.dataset.card.name}: no pixel of the train split has a label; use more of it")
        sizes = {self.transform.sizes(*self.target(tile).shape)[1]: tile for tile in labelled}
        if len(sizes) > 1:
            self._read(list(sizes.values()))  # a label that does not fit its image is the better reason
            (short, narrow), (tall, wide) = min(sizes), max(sizes)
            raise UserError(
                f"{self.dataset.card.name}: images of {len(sizes)} sizes ({short}x{narrow} to {tall}x{wide}) do not make a "
                "batch; set input_size of the task to `model` or to a side in pixels, or a `tile` that fits into all"
            )
        return labelled

    def inference(self, names: Sequence[str]) -> list[Tile]:
        """The tiles of images that are to be predicted, image by image, overlapping as the protocol says."""
        return [tile for name in names for tile in self.tiles(name, self.switches.tile_stride)]

    @cached_property
    def maps(self) -> StageMaps:
        """The frozen backbone's stages of every tile (of every date) of every split."""
        splits = [self.training(self.names["train"]), *(self.inference(self.names[name]) for name in ("val", "test"))]
        tiles = {tile.key: tile for split in splits for tile in split}
        if not self.fuse:
            self.by_key = {key: (tile, 0) for key, tile in tiles.items()}
        else:
            self.by_key = {f"{key}#{date}": (tile, i) for key, tile in tiles.items() for i, date in enumerate(DATES)}
        return self.store(self._encode, list(self.by_key))

    def _encode(self, keys: Sequence[str]) -> Maps:
        """What the store asks for: stages (B, C_i, H_i, W_i) of tiles of dates, all of one size."""
        tiles = [self.by_key[key] for key in keys]
        patches = self._read([tile for tile, _ in tiles])
        return self._stages([patch[date] for patch, (_, date) in zip(patches, tiles, strict=True)], self.backbone())

    def stages(self, tiles: Sequence[Tile]) -> Maps:
        """Fused stages (B, C_i, H_i, W_i) of the frozen backbone in eval mode."""
        maps = self.maps  # fills `by_key`
        if not self.fuse:
            return maps([tile.key for tile in tiles])
        both = maps([f"{tile.key}#{date}" for date in DATES for tile in tiles])
        return self._fused(both)

    def live(self, tiles: Sequence[Tile], model: Backbone, gradients: bool = False, keys: Sequence[Sequence[int]] = ()):
        """Fused stages and labels (list of (h, w) arrays), computed now, with the `model` in the mode it is in.

        `keys`, one per tile, are seeds of its augmentation; without them there is none.
        """
        patches, targets = self._read(tiles), [self.target(tile) for tile in tiles]
        for index, key in enumerate(keys):
            geometry = draw(self.switches, np.random.default_rng(key))
            patches[index] = geometry(patches[index])
            targets[index] = geometry(targets[index], fill=IGNORE, labels=True)
        dates = range(2 if self.fuse else 1)
        stages = self._stages([patch[date] for date in dates for patch in patches], model, gradients)
        return (self._fused(stages) if self.fuse else stages), targets

    def view(self, name: str, stage: int) -> np.ndarray:
        """One stage (C, h, w) of the frozen backbone for a whole image (of a pair: its later date)."""
        patch = self._read([Tile(name)])[0][-1]
        return self._stages([patch], self.backbone())[stage][0].cpu().numpy()

    def _fused(self, both: Maps) -> Maps:
        assert self.fuse is not None
        half = len(both[0]) // 2
        return self.fuse(tuple(stage[:half] for stage in both), tuple(stage[half:] for stage in both))

    def _stages(self, patches: Sequence[np.ndarray], model: Backbone, gradients: bool = False) -> Maps:
        groups = forward(
            model, [patch[None] for patch in patches], self.transform, self.dataset, "default", self.compute, gradients
        )
        return tuple(stage.float() for stage in joined([group.stages for group in groups]))

    def _read(self, tiles: Sequence[Tile]) -> list[np.ndarray]:
        """Patches of tiles, (dates, C, h, w) float32 in sensor units, non-finite pixels filled."""
        names = list(dict.fromkeys(tile.name for tile in tiles))
        with ThreadPoolExecutor(max(1, self.compute.workers)) as pool:
            images = dict(zip(names, pool.map(lambda name: self.dataset.read(name, self.transform.read), names)))
        patches = []
        for tile in tiles:
            image = images[tile.name] if self.fuse else images[tile.name][None]
            label = self.label(tile.name)
            if image.shape[-2:] != label.shape:
                height, width = image.shape[-2:]
                raise UserError(
                    f"{tile.name}: the image has {height}x{width} pixels and its label {label.shape[0]}x{label.shape[1]}; "
                    "nothing is resized silently, mend one of them"
                )
            patch = image[..., *tile.window].astype(np.float32)
            if tile.key in self.watched:
                patch = np.stack([fill(date, self.canary.bands) for date in patch])
            else:
                self.watched.add(tile.key)
                patch = self.canary.watch(patch)
            patches.append(patch)
        return patches

    def at_label_size(self, logits: Tensor, tile: Tile) -> Tensor:
        """Logits (B, K, h, w) of images like `tile` -> (B, K, H, W) at its own size: padding is cut off, then bilinear."""
        size = self.target(tile).shape
        inner, seen = self.transform.sizes(*size)
        if seen != inner:
            logits = resized(logits, seen)[..., : inner[0], : inner[1]]
        return resized(logits, size)

    def predicted(
        self, names: Sequence[str], logits: Callable[[Sequence[Tile]], Tensor]
    ) -> Iterator[tuple[str, Tensor]]:
        """Every image with its logits (K, H, W) at native size, float32 on the CPU: the mean over its overlapping tiles.

        `logits(tiles)` are the head's, (B, K, h, w), for tiles of one size.
        """
        for name, tiles, outputs in self._by_image(names, logits):
            if len(tiles) == 1:
                yield name, outputs[0]
                continue
            height, width = self.label(name).shape
            total, count = torch.zeros(len(outputs[0]), height, width), torch.zeros(height, width)
            for tile, output in zip(tiles, outputs, strict=True):
                total[:, *tile.window] += output
                count[tile.window] += 1
            yield name, total / count

    def _by_image(
        self, names: Sequence[str], logits: Callable[[Sequence[Tile]], Tensor]
    ) -> Iterator[tuple[str, list[Tile], list[Tensor]]]:
        """Batches of tiles of one size, given back image by image."""
        waiting: dict[str, tuple[list[Tile], list[Tensor]]] = {}
        for batch in self._batches(self.inference(names)):
            found = logits(batch)
            for tile, output in zip(batch, found, strict=True):
                tiles, outputs = waiting.setdefault(tile.name, ([], []))
                tiles.append(tile)
                outputs.append(self.at_label_size(output[None].float(), tile)[0].cpu())
            last = batch[-1].name
            done = [name for name in waiting if name != last]
            for name in done:
                yield name, *waiting.pop(name)
        for name, (tiles, outputs) in waiting.items():
            yield name, tiles, outputs

    def _batches(self, tiles: Sequence[Tile]) -> Iterator[list[Tile]]:
        """Runs of tiles of one size, at most a batch long."""
        batch: list[Tile] = []
        for tile in tiles:
            if batch and (len(batch) == self.compute.batch or self.target(tile).shape != self.target(batch[-1]).shape):
                yield batch
                batch = []
            batch.append(tile)
        if batch:
            yield batch


def fill(image: np.ndarray, bands: Sequence) -> np.ndarray:
    """An image (C, H, W) with non-finite pixels at the band's mean (0 where unknown), as the canary fills them."""
    if np.isfinite(image).all():
        return image
    means = np.array([band.mean if np.isfinite(band.mean) else 0.0 for band in bands], dtype=image.dtype)
    return np.where(np.isfinite(image), image, means[:, None, None])


def resized(logits: Tensor, size: tuple[int, ...]) -> Tensor:
    """Bilinear, corners not aligned; untouched where the size is right."""
    if tuple(logits.shape[-2:]) == tuple(size):
        return logits
    return functional.interpolate(logits, size=tuple(size), mode="bilinear", align_corners=False)


def _band(dataset: Dataset, name: str):
    return next(band for band in dataset.bands if band.name == name)
