"""Data sets brought to this machine: one at a time, resumable, checked and unpacked; and the twin.

Published checksums are compared with what arrives, where there are any. The sha256 of every file is written to
`<data root>/sources.json` at the first download, and those of every later one are compared with it.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from models.common import files
from models.common.download import FULL, Progress, alone, https
from models.common.errors import UserError, one_line
from tasks.data import archives, catalogue, origins, twin
from tasks.data.dataset import DatasetCard
from tasks.data.origins import Remote

RECORD = "sources.json"


@dataclass(frozen=True)
class Offer:
    """What bringing a data set takes: `files` to download from `origin`, none where it is here, or can be written.

    `target` is the set's directory. `placed` are archives that were put below the data root by hand, by file name.
    """

    card: DatasetCard
    target: Path
    origin: str = ""
    files: tuple[Remote, ...] = ()
    placed: tuple[Path, ...] = ()
    here: bool = False


class Arrival(NamedTuple):
    """A file that is on this machine, and what was published."""

    path: Path
    file: Remote


def remedy(card: DatasetCard) -> str:
    """What to do about a data set that is not on this machine, as one command or phrase."""
    return f"look for {card.location}" if card.family == "folder" else f"`python -m harness data fetch {card.name}`"


def fetch(name: str, data_root: Path, progress: Progress | None = None, *, endpoint: str | None = None) -> Path:
    """`offer` and `bring` in one: the directory of the data set `name` below `data_root`, fetched if it is not there."""
    card = catalogue.card(name)
    with _writing(card, data_root / card.location):
        data_root.mkdir(parents=True, exist_ok=True)
    return bring(offer(card, data_root, endpoint=endpoint), data_root, progress)


def offer(card: DatasetCard, data_root: Path, *, endpoint: str | None = None) -> Offer:
    """What would be fetched for a data set. Asks its publisher for names and sizes, and writes nothing.

    `endpoint` is the publisher's address if not the usual one. Raises `UserError`: no network, a set that is handed out
    on request only or is a folder of one's own, something at its place that is no whole data set.
    """
    if card.family == "folder":
        raise UserError(f"{card.name} cannot be fetched: it is a folder of your own, described by {card.location}")
    target = data_root / card.location
    if card.name in twin.DEMO_CARDS:
        return Offer(card, target)
    found = catalogue.find(card, data_root)
    if found and (card.family != "geobench" or (found / "default_partition.json").is_file()):
        return Offer(card, found, here=True)
    if found or target.exists():
        raise UserError(f"{found or target} is there but no whole data set; move it away and repeat")
    if card.family == "geobench" and (archive := target.with_name(f"{target.name}.zip")).is_file():
        return Offer(card, target, placed=(archive,))
    placed = [data_root / name for name, _ in card.checksums]
    if placed and all(path.is_file() for path in placed):
        return Offer(card, target, placed=tuple(placed))
    if asked := origins.by_hand(card, str(target)):
        raise UserError(f"{card.name} cannot be fetched: {asked}")
    try:
        origin, remotes = origins.files(card, endpoint)
    except UserError as error:
        raise UserError(
            f"{card.name}: {error}; where there is no network, {_without_network(card, data_root)}"
        ) from error
    return Offer(card, target, origin, tuple(remotes))


def _without_network(card: DatasetCard, data_root: Path) -> str:
    target = data_root / card.location
    if card.family == "geobench":
        return f"put {card.location}.zip of that data set at {target}.zip and repeat"
    if card.checksums:
        return f"put {', '.join(name for name, _ in card.checksums)} into {data_root} and repeat"
    return f"unpack a copy of the set at {target} ({card.origin})"


def amount(offered: Offer) -> str:
    """How much would be downloaded, in words."""
    known = [file.size for file in offered.files]
    count = f"{len(known)} file{'s' if len(known) > 1 else ''}"
    if all(known):
        return f"{words(sum(known))} in {count}"
    return f"{count}, " + (f"about {words(offered.card.bytes)}" if offered.card.bytes else "of unknown size")


def words(count: int) -> str:
    """Bytes as a person reads them: 94 MB, 1.2 GB."""
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if size >= 10 or unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def bring(offered: Offer, data_root: Path, progress: Progress | None = None) -> Path:
    """Do what was offered and return the data set's directory; does nothing where it is already.

    A demo set is written (with the whole twin); any other is downloaded, or unpacked from archives that were put below
    the data root. `progress(done, total)` counts bytes downloaded, then unpacked, or images of the twin. Raises
    `UserError`; leaves no half directory, and what was downloaded in part is gone on with by the next call.
    """
    card, directory = offered.card, offered.target
    if card.name in twin.DEMO_CARDS:
        twin.write(data_root / "twin", progress)
        return directory
    if offered.here:
        return directory
    with _writing(card, directory):
        directory.parent.mkdir(parents=True, exist_ok=True)
        with alone(directory.with_name(f".{directory.name}.lock")):
            if directory.exists():  # another process fetched it while this one waited
                return directory
            if offered.placed:
                _install(offered, _placed(offered, data_root), progress)
            else:
                staging = directory.with_name(f".{directory.name}.download")
                _install(offered, _download(offered, staging, data_root, progress), progress)
                shutil.rmtree(staging)
    if catalogue.find(card, data_root) is None:
        raise UserError(f"{card.name} was unpacked to {directory}, but its files are not where {card.origin} has them")
    return directory


@contextmanager
def _writing(card: DatasetCard, directory: Path) -> Iterator[None]:
    """What the operating system refuses while a data set is written becomes one sentence."""
    try:
        yield
    except OSError as error:
        hint = "the disk is full" if error.errno in FULL else one_line(error)
        raise UserError(f"{card.name} cannot be written to {directory} ({hint})") from error


def _placed(offered: Offer, data_root: Path) -> list[Arrival]:
    """Archives that were put there by hand, after comparing them with what is published and with an earlier time."""
    card, published = offered.card, dict(offered.card.checksums)
    found = [
        Arrival(path, Remote("", path.name, 0, published.get(path.name, ""), origins.into(card)))
        for path in offered.placed
    ]
    for path, file in found:
        _verify(path, file, keep=True)
    digests = {path.relative_to(data_root).as_posix(): files.sha256(path) for path in offered.placed}
    compare_and_record(data_root, card.name, digests, _repository(offered))
    return found


def _download(offered: Offer, staging: Path, data_root: Path, progress: Progress | None) -> list[Arrival]:
    """Every file of the offer in `staging`, whole and verified, in the order of the offer."""
    card, repository = offered.card, _repository(offered)
    recorded = {file: _recorded_name(offered, file) for file in offered.files}
    known = {file: file.checksum.partition(":")[2] for file in offered.files if file.checksum.startswith("sha256:")}
    compare_and_record(data_root, card.name, {recorded[file]: known[file] for file in known}, repository)
    total, before, arrived, digests = sum(file.size for file in offered.files), 0, [], {}
    for file in offered.files:
        target = staging / file.path
        report = progress and (lambda done, _, before=before: progress(before + done, total or max(before + done, 1)))
        digests[recorded[file]] = https(file.url, target, sha256=known.get(file, ""), size=file.size, progress=report)
        _verify(target, file)
        before += target.stat().st_size
        arrived.append(Arrival(target, file))
    compare_and_record(data_root, card.name, digests, repository)
    return arrived


def _repository(offered: Offer) -> str:
    return origins.REPOSITORY if offered.card.family == "geobench" else offered.origin or offered.card.origin


def _recorded_name(offered: Offer, file: Remote) -> str:
    """The path in the hub's repository, or the file's own."""
    folder = PurePosixPath(offered.card.location).parent
    return str(folder / file.path) if offered.card.family == "geobench" else file.path


def _verify(path: Path, file: Remote, keep: bool = False) -> None:
    """Raise `UserError` if a file is not the published one; it is removed unless somebody put it there by hand."""
    kind, _, published = file.checksum.partition(":")
    if not published:
        return
    if kind == "blob":
        found = git_blob(path)
    else:
        with open(path, "rb") as content:
            found = hashlib.file_digest(content, kind).hexdigest()
    if found != published:
        if not keep:
            path.unlink()
        what = "git blob id" if kind == "blob" else kind
        remedy = "remove it" if keep else "try again"
        raise UserError(
            f"{file.url or path} is not the published file (its {what} differs: {found}, published {published}); {remedy}"
        )


def _install(offered: Offer, arrived: Sequence[Arrival], progress: Progress | None) -> None:
    """Unpack what is an archive, put the other files beside, and rename the whole to the set's directory."""
    packed = [(path, file.into) for path, file in arrived if archives.is_archive(path.name)]
    with archives.unpacked(packed, offered.target, progress) as content:
        for path, file in arrived:
            if not archives.is_archive(path.name):
                (content / file.path).parent.mkdir(parents=True, exist_ok=True)
                (shutil.copyfile if offered.placed else os.replace)(path, content / file.path)
        os.rename(_whole(offered.card, content, [path for path, _ in packed]), offered.target)


