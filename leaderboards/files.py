"""Files that are whole or absent: written beside their place, forced to the disk, then renamed."""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path


class JournalError(ValueError):
    """A mistake with the journal or a table that the caller can mend: what is wrong, where, and what to do."""


@contextmanager
def refusal(path: Path) -> Iterator[None]:
    """Turn what the operating system refuses while `path` is written into a `JournalError` with the remedy."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        reason = "no space left" if full else error.strerror or str(error)
        remedy = "free some space or choose another folder" if full else "choose a folder that can be written"
        raise JournalError(
            f"cannot write {path}: {reason}; {remedy}, then run again (what is recorded is kept)"
        ) from error


@contextmanager
def staged(path: Path, data: bytes) -> Iterator[Path]:
    """A complete temporary file beside `path`, on the disk, for the caller to rename; removed if that does not happen.

    Its name holds machine and process, so that two writers never share one, and leftovers of a killed writer are known
    for what they are: the next writer of the same path removes them.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{path.name}.{os.uname().nodename}."
    for leftover in path.parent.glob(f"{escape(prefix)}*.tmp"):
        if not _alive(leftover.name.removeprefix(prefix).removesuffix(".tmp")):
            leftover.unlink(missing_ok=True)
    temporary = path.with_name(f"{prefix}{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def _alive(process: str) -> bool:
    try:
        os.kill(int(process), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:
        pass
    return True


def write_atomically(path: Path, data: bytes) -> None:
    """Put `data` at `path`: at any moment, and after any crash, a reader sees the old file or the new one, whole.

    Raises `JournalError` if it cannot be written.
    """
    with refusal(path), staged(path, data) as temporary:
        os.replace(temporary, path)
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Force the names in a folder to the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Hold the folder's `.lock`, so that two processes do not supersede one record at once.

    Where the file system has no locks the block runs without: every file is still whole, but such a race is open.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
