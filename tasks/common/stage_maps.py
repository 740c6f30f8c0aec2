"""Frozen stage maps by name: kept in memory, stored on disk in half precision, or encoded anew, as room and caller decide."""

import fcntl
import os
import shutil
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from models.common.errors import UserError, choose
from tasks.common.chunks import DTYPES, Chunks, Error, Maps, TooLarge, no_room
from tasks.common.store import (
    INDEX,
    PROGRESS,
    USING,
    clear,
    evict,
    finish,
    hold,
    in_words,
    locked,
    read_json,
    remove,
)

KINDS = ("none", *DTYPES)
FORMAT = 1  # rises when stored maps of before must not be taken for those of now
KEPT_BYTES = 2**31  # stage maps that are not stored are kept in memory up to this size


class MixedShapes(Exception):
    """Images of one batch have maps of different shape; raised by an `encode` that cannot return them as one batch."""


def joined(groups: Sequence[Maps]) -> Maps:
    """Maps (B, C_i, H_i, W_i) of several groups of images as those of one batch, or `MixedShapes`."""
    if len({tuple(stage.shape[1:] for stage in group) for group in groups}) > 1:
        raise MixedShapes
    return tuple(torch.cat(parts) for parts in zip(*groups, strict=True))


class StageMaps:
    """The frozen stages (B, C_i, H_i, W_i) of named images; a name may be a tile of an image or one date of a pair.

    `encode(names)` reads, transforms and encodes a few images; it raises `MixedShapes` if their maps differ in shape.

    Kind `none` encodes a batch when one of its images is first asked for, keeps the maps in memory while there is room, and
    encodes what found none again whenever it is asked for. Kinds `fp16` and `bf16` extract all `names` in one pass, on first
    use, into an entry of `store` that later runs find. Its key is `key` (everything that can change a map: weights, card
    revision, transform, taps, data set version, precision of the forward pass), the names and the kind. An extraction that was
    killed goes on where it was; a second process waits for the first; files that are damaged are computed again. Batches are
    cut by index over `names` whatever is asked for, so that neither a resumed run nor another seed sees others.

    `limit` (bytes) bounds the whole store: the least recently used entries make room. Where maps cannot be stored (no store,
    larger than the limit, or of different shapes) they are treated as kind `none`, and `warnings` says so.
    `progress(done, total)` counts images of the extraction; `remarks()` is asked at its end what was noticed on the way, which
    is kept with the maps and found among the warnings of whoever uses them later. `extracted` is the number of images encoded
    so far, `error` what the stored precision cost (None if nothing is stored). Until `close`, the entry is safe from eviction.
    """

    def __init__(
        self,
        encode: Callable[[Sequence[str]], Maps],
        names: Sequence[str],
        batch: int,
        *,
        kind: str = "none",
        store: Path | None = None,
        key: Mapping[str, Any] | None = None,
        limit: int | None = None,
        progress: Callable[[int, int], None] | None = None,
        remarks: Callable[[], list[str]] = list,
        room: int = KEPT_BYTES,
    ) -> None:
        self.encode, self.batch = encode, batch
        self.names = tuple(dict.fromkeys(names))
        self.position = {name: index for index, name in enumerate(self.names)}
        self.kind = choose("precision of stored stage maps", kind, KINDS)
        self.store, self.key, self.limit = store, key, limit
        self.progress = progress or (lambda done, total: None)
        self.remarks = remarks
        self.extracted = 0
        self.warnings: list[str] = []
        self._chunks: Chunks | None = None
        self._in_memory = kind == "none" or store is None
        self._kept: dict[str, Maps] = {}
        self.room = room
        self._left, self._full = room, False
        self._release: Callable[[], object] = lambda: None
        if kind != "none" and store is None:
            self._warn(f"stage maps are not stored in {kind}: there is no store")
        assert self._in_memory or key, "stage maps stored without a key would be taken for those of other weights"

    def __call__(self, names: Sequence[str]) -> Maps:
        """The maps of `names` (repeats allowed), in that order, float32; stored ones on the CPU, others where encoded.

        Raises `UserError` if they differ in shape, the disk is full, the store cannot be used or fp16 cannot hold them.
        """
        if self._chunks is None and not self._in_memory:
            self._chunks = self._stored()
            self._in_memory = self._chunks is None
        if self._chunks is not None:
            return self._chunks.read([self.position[name] for name in names])
        found = self._remembered(names)
        for name in names:
            if _shapes(found[name]) != _shapes(found[names[0]]):
                raise UserError(
                    f"the stage maps of {names[0]} and {name} differ in shape and cannot form one batch: "
                    "the images differ in size, choose one input size for them"
                )
        return tuple(torch.stack(parts).float() for parts in zip(*(found[name] for name in names), strict=True))

    @property
    def error(self) -> Error | None:
        """The measured relative error of the stored precision."""
        return self._chunks.error if self._chunks else None

    def close(self) -> None:
        """Let go of maps and entry: from now on the entry may be evicted. The next call opens it again."""
        self._release()
        self._chunks = None
        self._kept.clear()
        self._left, self._full = self.room, False

    def _warn(self, text: str) -> None:
        if text not in self.warnings:
            self.warnings.append(text)

    def _encoded(self, names: Sequence[str]) -> Maps:
        """One batch of maps (B, C_i, H_i, W_i)."""
        stages = self.encode(names)
        assert {len(stage) for stage in stages} == {len(names)}, "encode gave another number of maps than images"
        self.extracted += len(names)
        return tuple(stage.detach() for stage in stages)

    def _remembered(self, names: Sequence[str]) -> dict[str, Maps]:
        """Maps (C_i, H_i, W_i) by name, of at least `names`; what is missing is encoded, and kept while there is room."""
        found = {name: self._kept[name] for name in names if name in self._kept}
        missing = [name for name in dict.fromkeys(names) if name not in found]
        while missing:
            start = self.position[missing[0]] // self.batch * self.batch
            part = missing[: self.batch] if self._full else self.names[start : start + self.batch]
            try:
                batches = [self._encoded(part)]
            except MixedShapes:
                batches = [self._encoded([name]) for name in part]
            for name, maps in zip(part, (maps for batch in batches for maps in zip(*batch, strict=True)), strict=True):
                found[name] = self._keep(name, maps)
            missing = [name for name in missing if name not in found]
        return found

    def _keep(self, name: str, maps: Maps) -> Maps:
        size = sum(stage.element_size() * stage.numel() for stage in maps)
        if size > self._left:
            if not self._full:
                self._warn(
                    f"the stage maps of {len(self.names)} images take about {in_words(size * len(self.names))}, more than "
                    "is kept in memory: those that found no room are encoded anew whenever they are asked for"
                )
            self._full = True
            return maps
        self._left -= size
        self._kept[name] = tuple(stage.clone() for stage in maps)  # a view would keep its whole batch
        return self._kept[name]

    def _stored(self) -> Chunks | None:
        """The entry of these maps, extracted if need be, and held against eviction; None if they cannot be stored."""
        assert self.store is not None
        key = {"format": FORMAT, "kind": self.kind, "names": self.names, "maps": dict(self.key or {})}
        with locked(self.store, key) as directory:
            try:
                chunks = self._complete(directory, key)
            except MixedShapes:
                self._warn(
                    f"stage maps are not stored in {self.kind}: the images differ in size, and their maps in shape"
                )
                clear(directory)
                chunks = None
            except TooLarge as error:
                clear(directory)
                other = "bf16" if self.kind == "fp16" else "none"
                raise UserError(f"{error}; store the maps as {other}") from error
            finally:
                if not any((directory / name).exists() for name in (INDEX, PROGRESS)):
                    remove(directory)
            if chunks is None:
                return None
            self._release = weakref.finalize(self, os.close, hold(directory / USING, fcntl.LOCK_SH))
            if self.limit is not None:
                evict(self.store, self.limit, (directory,))
        if chunks.not_finite:
            self._warn(f"the stage maps of {chunks.not_finite} images hold values that are not finite")
        return chunks

    def _complete(self, directory: Path, key: Mapping[str, Any]) -> Chunks | None:
        """Whatever is missing from the entry is encoded and written; None if that would break the limit."""
        chunks = Chunks.found(directory, self.kind, len(self.names))
        first: Maps | None = None
        if chunks is None:
            clear(directory)
            first = self._encoded(self.names[: self.batch])
            chunks = Chunks.fresh(directory, self.kind, first, len(self.names), self.batch)
        if chunks.damaged:
            self._warn(f"{chunks.damaged} files of the stored stage maps were damaged and were computed again")
        if missing := chunks.missing:
            if self.limit is not None and chunks.size > self.limit:
                self._warn(
                    f"stage maps are not stored in {self.kind}: they take {in_words(chunks.size)}, "
                    f"and --store-limit is {in_words(self.limit)}"
                )
                clear(directory)
                return None
            if self.limit is not None:
                evict(directory.parent, self.limit - chunks.missing_bytes, (directory,))
            free = shutil.disk_usage(directory).free
            if chunks.missing_bytes > free:
                raise no_room(chunks, f"{in_words(free)} are free")
            for number in missing:
                chunks.write(number, self._batches(chunks, number, first))
        if not (directory / INDEX).exists():
            finish(directory, {"key": key, **chunks.content(), "remarks": self.remarks()})
        self.warnings += read_json(directory / INDEX).get("remarks", [])
        return chunks

    def _batches(self, chunks: Chunks, number: int, first: Maps | None) -> Iterator[Maps]:
        """The maps of one file, batch by batch; `first` is the very first batch, if it is already there."""
        span = chunks.span(number)
        for start in range(span.start, span.stop, self.batch):
            part = self.names[start : min(start + self.batch, span.stop)]
            stages = first if start == 0 and first is not None else self._encoded(part)
            if [tuple(stage.shape[1:]) for stage in stages] != chunks.shapes:
                raise MixedShapes
            yield stages
            self.progress(start + len(part), len(self.names))


def _shapes(maps: Maps) -> list[torch.Size]:
    return [stage.shape for stage in maps]
