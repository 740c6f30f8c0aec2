"""The store: what was computed once, on disk, found again by what made it.

One directory per key (a hash of everything that can change a number: weights, card revision, mode, transform, pooled kind,
data set version, sample names, precision). Data come first, `progress.json` says how much of them is safe, and `index.json`
(with the checksums) is written last: where it stands, the entry is whole. Whoever writes, checks or removes an entry holds
`lock`, whose modification time says when the entry was last used; whoever reads from it for long shares `using`.
Pooled features are kept here (`Entry`), and stage maps by `tasks.common.stage_maps`.
"""

import fcntl
import hashlib
import json
import os
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from models.common.errors import UserError, one_line
from models.common.files import sha256, write_whole

INDEX, PROGRESS = "index.json", "progress.json"
LOCK, USING = "lock", "using"
UNITS = {"": 1, "B": 1, **{f"{unit}B": 1000**power for power, unit in enumerate("KMGTP", 1)}}
UNITS |= {f"{unit}IB": 1024**power for power, unit in enumerate("KMGTP", 1)}


def parse_size(text: str) -> int:
    """Bytes of `50GB`, `1.5 TB`, `500MiB` or plain `1000000`; GB are 10^9, GiB 2^30; upper or lower case."""
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?([A-Za-z]*)", text.strip())
    size = int(float(found[1]) * UNITS[found[2].upper()]) if found and found[2].upper() in UNITS else 0
    if size < 1:
        raise UserError(f"{text!r} is no size; write something like 50GB, 500MB or a number of bytes")
    return size


def in_words(size: float) -> str:
    """A number of bytes as people say it: `4.6 GB`."""
    if size < 1000:
        return f"{size:.0f} bytes"
    for unit in ("kB", "MB", "GB"):
        size /= 1000
        if size < 999.95:
            return f"{size:.1f} {unit}"
    return f"{size / 1000:.1f} TB"


def read_json(path: Path) -> dict[str, Any]:
    """What an index or progress file says; nothing where it is absent or damaged."""
    with suppress(OSError, ValueError):
        content = json.loads(path.read_text())
        if isinstance(content, dict):
            return content
    return {}


def write_json(path: Path, content: Any) -> None:
    """Write JSON whole or not at all; a full disk is a `UserError`."""
    try:
        write_whole(path, json.dumps(content, sort_keys=True))
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; free some space or choose another folder") from error


def finish(directory: Path, content: Mapping[str, Any]) -> None:
    """Call an entry whole: the index, last of all its files."""
    write_json(directory / INDEX, content)
    (directory / PROGRESS).unlink(missing_ok=True)


def clear(directory: Path) -> None:
    """Forget what an entry holds, the index first; its locks stay with those who hold them."""
    (directory / INDEX).unlink(missing_ok=True)
    for path in directory.iterdir():
        if path.name not in (LOCK, USING):
            path.unlink(missing_ok=True)


def remove(directory: Path) -> None:
    """Remove an entry whose lock the caller holds; those who wait for that lock notice, and make it anew (`hold`)."""
    clear(directory)
    for name in (USING, LOCK):
        (directory / name).unlink(missing_ok=True)
    with suppress(OSError):  # somebody has already begun to make it anew
        directory.rmdir()


def hold(path: Path, how: int) -> int:
    """Lock a file, made if need be, and return the descriptor that has the lock until it is closed.

    `how` is that of `fcntl.flock`. Whoever had the file before may have removed it: then the lock is that of a file which
    nobody else will find, and the file that stands there now is tried. Raises `OSError`.
    """
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except FileNotFoundError:  # its folder was removed between the two lines
            continue
        try:
            fcntl.flock(descriptor, how)
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        except FileNotFoundError:
            pass
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


