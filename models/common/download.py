"""Downloads that can be interrupted at any point: the file is there whole and verified, or not at all.

For weights and data sets alike; the standard library, and huggingface_hub where a file lives on that hub.
"""

import errno
import json
import os
import shutil
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPException, HTTPResponse
from io import StringIO
from pathlib import Path
from typing import IO, Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from models.common import files
from models.common.errors import UserError, one_line

CHUNK = 1 << 20
# Seconds to wait before the next attempt after one that brought nothing; after the last of them it is given up.
WAITS = (1.0, 3.0, 9.0)
TIMEOUT = 60.0
AGENT = "eo-harness"
FULL = (errno.ENOSPC, errno.EDQUOT)
Progress = Callable[[int, int], None]


def https(url: str, target: Path, *, sha256: str = "", size: int = 0, progress: Progress | None = None) -> str:
    """Download `url` to `target`, verify it, and return its sha256 (hex).

    What has arrived stays in `<target>.part`, with the server's version mark in `<target>.part.json`; a later call goes
    on from there if the server still has that version and speaks HTTP Range, and starts again if not. `sha256` is the
    published digest or its first digits, `size` the published bytes; either may be unknown. A `target` that is there
    and agrees with both is kept. `progress(done, total)` is called per MiB, with total 0 where the server does not say.
    Raises `UserError` without a network, for a refusal, a web page instead of the file, a full disk, or a file that is
    not the published one.
    """
    part = target.with_name(target.name + ".part")
    mark = part.with_name(part.name + ".json")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if found := _verified(target, sha256, size):
            return found
        with alone(part) as file:
            # Another process may have finished the same file while this one waited.
            found = _verified(target, sha256, size)
            if not found:
                _all_of_it(url, file, mark, size, progress)
                file.flush()
                os.fsync(file.fileno())
                found = _verified(part, sha256, size)
                if not found:
                    got = f"{part.stat().st_size} bytes, sha256 {files.sha256(part)}"
                    _forget(part, mark)
                    published = f"{size or 'any number of'} bytes, sha256 {sha256 or 'unknown'}"
                    raise UserError(
                        f"{url} gave {got}; published: {published}. Nothing was kept: repeat, or ask its publisher"
                    )
                os.replace(part, target)
            _forget(mark)
    except OSError as error:
        if error.errno not in FULL:
            raise UserError(f"{target} cannot be written or read ({error.strerror or error})") from error
        _forget(part, mark)
        raise UserError(f"the disk is full: {target} could not be written; free some space and repeat") from error
    return found


