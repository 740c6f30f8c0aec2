"""Weights: found, fetched, read without executing anything, loaded strictly, and known by their digest.

Importable without torch, so that a plan can say which weights a run would use.
"""

import hashlib
import json
import pickle
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.common import files, pipeline, unpickle
from models.common.card import Card, Checkpoint
from models.common.errors import UserError, one_line

if TYPE_CHECKING:
    from torch import Tensor, nn

    from models.common.backbone import Backbone
    from models.common.download import Progress


@dataclass(frozen=True)
class Located:
    """The weights that a run would use.

    `kind`: `official`, `random`, `file` (a path of the caller's), or `none` (the model has no weights). `path` is None
    where there is nothing to read, or nothing yet (official weights to be fetched: `digest` is empty then). `digest` is
    the sha256 of the file, `random-<seed>`, or `none`.
    """

    kind: str
    path: Path | None
    digest: str


def locate(card: Card, weights: str, cache: Path | None, seed: int = 0) -> Located:
    """Find `official`, `random` or a checkpoint file, without network and without torch.

    Official weights live in `<cache>/weights/<model>/<file>`; their digest is compared with the published one and with
    the one of first use, kept beside the file. Raises `UserError` for a path that is no file, or a digest that differs.
    """
    if weights not in ("official", "random"):
        path, folders = Path(weights), card.checkpoint.folders
        if not (path.is_file() or (folders and path.is_dir())):
            raise UserError(f"no weights {weights!r}: give `official`, `random` or the path of a checkpoint file")
        if card.checkpoint.fetch == "none":
            raise UserError(
                f"{card.label} has no weights, so {weights} cannot be loaded into it; leave `--weights` out"
            )
        if path.is_dir():
            return Located("file", path, pipeline.digest(path, folders, lambda file: digest(file, cache)))
        return Located("file", path, digest(path, cache))
    if card.checkpoint.fetch == "none":
        return Located("none", None, "none")
    if weights == "random":
        return Located("random", None, f"random-{seed}")
    path = official_path(card, cache)
    return Located("official", path, _verify(card, path, cache)) if path.is_file() else Located("official", None, "")


def fetch(card: Card, cache: Path | None, progress: "Progress | None" = None) -> Path:
    """Bring the official weights into the cache and return their path; what is there and verified stays.

    An interrupted download resumes. `progress(done, total)` gets bytes. Without a network, or where the publisher wants
    a person to ask, the `UserError` is one line that says which file to put where by hand.
    """
    from models.common import download

    path, source = official_path(card, cache), card.checkpoint
    if not path.is_file():
        remedy = f"put {source.file} at {path} (source: {_origin(source)}), or run with `--weights random`"
        try:
            if source.fetch == "hub":
                download.hub(source.repo, source.file, path, revision=source.revision, progress=progress)
            elif source.fetch == "https":
                download.https(source.url, path, sha256=source.sha256, progress=progress)
            else:
                raise UserError("they are not on this machine and cannot be fetched by a program")
        except UserError as error:
            raise UserError(f"no official weights for {card.label}: {error}; {remedy}") from error
    _verify(card, path, cache)
    return path


def official_path(card: Card, cache: Path | None) -> Path:
    """Where the official weights of a model are kept, whether they are there or not."""
    if cache is None:
        raise UserError(f"official weights of {card.label} need a cache folder; name one, or a checkpoint file")
    return cache / "weights" / card.name / card.checkpoint.file


def digest(path: Path, cache: Path | None) -> str:
    """The sha256 (hex) of a file, remembered in `<cache>/digests.json` until its size or modification time changes."""
    index = cache / "digests.json" if cache else None
    key, before = str(path.resolve()), path.stat()
    entry = {"size": before.st_size, "mtime_ns": before.st_mtime_ns}
    known: dict[str, Any] = {}
    if index:
        # A damaged index costs time and nothing else: it is written anew.
        with suppress(OSError, ValueError):
            content = json.loads(index.read_text())
            known = content if isinstance(content, dict) else {}
    remembered = known.get(key)
    if isinstance(remembered, dict) and remembered == {**entry, "sha256": remembered.get("sha256")}:
        return str(remembered["sha256"])
    found = files.sha256(path)
    after = path.stat()
    if index and (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns):
        with suppress(OSError):  # a cache that cannot be written costs time only
            files.write_whole(index, json.dumps({**known, key: {**entry, "sha256": found}}, indent=1))
    return found


