"""Checkpoints in the layout of the diffusers library: a folder per network, in a folder or in a zip of one.

Importable without torch. Nothing in a file is executed: safetensors, or torch's `weights_only` reader.
"""

import hashlib
import zipfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from models.common.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

# What diffusers and transformers call their weights, in the order in which they look for them.
FILES = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin", "model.safetensors", "pytorch_model.bin")
Folders = Mapping[str, str]


def is_here(path: Path) -> bool:
    """True if `path` is a folder, or a zip with a weights file in it (PyTorch's own files are zips without)."""
    if path.is_dir():
        return True
    with suppress(OSError, zipfile.BadZipFile), zipfile.ZipFile(path) as archive:
        return any(PurePosixPath(name).name in FILES for name in archive.namelist())
    return False


def find(names: Iterable[str], folders: Folders, where: Path) -> dict[str, str]:
    """The weights file of every network among paths in a pipeline: of several, the one nearest the top.

    `folders` maps each network to its folder (`unet` -> `checkpoint-150000/unet`). Raises `UserError` for absent ones.
    """
    known = [PurePosixPath(name) for name in names]
    found = {}
    for network, folder in folders.items():
        inside = PurePosixPath(folder).parts
        fitting = [
            path
            for path in known
            if path.name in FILES and path.parent.parts[len(path.parts) - 1 - len(inside) :] == inside
        ]
        if not fitting:
            raise UserError(f"{where} has no {folder} with {' or '.join(FILES)}: it is not the whole folder")
        found[network] = str(min(fitting, key=lambda path: (len(path.parts), FILES.index(path.name))))
    return found


def files(path: Path, folders: Folders) -> dict[str, Path]:
    """The weights file of every network in the folder `path`."""
    names = [file.relative_to(path).as_posix() for name in FILES for file in path.rglob(name)]
    return {network: path / name for network, name in find(names, folders, path).items()}


def digest(path: Path, folders: Folders, of_file: Callable[[Path], str]) -> str:
    """The sha256 (hex) over those of the weights files in a folder; other files in it do not count."""
    lines = [f"{of_file(file)}  {network}\n" for network, file in sorted(files(path, folders).items())]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def read(path: Path, folders: Folders, of_file: Callable[[Path], Any]) -> "dict[str, Tensor]":
    """Every tensor of the pipeline as `<network>.<name>`, from a folder by `of_file`, or from a zip.

    Raises `UserError` where a network is missing.
    """
    if path.is_dir():
        content = {network: of_file(file) for network, file in files(path, folders).items()}
    else:
        with zipfile.ZipFile(path) as archive:
            chosen = find(archive.namelist(), folders, path)
            content = {network: _member(name, archive.read(name)) for network, name in chosen.items()}
    return {f"{network}.{name}": value for network, state in content.items() for name, value in state.items()}


def _member(name: str, data: bytes) -> "dict[str, Tensor]":
    import torch

    if name.endswith(".safetensors"):
        from safetensors.torch import load

        return load(data)
    return torch.load(BytesIO(data), map_location="cpu", weights_only=True)