@contextmanager
def locked(store: Path, key: Mapping[str, Any]) -> Iterator[Path]:
    """The directory of `key`, locked and marked as used now: a second process that wants the same entry waits."""
    directory = store / hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:24]
    try:
        lock = hold(directory / LOCK, fcntl.LOCK_EX)
    except OSError as error:
        raise UserError(f"cannot use {store} as the store: {one_line(error)}; choose another with --store") from error
    try:
        os.utime(directory / LOCK)
        yield directory
    finally:
        os.close(lock)


def evict(store: Path, limit: int, keep: Collection[Path] = ()) -> int:
    """Remove the least recently used entries of a store until it holds at most `limit` bytes; return what it holds then.

    Entries in `keep`, entries that somebody writes or reads, and whatever is no entry stay, even if the store then remains
    above the limit.
    """
    try:
        alone = hold(store / "evict.lock", fcntl.LOCK_EX)  # two at once would each remove what one of them has to
    except OSError as error:
        raise UserError(f"cannot use {store} as the store: {one_line(error)}; choose another with --store") from error
    try:
        entries = sorted(_entries(store))
        total = sum(size for _, size, _ in entries)
        for _, size, directory in entries:
            if total <= limit:
                break
            if directory not in keep and _remove_unused(directory):
                total -= size
        return total
    finally:
        os.close(alone)


def _entries(store: Path) -> Iterator[tuple[int, int, Path]]:
    """(last used, bytes, directory) of every entry; files that vanish meanwhile count nothing."""
    for directory in store.iterdir():
        if re.fullmatch("[0-9a-f]{24}", directory.name) and (directory / LOCK).is_file():
            size = used = 0
            with suppress(OSError):
                used = (directory / LOCK).stat().st_mtime_ns
                for path in directory.iterdir():
                    with suppress(OSError):
                        size += path.stat().st_size
            yield used, size, directory


def _remove_unused(directory: Path) -> bool:
    with ExitStack() as held:
        try:
            for name in (LOCK, USING):
                held.callback(os.close, hold(directory / name, fcntl.LOCK_EX | fcntl.LOCK_NB))
            remove(directory)
        except OSError:  # in use, or of somebody whose files are not ours to remove
            return False
    return True


class Entry:
    """One stored table of pooled features (N, D) while it is being written or read."""

    def __init__(self, directory: Path, key: Mapping[str, Any], rows: int) -> None:
        self.directory, self.key, self.rows = directory, dict(key), rows
        self.data, self.index, self.progress = (directory / name for name in ("features.npy", INDEX, PROGRESS))

    def load(self) -> tuple[np.ndarray, dict[str, Any]] | None:
        """The finished features, read-only and memory-mapped, and what was noted with them; None if there are none.

        A file whose checksum is not the recorded one is removed, so that it is computed again and never used.
        """
        if not self.index.exists():
            return None
        try:
            index = read_json(self.index)
            if index["sha256"] == sha256(self.data):
                return np.load(self.data, mmap_mode="r"), index["notes"]
        except (OSError, KeyError):
            pass
        self.discard()
        return None

    def discard(self) -> None:
        """Forget whatever is stored here."""
        clear(self.directory)

    def resume(self) -> tuple[int, dict[str, Any]]:
        """How many rows an interrupted extraction left safe, and its notes; (0, {}) if it left nothing usable."""
        progress = read_json(self.progress)
        if self.data.exists() and {"rows", "notes"} <= progress.keys():
            return progress["rows"], progress["notes"]
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
            raise UserError(
                f"no room for {in_words(self.rows * width * 4)} of features in {self.directory.parent} "
                f"({error.strerror}); free some space or choose another folder with --store"
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
        finish(self.directory, {"key": self.key, "sha256": sha256(self.data), "notes": notes})
        return np.load(self.data, mmap_mode="r")


@contextmanager
def entry(store: Path, key: Mapping[str, Any], rows: int) -> Iterator[Entry]:
    """The entry of pooled features of `key`, locked: a second process that wants the same waits and then finds them."""
    with locked(store, key) as directory:
        yield Entry(directory, key, rows)