def read(path: Path, folders: Mapping[str, str] | None = None) -> Any:
    """The content of a .pth, .pt, .bin, .ckpt or .safetensors file on the CPU; nothing in it is executed.

    torch's own `weights_only` reader comes first. Files that carry objects of classes it does not know are read by
    `unpickle`, where these become inert. Tensors may be views of the mapped file, which `load` copies. Where a card's
    checkpoint names `folders`, a folder or zip in that layout is read too. Raises `UserError` for anything that is no
    checkpoint, or half of one.
    """
    import torch

    path = Path(path)
    try:
        if folders and pipeline.is_here(path):
            return pipeline.read(path, folders, read)
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        try:
            with warnings.catch_warnings(action="ignore"):  # of formats: nothing the caller can act upon
                return torch.load(path, map_location="cpu", weights_only=True, mmap=unpickle.is_archive(path))
        except pickle.UnpicklingError:
            return unpickle.read(path)
    except UserError:
        raise
    except Exception as error:  # the content decides what is raised, and all of it means: not a file we can use
        raise UserError(f"{path} {_trouble(path, error)}") from error


def state_dict(content: Any, checkpoint: Checkpoint) -> "dict[str, Tensor]":
    """The flat state dict in the content of a checkpoint: container, prefixes and unneeded entries as the card says.

    Floating-point values become float32; entries that are no tensors are left out. Raises `UserError` if nothing is
    left, or if two entries come to bear the same name.
    """
    import torch

    for key in checkpoint.container:
        if isinstance(content, Mapping) and key in content:
            content = content[key]
    if isinstance(content, Mapping):
        nested = {part: content[part] for part in checkpoint.parts if isinstance(content.get(part), Mapping)}
        content = {f"{part}.{key}": value for part, inner in nested.items() for key, value in inner.items()} or content
    state: dict[str, Tensor] = {}
    for original in content if isinstance(content, Mapping) else ():
        value = content[original]
        if not isinstance(value, torch.Tensor):
            continue
        name = str(original)
        for part in checkpoint.strip:
            name = name.replace(part, "")
        if name.startswith(checkpoint.ignore):
            continue
        if name in state:
            raise UserError(f"the checkpoint holds {name!r} twice once {', '.join(checkpoint.strip)} are stripped")
        state[name] = value.detach().float() if value.is_floating_point() else value.detach()
    if not state:
        raise UserError(f"the checkpoint holds no tensors by name, but {_outline(content)}")
    return state


@contextmanager
def parameters_on_meta() -> Iterator[None]:
    """Build modules whose parameters have shapes but no values, in well under a second; buffers stay real.

    Index tables, masks and frequencies are computed by constructors as always, while parameters go to the meta device
    as they are registered, so initialising them costs nothing. `load` fills them. Only modules built by the calling
    thread are affected. Parameters that modules share come out as separate ones.
    """
    from torch import nn
    from torch.nn.modules.module import register_module_parameter_registration_hook

    here = threading.get_ident()

    def to_meta(module: "nn.Module", name: str, parameter: "nn.Parameter") -> Any:
        if threading.get_ident() != here or parameter.is_meta:
            return None
        return nn.Parameter(parameter.to("meta"), requires_grad=parameter.requires_grad)

    handle = register_module_parameter_registration_hook(to_meta)
    try:
        yield
    finally:
        handle.remove()