def hub(
    repo: str, file: str, target: Path, *, revision: str = "", kind: str = "model", progress: Progress | None = None
) -> str:
    """Download one file of a Hugging Face repository (`kind`: model or dataset) to `target`, and return its sha256.

    It arrives in the folder `.<target>.incoming` beside it, where an interrupted download resumes, and is moved when
    whole; a `target` that is there is kept. Raises `UserError` as `https` does, and where a licence must be accepted.
    """
    from huggingface_hub import hf_hub_download, hf_hub_url

    # The HTTP library behind this name differs between versions of the hub's.
    from huggingface_hub.errors import GatedRepoError, HTTPError, LocalEntryNotFoundError  # pyright: ignore
    from huggingface_hub.utils import tqdm

    class Report(tqdm):
        """Passes on what a progress bar would show."""

        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **{**options, "file": StringIO(), "disable": False})

        def display(self, *args: Any, **options: Any) -> None:
            if progress:
                progress(int(self.n), int(self.total or 0))

    incoming = target.parent / f".{target.name}.incoming"
    part = target.with_name(target.name + ".part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with alone(part):
            if not target.is_file():
                _knock(hf_hub_url(repo, file, repo_type=kind, revision=revision or None))
                arrived = hf_hub_download(
                    repo_id=repo,
                    filename=file,
                    repo_type=kind,
                    revision=revision or None,
                    local_dir=incoming,
                    tqdm_class=Report if progress else None,
                )
                os.replace(arrived, target)
                shutil.rmtree(incoming)
        return files.sha256(target)
    except GatedRepoError as error:
        raise UserError(
            f"{repo} on the Hugging Face hub wants its licence accepted and a token (`hf auth login`)"
        ) from error
    except LocalEntryNotFoundError as error:
        raise UserError("no network, or the Hugging Face hub is down") from error
    except (OSError, HTTPError) as error:
        if isinstance(error, OSError) and error.errno in FULL:
            shutil.rmtree(incoming, ignore_errors=True)
            raise UserError(f"the disk is full: {target} could not be written; free some space and repeat") from error
        raise UserError(
            f"{repo}/{file} could not be downloaded from the Hugging Face hub ({one_line(error)})"
        ) from error


def _knock(url: str) -> None:
    """Say at once that there is no network: the hub's own library tries for half a minute."""
    try:
        urlopen(Request(url, method="HEAD", headers={"User-Agent": AGENT}), timeout=10).close()
    except HTTPError:
        pass
    except (URLError, TimeoutError) as error:
        reason = getattr(error, "reason", error)
        if not isinstance(reason, ssl.SSLError):  # that library brings certificates of its own
            raise UserError(f"no network, or the Hugging Face hub is down ({reason})") from error


def _verified(path: Path, sha256: str, size: int) -> str:
    """The sha256 of a file that agrees with what was published of it; empty where none such is."""
    try:
        if size and path.stat().st_size != size:
            return ""
        found = files.sha256(path)
    except FileNotFoundError:
        return ""
    return found if found.startswith(sha256.lower()) else ""


def _forget(*paths: Path) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


@contextmanager
def alone(part: Path) -> Iterator[IO[bytes]]:
    """Open `part` for appending; of several processes that want the same file one has it and the others wait.

    A file that is still empty in the end is removed.
    """
    while True:
        with open(part, "ab") as file:
            with suppress(ImportError, OSError):  # neither Windows nor every network disk has such locks
                import fcntl

                fcntl.flock(file, fcntl.LOCK_EX)
            if not _is(file, part):  # whoever had it has renamed or removed it
                continue
            try:
                yield file
            finally:
                with suppress(OSError):
                    file.flush()
                if _is(file, part) and part.stat().st_size == 0:
                    part.unlink()
            return


def _is(file: IO[bytes], path: Path) -> bool:
    """True if the open file is still the one that `path` names."""
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    return False


def _all_of_it(url: str, file: IO[bytes], mark: Path, size: int, progress: Progress | None) -> None:
    """Append to `file` until the server has no more, across dropped connections."""
    waits = iter(WAITS)
    reached = False
    while True:
        before = file.tell()
        try:
            return _one_connection(url, file, mark, size, progress)
        except (URLError, HTTPException, ConnectionError, TimeoutError, ssl.SSLError) as error:
            refused = isinstance(error, HTTPError)
            if refused and error.code < 500 and error.code not in (408, 425, 429):
                raise UserError(
                    f"{url} cannot be downloaded: the server answers {error.code} {error.reason}"
                ) from error
            if file.tell() > before:
                waits = iter(WAITS)
            reached = reached or refused or not isinstance(error, URLError)
            # A machine without a network is told at once; a server that has answered before is given time.
            wait = next(waits, None) if reached else None
            if wait is None:
                reason = getattr(error, "reason", None) or error
                kept = f"; {file.tell()} bytes are kept and a repeat resumes" if file.tell() else ""
                raise UserError(f"no network, or {url} is down ({one_line(reason)}){kept}") from error
            time.sleep(wait)


def _one_connection(url: str, file: IO[bytes], mark: Path, size: int, progress: Progress | None) -> None:
    """Ask for the bytes that are still missing and append them; raise `ConnectionError` if the server stops early."""
    done = file.tell()
    known = _read_mark(mark)
    if done and known.get("url") != url:
        done = _restart(file)
    headers = {"User-Agent": AGENT, "Accept-Encoding": "identity"}
    if done:
        headers["Range"] = f"bytes={done}-"
        if known.get("version"):
            headers["If-Range"] = known["version"]
    try:
        response = urlopen(Request(url, headers=headers), timeout=TIMEOUT)
    except HTTPError as error:
        if error.code != 416 or not done:
            raise
        if error.headers.get("Content-Range") == f"bytes */{done}":
            return
        _restart(file)
        raise ConnectionError("the server's file is shorter than what has arrived") from error
    with response:
        if response.headers.get_content_type() == "text/html" and Path(url).suffix not in (".html", ".htm"):
            raise UserError(f"{url} leads to a web page, not to the file: it may ask for a login or a licence first")
        if done and not (response.status == 206 and _resumes(response, done, known)):
            done = _restart(file)
            if response.status == 206:
                raise ConnectionError("the server's file has changed")
        total = int(response.headers.get("Content-Length", 0))
        total = done + total if total else 0
        if size and total and size != total:
            raise UserError(f"{url} is not the published file ({total} bytes instead of {size}); ask its publisher")
        free = shutil.disk_usage(mark.parent).free
        if total - done > free:
            raise OSError(errno.ENOSPC, f"{total - done} bytes to come, {free} free")
        version = response.headers.get("ETag", "")
        version = response.headers.get("Last-Modified", "") if version.startswith("W/") or not version else version
        files.write_whole(mark, json.dumps({"url": url, "version": version, "total": total}))
        while chunk := response.read(CHUNK):
            file.write(chunk)
            done += len(chunk)
            if progress:
                progress(done, total)
        if total and done != total:
            raise ConnectionError(f"the connection was dropped after {done} of {total} bytes")


def _restart(file: IO[bytes]) -> int:
    """Forget what has arrived."""
    file.truncate(0)
    file.seek(0)
    return 0


def _resumes(response: HTTPResponse, done: int, known: dict[str, Any]) -> bool:
    """True if a partial answer starts where we stopped, in a file as long as before."""
    start, _, total = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
    return start.startswith(f"{done}-") and total in ("*", str(known.get("total")))


def _read_mark(mark: Path) -> dict[str, Any]:
    """What the server said of the part that is there; empty where nothing legible is."""
    with suppress(OSError, ValueError):
        known = json.loads(mark.read_text())
        return known if isinstance(known, dict) else {}
    return {}
