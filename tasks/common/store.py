"""The feature store: pooled features on disk, found again by what made them.

One directory per key (a hash of everything that can change a feature: weights, card revision, mode, transform, pooled kind,
data set version, sample names, precision). `features.npy` is written through a memory map, `progress.json` says how many
rows are safe, and `index.json` (with the checksum) is written last: where it stands, the features are whole.
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from models.common.errors import UserError
from models.common.files import sha256, write_whole


def write_json(path: Path, content: Any) -> None:
    """Write JSON whole or not at all; a full disk is a `UserError`."""
    try:
        write_whole(path, json.dumps(content, sort_keys=True))
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; free some space or choose another folder") from error


class Entry:
    """One stored feature table (N, D) while it is being written or read."""

    def __init__(self, directory: Path, key: Mapping[str, Any], rows: int) -> None:
        self.directory, self.key, self.rows = directory, dict(key), rows
        self.data, self.index, self.progress = (
            directory / name for name in ("features.npy", "index.json", "progress.json")
        )

    def load(self) -> tuple[np.ndarray, dict[str, Any]] | None:
        """The finished features, read-only and memory-mapped, and what was noted with them; None if there are none.

        A file whose checksum is not the recorded one is removed, so that it is computed again and never used.
        """
        if not self.index.exists():
            return None
        try:
            index = json.loads(self.index.read_text())
            whole = index["sha256"] == sha256(self.data)
        except (OSError, ValueError, KeyError):
            whole, index = False, {}
        if not whole:
            self.discard()
            return None
        return np.load(self.data, mmap_mode="r"), index["notes"]

    def discard(self) -> None:
        """Forget whatever is stored here; the index goes first."""
        for path in (self.index, self.progress, self.data):
            path.unlink(missing_ok=True)

    def resume(self) -> tuple[int, dict[str, Any]]:
        """How many rows an interrupted extraction left safe, and its notes; (0, {}) if it left nothing usable."""
        try:
            progress = json.loads(self.progress.read_text())
            return (progress["rows"], progress["notes"]) if self.data.exists() else (0, {})
        except (OSError, ValueError, KeyError):
            return 0, {}

    def create(self, width: int) -> np.memmap:
        """A new memory map (N, D); the space is claimed at once, so that a full disk shows now and not as a bus error."""
        self.discard()
        try:
            table = np.lib.format.open_memmap(self.data, mode="w+", dtype=np.float32, shape=(self.rows, width))
            with open(self.data, "r+b") as file:
                os.posix_fallocate(file.fileno(), 0, self.data.stat().st_size)
        except OSError as error:
            self.discard()
            megabytes = self.rows * width * 4 / 1e6
            raise UserError(
                f"no room for {megabytes:.1f} MB of features in {self.directory.parent} ({error.strerror}); "
                "free some space or choose another folder with --store"
            ) from error
        return table

    def checkpoint(self, table: np.memmap, rows: int, notes: Mapping[str, Any]) -> None:
        """Make the first `rows` rows safe: pixels first, then the count."""
        table.flush()
        write_json(self.progress, {"rows": rows, "notes": notes})

    def finish(self, table: np.memmap, notes: Mapping[str, Any]) -> np.ndarray:
        """Flush, checksum, write the index last, and return the features read-only."""
        table.flush()
        with open(self.data, "rb") as file:
            os.fsync(file.fileno())
        write_json(self.index, {"key": self.key, "sha256": sha256(self.data), "notes": notes})
        self.progress.unlink(missing_ok=True)
        return np.load(self.data, mmap_mode="r")


@contextmanager
def entry(store: Path, key: Mapping[str, Any], rows: int) -> Iterator[Entry]:
    """The entry of `key`, locked: a second process that wants the same features waits and then finds them."""
    name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:24]
    directory = store / name
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = (directory / "lock").open("w")
    except OSError as error:
        raise UserError(
            f"cannot use {store} as the feature store: {error.strerror}; choose another with --store"
        ) from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield Entry(directory, key, rows)