def load(backbone: "Backbone", state: "dict[str, Tensor]") -> None:
    """Load an official state dict strictly: every entry finds its place and every place is filled, or nothing changes.

    The adapter's `convert` maps official names to ours. Values are copied, so the file may go afterwards. Missing or
    unexpected names and other shapes raise one `UserError` that counts them and shows the first three of each.
    """
    import torch

    state = backbone.convert(state)
    own = backbone.state_dict()
    complaints = [
        _first_three("missing", [name for name in own if name not in state]),
        _first_three("unexpected", [name for name in state if name not in own]),
        _first_three(
            "of another shape or kind",
            [
                f"{name} is {_sort(state[name])}, not {_sort(own[name])}"
                for name in own
                if name in state and _sort(state[name]) != _sort(own[name])
            ],
        ),
    ]
    if any(complaints):
        found = "; ".join(complaint for complaint in complaints if complaint)
        raise UserError(
            f"the weights do not fit {backbone.card.label} ({found}): is this a checkpoint of another model or variant?"
        )
    copies = {
        name: state[name].detach().to(value.dtype, copy=True, memory_format=torch.contiguous_format)
        for name, value in own.items()
    }
    backbone.load_state_dict(copies, strict=True, assign=True)
    empty = [name for name, tensor in _tensors(backbone) if tensor.is_meta]
    assert not empty, f"{backbone.card.label} keeps these out of its state dict, so no checkpoint fills them: {empty}"


def module_digest(module: "nn.Module") -> str:
    """The sha256 (hex) of all parameters and buffers: names, dtypes, shapes and bytes, wherever they are."""
    import torch

    found = hashlib.sha256()
    for name, tensor in _tensors(module):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        values = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        found.update(memoryview(values.numpy()))
    return found.hexdigest()


def _first_three(kind: str, names: list[str]) -> str:
    """`2 missing: a, b`; an empty string for an empty list."""
    return f"{len(names)} {kind}: {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}" if names else ""


def _sort(tensor: "Tensor") -> str:
    """`(768, 3, 14, 14)`, and `integer (49,)` where numbers are no floats: what must agree between file and network."""
    kind = "" if tensor.is_floating_point() else "integer "
    return kind + str(tuple(tensor.shape))


def _tensors(module: "nn.Module") -> "list[tuple[str, Tensor]]":
    """Every parameter and buffer by name, sorted, those outside the state dict too."""
    named = [*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)]
    return sorted(named, key=lambda pair: pair[0])


def _verify(card: Card, path: Path, cache: Path | None) -> str:
    """The digest of official weights, compared with the published one and with that of first use, noted here."""
    found, published = digest(path, cache), card.checkpoint.sha256.lower()
    note = path.with_name(path.name + ".sha256")
    noted = note.read_text().split() if note.is_file() else []
    if not found.startswith(published):
        raise UserError(
            f"{path} is not the published file (sha256 {found}, published {published}): delete it and repeat, or load "
            "it by its path"
        )
    if noted and noted[0] != found:
        raise UserError(
            f"{path} has changed since it was first used (sha256 {found}, noted {noted[0]}): restore it, or delete "
            f"{note} if the change is meant"
        )
    if not noted:
        with suppress(OSError):  # a cache shared read-only can be used, though not noted in
            files.write_whole(note, f"{found}  {path.name}\n")
    return found


def _origin(checkpoint: Checkpoint) -> str:
    """Where a person finds the file."""
    return checkpoint.url or checkpoint.where or f"{checkpoint.repo} on the Hugging Face hub"


def _trouble(path: Path, error: Exception) -> str:
    """What is wrong with a file that could not be read, and what to do about it."""
    if not path.is_file():
        return "is no file: give the path of a checkpoint"
    if isinstance(error, OSError):
        return f"cannot be read ({error.strerror or one_line(error)}): check the file and its permissions"
    with open(path, "rb") as file:
        start = file.read(512).lstrip().lower()
    if not start:
        return "is empty: download it again"
    if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        return "is a web page, not weights: the download led to a login or licence page; download it again by hand"
    if start.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer, not weights: fetch the file itself (`git lfs pull`)"
    return f"is damaged, incomplete or no PyTorch checkpoint ({one_line(error)}): download it again or give another"


def _outline(content: Any) -> str:
    """What a checkpoint holds instead of weights, in a few words."""
    if isinstance(content, Mapping):
        shown = [f"{key} ({type(content[key]).__name__})" for key in list(content)[:8]]
        return f"the entries {', '.join(shown)}{', ...' if len(content) > 8 else ''}" if shown else "an empty dict"
    kind = type(content)
    return f"an object of class {kind.__module__}.{kind.__qualname__}: save its state_dict() instead"
