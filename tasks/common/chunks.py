"""Stage maps in half precision on disk: one row per image, in files of moderate size that are mapped into memory to be read.

A row is the maps of one image, flattened and laid end to end, fp16 or bf16. Each file has a checksum, and the error that the
rounding made is measured while the exact numbers are at hand. `tasks.common.stage_maps` decides what is written and when.
"""

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from hashlib import sha256 as digest
from itertools import pairwise
from math import prod, sqrt
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.common.errors import UserError
from models.common.files import sha256
from tasks.common.store import INDEX, PROGRESS, in_words, read_json, write_json

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}
CHUNK_BYTES = 2**26  # what a kill can cost, and a mapping; never less than one batch
Maps = tuple[Tensor, ...]


class TooLarge(Exception):
    """A value lies outside the range of the stored precision."""


@dataclass(frozen=True)
class Error:
    """What rounding did to the worst stage, relative to it.

    `maximum` is max |stored - exact| / max |exact| of the worst batch, `rms` the root of sum (stored - exact)^2 /
    sum exact^2 over all images; values that are not finite are left out of both.
    """

    maximum: float
    rms: float


class Chunks:
    """The rows of one entry: `rows` images with maps of `shapes` (C_i, H_i, W_i), `per_chunk` of them in each file.

    `records` says of every file that is safe its sha256 and the error measured in it; `damaged` counts those found otherwise.
    """

    def __init__(
        self,
        directory: Path,
        kind: str,
        shapes: Sequence[Sequence[int]],
        rows: int,
        per_chunk: int,
        records: dict[str, dict[str, Any]] | None = None,
    ) -> None:
        self.directory, self.kind, self.dtype = directory, kind, DTYPES[kind]
        self.shapes = [tuple(shape) for shape in shapes]
        self.rows, self.per_chunk, self.records = rows, per_chunk, dict(records or {})
        ends = [sum(prod(shape) for shape in self.shapes[:count]) for count in range(len(self.shapes) + 1)]
        self.columns = [slice(start, stop) for start, stop in pairwise(ends)]
        self.width = ends[-1]
        self.damaged = 0
        self._mapped: dict[int, Tensor] = {}

    @classmethod
    def fresh(cls, directory: Path, kind: str, stages: Maps, rows: int, batch: int) -> "Chunks":
        """Nothing stored yet, for maps like `stages` (B, C_i, H_i, W_i); files hold whole batches."""
        of_one = sum(stage[0].numel() for stage in stages) * DTYPES[kind].itemsize
        per_chunk = max(1, CHUNK_BYTES // (of_one * batch)) * batch
        return cls(directory, kind, [stage.shape[1:] for stage in stages], rows, per_chunk)

    @classmethod
    def found(cls, directory: Path, kind: str, rows: int) -> "Chunks | None":
        """What a finished or interrupted extraction has left, every file checked; None if there is nothing usable.

        Files that are gone, cut or altered are no longer among the records, nor does the index then stand.
        """
        content = read_json(directory / INDEX) or read_json(directory / PROGRESS)
        try:
            chunks = cls(directory, kind, content["shapes"], rows, content["per_chunk"], content["chunks"])
        except (KeyError, TypeError, ValueError):
            return None
        with ThreadPoolExecutor(4) as pool:
            whole = dict(zip(chunks.records, pool.map(chunks._is_whole, chunks.records)))
        chunks.damaged = list(whole.values()).count(False)
        if chunks.damaged:
            chunks.records = {number: record for number, record in chunks.records.items() if whole[number]}
            write_json(directory / PROGRESS, chunks.content())
            (directory / INDEX).unlink(missing_ok=True)
        return chunks

    def content(self) -> dict[str, Any]:
        """What index and progress say of the files."""
        return {
            "kind": self.kind,
            "shapes": self.shapes,
            "per_chunk": self.per_chunk,
            "chunks": self.records,
            "error": asdict(self.error) if self.records else None,
        }

    @property
    def size(self) -> int:
        """Bytes of all rows."""
        return self.rows * self.width * self.dtype.itemsize

    @property
    def missing(self) -> list[int]:
        """Numbers of the files that are not safe on disk."""
        return [number for number in range(-(-self.rows // self.per_chunk)) if str(number) not in self.records]

    @property
    def missing_bytes(self) -> int:
        return sum(len(self.span(number)) for number in self.missing) * self.width * self.dtype.itemsize

    @property
    def error(self) -> Error:
        """The error over all files that are safe."""
        records = self.records.values()
        squares = [[sum(column) for column in zip(*(one[name] for one in records))] for name in ("gaps", "squares")]
        return Error(
            max(one["maximum"] for one in records),
            max(sqrt(gap / square) if square else 0.0 for gap, square in zip(*squares)),
        )

    @property
    def not_finite(self) -> int:
        """How many images have a map with NaN or infinity."""
        return sum(one["not_finite"] for one in self.records.values())

    def span(self, number: int) -> range:
        """The rows of a file."""
        start = number * self.per_chunk
        return range(start, min(start + self.per_chunk, self.rows))

    def path(self, number: int | str) -> Path:
        return self.directory / f"maps-{int(number):05d}.bin"

    def write(self, number: int, batches: Iterable[Maps]) -> None:
        """Round the rows of one file, measure what that does, write them, and only then call them safe.

        `batches` are maps (B, C_i, H_i, W_i), float32, in the order of the rows. Raises `TooLarge`, and `UserError` for a
        full disk, which leaves the files already safe.
        """
        table = torch.empty((len(self.span(number)), self.width), dtype=self.dtype)
        maximum, not_finite, row = 0.0, 0, 0
        gaps, squares = [0.0] * len(self.shapes), [0.0] * len(self.shapes)
        for stages in batches:
            count = len(stages[0])
            broken = torch.zeros(count, dtype=torch.bool)
            for index, stage in enumerate(stages):
                exact = stage.flatten(1).float()
                stored = exact.to(self.dtype)
                table[row : row + count, self.columns[index]] = stored.cpu()
                gap = stored.float() - exact
                if not exact.sum(1).isfinite().all():
                    finite = exact.isfinite()
                    broken |= ~finite.all(1).cpu()
                    exact, gap = exact.where(finite, 0), gap.where(finite, 0)
                peak = exact.abs().max().item()
                if peak > torch.finfo(self.dtype).max:
                    raise TooLarge(f"stage {index + 1} reaches {peak:.3g}, which {self.kind} cannot hold")
                maximum = max(maximum, gap.abs().max().item() / peak if peak else 0.0)
                gaps[index] += _squares(gap)
                squares[index] += _squares(exact)
            not_finite += int(broken.sum())
            row += count
        assert row == len(table), f"{row} maps for the {len(table)} rows of file {number}"
        data = memoryview(table.view(torch.int16).numpy()).cast("B")
        self._write(self.path(number), data)
        self.records[str(number)] = {
            "sha256": digest(data).hexdigest(),
            "maximum": maximum,
            "gaps": gaps,
            "squares": squares,
            "not_finite": not_finite,
        }
        write_json(self.directory / PROGRESS, self.content())

    def _write(self, path: Path, data: memoryview) -> None:
        path.unlink(missing_ok=True)  # another process may still read the file that stood here
        try:
            with open(path, "xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            path.unlink(missing_ok=True)
            raise no_room(self, error.strerror or str(error)) from error

    def _is_whole(self, number: str) -> bool:
        try:
            return self.records[number]["sha256"] == sha256(self.path(number))
        except OSError:
            return False

    def read(self, rows: Sequence[int]) -> Maps:
        """The maps (B, C_i, H_i, W_i) of some rows, in that order, float32 on the CPU."""
        found = [self._file(row // self.per_chunk)[row % self.per_chunk] for row in rows]
        return tuple(
            torch.stack([one[columns] for one in found]).float().view(len(rows), *shape)
            for columns, shape in zip(self.columns, self.shapes)
        )

    def _file(self, number: int) -> Tensor:
        """The rows of one file, mapped into memory on first use."""
        if number not in self._mapped:
            # Unlike numpy's, this mapping knows bf16 and needs no open file.
            shape = (len(self.span(number)), self.width)
            mapped = torch.from_file(str(self.path(number)), shared=False, size=prod(shape), dtype=self.dtype)
            self._mapped[number] = mapped.view(shape)
        return self._mapped[number]


def _squares(rows: Tensor) -> float:
    """The sum of squares of (B, N); float32 within a row, which is fast, and float64 beyond."""
    return torch.linalg.vector_norm(rows, dim=1).double().square().sum().item()


def no_room(chunks: Chunks, reason: str) -> UserError:
    """The one sentence for a disk that is or will be full."""
    kept = "; what is stored already is kept, and the next run goes on from there" if chunks.records else ""
    return UserError(
        f"no room for {in_words(chunks.missing_bytes)} of stage maps in {chunks.directory.parent} ({reason}); free some "
        f"space, choose another folder with --store, or let --store-limit remove what was not used for long{kept}"
    )
