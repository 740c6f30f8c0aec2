"""Archives unpacked safely: nothing outside the target, no links, and a half-unpacked folder is never left behind."""

import errno
import gzip
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from models.common.errors import UserError

Progress = Callable[[int, int], None]
ZIP, TAR = (".zip",), (".tar.gz", ".tgz", ".tar")
DAMAGED = (
    zipfile.BadZipFile,
    tarfile.TarError,
    gzip.BadGzipFile,
    zlib.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
)


def is_archive(name: str) -> bool:
    """True for files that `unpacked` opens."""
    return name.endswith(ZIP + TAR)


@contextmanager
def unpacked(archives: Sequence[tuple[Path, str]], directory: Path, progress: Progress | None = None) -> Iterator[Path]:
    """Unpack archives, each into the folder named beside it (below the content; empty: the top), next to `directory`.

    Gives the folder with the content, for the caller to rename; what is left of it afterwards is removed. `progress(done,
    total)` counts bytes. Raises `UserError` for a damaged archive, and for members that point outside or are links.
    """
    content = directory.with_name(f".{directory.name}.unpacking")
    shutil.rmtree(content, ignore_errors=True)
    content.mkdir(parents=True)
    try:
        for archive, into in archives:
            target = content / into
            target.mkdir(parents=True, exist_ok=True)
            kind, extract = ("zip", _zip) if archive.name.endswith(ZIP) else ("tar", _tar)
            try:
                extract(archive, target, progress)
            except DAMAGED as error:
                raise UserError(f"{archive} is no whole {kind} archive ({error}); remove it and fetch again") from error
        yield content
    finally:
        shutil.rmtree(content, ignore_errors=True)


def _check(archive: Path, member: str, is_link: bool) -> None:
    path = PurePosixPath(member.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or (path.parts and ":" in path.parts[0]):
        raise UserError(f"{archive} is refused: its member {member!r} points outside the archive")
    if is_link:
        raise UserError(f"{archive} is refused: its member {member!r} is a symbolic link")


def _zip(archive: Path, target: Path, progress: Progress | None) -> None:
    with zipfile.ZipFile(archive) as opened:
        members = opened.infolist()
        for member in members:
            _check(archive, member.filename, stat.S_ISLNK(member.external_attr >> 16))
        done, total = 0, sum(member.file_size for member in members)
        if total > shutil.disk_usage(target).free:
            raise OSError(errno.ENOSPC, "no space left")
        for member in members:
            opened.extract(member, target)
            done += member.file_size
            if progress:
                progress(done, total)


def _tar(archive: Path, target: Path, progress: Progress | None) -> None:
    """One pass over the members, since finding them all means decompressing everything; counts compressed bytes."""
    total = archive.stat().st_size
    with open(archive, "rb") as file, tarfile.open(fileobj=file) as opened:
        for member in opened:
            _check(archive, member.name, member.issym() or member.islnk())
            opened.extract(member, target, filter="data")
            if progress:
                progress(min(file.tell(), total), total)
