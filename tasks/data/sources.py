"""Where data sets come from: one set of GEO-Bench v1.0 at a time, resumable, checked and unpacked; and the twin.

GEO-Bench's own downloader (`geobench.geobench_download`) takes all 65 GB of the hub data set `recursix/geo-bench-1.0`;
this one takes the files of one set, at one commit. Checksums are those that the hub publishes. They are written to
`<data root>/sources.json` at the first download, and every later one is compared with them.
"""

import errno
import hashlib
import json
import os
import shutil
import stat
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from models.common import files
from models.common.download import FULL, Progress, alone, https
from models.common.errors import UserError, one_line
from tasks.data import catalogue, twin
from tasks.data.dataset import DatasetCard

REPOSITORY = "recursix/geo-bench-1.0"
RECORD = "sources.json"


class Published(NamedTuple):
    """A file of the hub's repository: path, bytes, git blob id, and the sha256 that the hub gives for large files."""

    path: str
    size: int
    blob: str
    sha256: str


def remedy(card: DatasetCard) -> str:
    """What to do about a data set that is not on this machine, as one command or phrase."""
    return f"look for {card.location}" if card.family == "folder" else f"`python -m harness data fetch {card.name}`"


def fetch(name: str, data_root: Path, progress: Progress | None = None, *, endpoint: str | None = None) -> Path:
    """Bring the data set `name` below `data_root` and return its directory; does nothing where it is already.

    A demo set is written (with the whole twin); any other is downloaded, unless its archive was put at
    `<location>.zip` below the data root. `progress(done, total)` counts bytes downloaded, then unpacked, or images of
    the twin. `endpoint` is the hub's address if not the usual one. Raises `UserError`; leaves no half directory.
    """
    card = catalogue.card(name)
    if card.family != "geobench":
        raise UserError(f"{name} cannot be fetched: it is a folder of your own, described by {card.location}")
    directory = data_root / card.location
    if card.name in twin.DEMO_CARDS:
        twin.write(data_root / "twin", progress)
        return directory
    if found := catalogue.find(card, data_root):
        if not (found / "default_partition.json").is_file():
            raise UserError(f"{found} is there but no whole data set; move it away and repeat")
        return found
    archive = directory.with_name(f"{directory.name}.zip")
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        with alone(directory.with_name(f".{directory.name}.lock")):
            if directory.exists():  # another process fetched it while this one waited
                return directory
            if archive.is_file():
                compare_and_record(data_root, card.name, {f"{card.location}.zip": files.sha256(archive)})
                unpack([archive], directory, progress)
            else:
                _fetch_from_hub(card, data_root, progress, endpoint)
    except OSError as error:
        hint = "the disk is full" if error.errno in FULL else one_line(error)
        raise UserError(f"{card.name} cannot be written to {directory} ({hint})") from error
    return directory


def _fetch_from_hub(card: DatasetCard, data_root: Path, progress: Progress | None, endpoint: str | None) -> None:
    from huggingface_hub import hf_hub_url

    directory = data_root / card.location
    staging = directory.with_name(f".{directory.name}.download")
    try:
        commit, wanted = published(card.location, endpoint)
    except UserError as error:
        place = f"put {card.location}.zip of that data set at {directory}.zip and repeat"
        raise UserError(f"{card.name}: {error}; where there is no network, {place}") from error
    compare_and_record(data_root, card.name, {file.path: file.sha256 for file in wanted if file.sha256})
    total, before, targets = sum(file.size for file in wanted), 0, []
    for file in wanted:
        url = hf_hub_url(REPOSITORY, file.path, repo_type="dataset", revision=commit, endpoint=endpoint)
        target = staging / PurePosixPath(file.path).relative_to(PurePosixPath(card.location).parent)
        report = progress and (lambda done, _, progress=progress, before=before: progress(before + done, total))
        https(url, target, sha256=file.sha256, size=file.size, progress=report)
        if not file.sha256 and git_blob(target) != file.blob:
            target.unlink()
            raise UserError(f"{url} is not the published file (its git blob id differs); try again")
        before += file.size
        targets.append(target)
    compare_and_record(data_root, card.name, {file.path: files.sha256(target) for file, target in zip(wanted, targets)})
    archives = [target for target in targets if target.suffix == ".zip"]
    if archives:
        unpack(archives, directory, progress)
    else:
        os.rename(staging / directory.name, directory)
    shutil.rmtree(staging)