def _whole(card: DatasetCard, content: Path, packed: Sequence[Path]) -> Path:
    """The folder of what was unpacked that is the data set."""
    if card.family == "geobench":
        found = [path.parent for path in content.rglob("default_partition.json")]
        if len(found) != 1:
            source = packed[0] if packed else content
            raise UserError(f"{source} holds {len(found)} data sets (folders with default_partition.json), not one")
        return found[0]
    inner = content / PurePosixPath(card.location).name
    return inner if inner.is_dir() and len(list(content.iterdir())) == 1 else content


def compare_and_record(data_root: Path, name: str, checksums: Mapping[str, str], repository: str) -> None:
    """Compare sha256 by path with what `sources.json` holds for this data set, and add what it does not hold yet."""
    record = data_root / RECORD
    try:
        known = json.loads(record.read_text(encoding="utf-8")) if record.exists() else {}
        entry = known.setdefault(name, {"repository": repository, "sha256": {}})["sha256"]
        differing = [path for path, checksum in checksums.items() if entry.get(path, checksum) != checksum]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{record} is damaged ({error}); move it away and repeat") from error
    if differing:
        path = differing[0]
        raise UserError(
            f"{path} has sha256 {checksums[path]}, but it was {entry[path]} when first fetched; "
            f"to accept the new one remove {name!r} from {record}"
        )
    if not checksums.items() <= entry.items():
        entry.update(checksums)
        files.write_whole(record, json.dumps(known, indent=2, sort_keys=True) + "\n")


def git_blob(path: Path) -> str:
    """The git blob id of a small file, which is all that the hub publishes for those outside its large-file storage."""
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