def published(location: str, endpoint: str | None = None) -> tuple[str, list[Published]]:
    """The hub's present commit, and the files there that belong to one data set (`classification_v1.0/m-so2sat`)."""
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

    api, folder = HfApi(endpoint=endpoint), str(PurePosixPath(location).parent)
    try:
        commit = api.dataset_info(REPOSITORY).sha or "main"
        tree = api.list_repo_tree(REPOSITORY, folder, recursive=True, revision=commit, repo_type="dataset")
        entries = [entry for entry in tree if isinstance(entry, RepoFile)]
    except Exception as error:  # the client lets through what its transport raises, which varies between versions
        raise UserError(f"the hub data set {REPOSITORY} cannot be listed ({one_line(error)})") from error
    chosen = set(select(location, [entry.path for entry in entries]))
    found = [
        Published(entry.path, entry.size, entry.blob_id, entry.lfs.sha256 if entry.lfs else "")
        for entry in entries
        if entry.path in chosen
    ]
    if not found:
        raise UserError(f"the hub data set {REPOSITORY} has no {location}")
    return commit, found


def select(location: str, paths: Sequence[str]) -> list[str]:
    """Of the repository's paths those of one data set: its archive, or else the files in its folder."""
    archive = f"{location}.zip"
    return [archive] if archive in paths else [path for path in paths if path.startswith(f"{location}/")]


def compare_and_record(data_root: Path, name: str, checksums: Mapping[str, str]) -> None:
    """Compare sha256 by path with what `sources.json` holds for this data set, and add what it does not hold yet."""
    record = data_root / RECORD
    try:
        known = json.loads(record.read_text(encoding="utf-8")) if record.exists() else {}
        entry = known.setdefault(name, {"repository": REPOSITORY, "sha256": {}})["sha256"]
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


def unpack(archives: Sequence[Path], directory: Path, progress: Progress | None = None) -> None:
    """Unpack one data set's archives and rename the folder in them that holds the partitions to `directory`.

    Refuses members that point outside and symbolic links. Raises `UserError`; `directory` appears whole or not at all.
    """
    content = directory.with_name(f".{directory.name}.unpacking")
    shutil.rmtree(content, ignore_errors=True)
    content.mkdir()
    try:
        for archive in archives:
            try:
                _extract(archive, content, progress)
            except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
                raise UserError(f"{archive} is no whole zip archive ({error}); remove it and fetch again") from error
        found = [path.parent for path in content.rglob("default_partition.json")]
        if len(found) != 1:
            raise UserError(
                f"{archives[0]} holds {len(found)} data sets (folders with default_partition.json), not one"
            )
        os.rename(found[0], directory)
    finally:
        shutil.rmtree(content, ignore_errors=True)


def _extract(archive: Path, target: Path, progress: Progress | None) -> None:
    with zipfile.ZipFile(archive) as opened:
        members = opened.infolist()
        for member in members:
            path = PurePosixPath(member.filename.replace("\\", "/"))
            if path.is_absolute() or ".." in path.parts or ":" in path.parts[0]:
                raise UserError(f"{archive} is refused: its member {member.filename!r} points outside the archive")
            if stat.S_ISLNK(member.external_attr >> 16):
                raise UserError(f"{archive} is refused: its member {member.filename!r} is a symbolic link")
        done, total = 0, sum(member.file_size for member in members)
        if total > shutil.disk_usage(target).free:
            raise OSError(errno.ENOSPC, "no space left")
        for member in members:
            opened.extract(member, target)
            done += member.file_size
            if progress:
                progress(done, total)
