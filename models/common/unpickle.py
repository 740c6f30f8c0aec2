"""Reads tensors out of PyTorch files that hold other things too, without importing or calling anything they name.

Training checkpoints carry bookkeeping (arguments, callbacks, metric buffers) whose classes need not be installed and
are not to be trusted. Here a pickle may build containers, numbers, strings and tensors. Every class or function it
names beyond those becomes an inert `Placeholder`. numpy objects too: `numpy.dtype` restores its own flags from the
file, which is enough to have bytes taken for pointers.

Formats: the zip archive of torch >= 1.6 (`data.pkl`, one stored entry per storage, mapped into memory and not read
until used), and the older sequence of pickles followed by the storages. Neither torch.load nor a torch function
is reached from a pickle; the functions that rebuild tensors are ours.
"""

import mmap
import pickle
import struct
import zipfile
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from torch import Tensor

# torch.serialization's mark of the format before zip archives, and the only version of it.
MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001
STORAGES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
    "UntypedStorage": "uint8",
}


# Opcodes that allocate before they read, want buffers from outside the file, or reach this process's copyreg registry.
UNUSED = (pickle.BYTEARRAY8, pickle.NEXT_BUFFER, pickle.READONLY_BUFFER, pickle.EXT1, pickle.EXT2, pickle.EXT4)


class Kept(dict):
    """An OrderedDict of the file, without the attributes that a file may give it."""

    def __setstate__(self, state: Any) -> None:
        """Drop the state, which could replace methods."""


class Placeholder:
    """Stands for an object whose class or function is not imported: takes every step of unpickling and does nothing."""

    def __new__(cls, *args: Any, **kwargs: Any) -> "Placeholder":
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __call__(self, *args: Any, **kwargs: Any) -> "Placeholder":
        return Placeholder()

    def __setstate__(self, state: Any) -> None:
        """Drop the state, which could replace methods."""

    def __setitem__(self, key: Any, value: Any) -> None:
        """Drop an entry of an unknown kind of dict."""

    def append(self, item: Any) -> None:
        """Drop an item of an unknown kind of list."""

    def extend(self, items: Any) -> None:
        """Drop the items of an unknown kind of list."""

    def add(self, item: Any) -> None:
        """Drop an item of an unknown kind of set."""


def read(path: Path) -> Any:
    """The object in a .pth, .pt, .bin or .ckpt file, unknown classes as placeholders.

    Tensors of a zip archive are views of the mapped file: copy what is to outlive it or to be changed. Anything that is
    wrong with the file raises `pickle.UnpicklingError`, `zipfile.BadZipFile` or what the content provokes.
    """
    return _read_zip(path) if is_archive(path) else _read_sequence(path)


def is_archive(path: Path) -> bool:
    """True for the zip format; a zip archive further inside a file does not count."""
    with open(path, "rb") as file:
        return file.read(4) == b"PK\x03\x04"


def _unpickler(file: IO[bytes], storage: "Callable[[Any], Tensor] | None" = None) -> "pickle._Unpickler":
    """An unpickler that knows tensors, dtypes and OrderedDict; `storage` gives the flat tensor of a persistent id.

    It is Python's own in Python: the one in C takes memory for as many entries as a damaged file makes it believe in.
    """
    import torch

    dtypes = {name: getattr(torch, name) for name in STORAGES.values()}

    # Made anew for each file, as a pickle may set attributes on whatever it is given.
    def rebuild_tensor(flat: "Tensor", offset: int, size: Sequence[int], stride: Sequence[int], *_: Any) -> "Tensor":
        last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
        if 0 not in size and not 0 <= offset <= last < flat.numel():
            raise pickle.UnpicklingError(
                f"a tensor of shape {tuple(size)} reaches beyond its {flat.numel()} stored values"
            )
        return flat.as_strided(tuple(size), tuple(stride), flat.storage_offset() + offset)

    def rebuild_tensor_of_dtype(
        flat: "Tensor",
        offset: int,
        size: Sequence[int],
        stride: Sequence[int],
        grad: Any,
        hooks: Any,
        dtype: Any,
        *_: Any,
    ) -> "Tensor":
        return rebuild_tensor(_typed(flat, dtype), offset, size, stride)

    def rebuild_parameter(data: Any, *_: Any) -> Any:
        return data

    def rebuild_subclass(rebuild: Callable[..., Any], kind: Any, arguments: tuple[Any, ...], state: Any) -> Any:
        return rebuild(*arguments)

    known: dict[tuple[str, str], Any] = {
        ("collections", "OrderedDict"): Kept,
        ("torch", "Size"): torch.Size,
        ("torch._utils", "_rebuild_tensor"): rebuild_tensor,
        ("torch._utils", "_rebuild_tensor_v2"): rebuild_tensor,
        ("torch._utils", "_rebuild_tensor_v3"): rebuild_tensor_of_dtype,
        ("torch._utils", "_rebuild_parameter"): rebuild_parameter,
        ("torch._utils", "_rebuild_parameter_with_state"): rebuild_parameter,
        ("torch._tensor", "_rebuild_from_type_v2"): rebuild_subclass,
    }

    class Restricted(pickle._Unpickler):
        dispatch: ClassVar[dict[int, Any]] = {
            code: step for code, step in pickle._Unpickler.dispatch.items() if bytes([code]) not in UNUSED
        }

        def find_class(self, module: str, name: str) -> Any:
            if (module, name) in known:
                return known[module, name]
            if module in ("torch", "torch.cuda", "torch.storage") and name in STORAGES:
                return dtypes[STORAGES[name]]
            if module == "torch" and isinstance(vars(torch).get(name), torch.dtype):
                return vars(torch)[name]
            return type(name.rpartition(".")[2] or "unnamed", (Placeholder,), {"__module__": module})

        def persistent_load(self, pid: Any) -> Any:
            if storage is None or not isinstance(pid, tuple):
                raise pickle.UnpicklingError(f"a reference to {pid!r}, which no storage of the file has")
            # Whole modules saved before zip archives refer to their classes with source code attached.
            return pid[1] if pid[0] == "module" else storage(pid[1:])

    return Restricted(file, encoding="utf-8")


def _read_zip(path: Path) -> Any:
    """Unpickle `<folder>/data.pkl`; storages are the entries `<folder>/data/<key>`, uncompressed and thus mappable."""
    import torch

    flats: dict[tuple[str, Any], Tensor] = {}
    with open(path, "rb") as file, zipfile.ZipFile(file) as archive:
        entries = {info.filename.partition("/")[2]: info for info in archive.infolist()}
        if "data.pkl" not in entries or "constants.pkl" in entries:
            raise pickle.UnpicklingError(
                "a zip archive that torch.save did not write (TorchScript, or no checkpoint at all)"
            )
        if "byteorder" in entries and archive.read(entries["byteorder"]) != b"little":
            raise pickle.UnpicklingError("a checkpoint written on a big-endian machine")
        # Copy on write: nothing that is done to the tensors reaches the file.
        whole = torch.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY), dtype=torch.uint8)

        def storage(reference: tuple[Any, ...]) -> "Tensor":
            dtype, key, _, count = reference
            if (key, dtype) not in flats:
                info = entries[f"data/{key}"]
                file.seek(info.header_offset)
                lengths = struct.unpack("<HH", file.read(30)[26:30])
                start = info.header_offset + 30 + sum(lengths)
                size = count * dtype.itemsize
                if info.compress_type != zipfile.ZIP_STORED or not 0 <= size <= info.file_size <= whole.numel() - start:
                    raise pickle.UnpicklingError(f"entry {info.filename} does not hold {size} plain bytes")
                flats[key, dtype] = _typed(whole[start : start + size], dtype)
            return flats[key, dtype]

        return _unpickler(BytesIO(archive.read(entries["data.pkl"])), storage).load()


def _read_sequence(path: Path) -> Any:
    """Unpickle magic number, version, system facts, object and storage keys; the storages follow in that order."""
    import torch

    flats: dict[str, Tensor] = {}
    limit = path.stat().st_size
    with open(path, "rb") as file:

        def storage(reference: tuple[Any, ...]) -> "Tensor":
            dtype, key, _, count, view = reference
            if view is not None:  # torch < 0.4
                raise pickle.UnpicklingError("a storage that is part of another one")
            if key not in flats:
                if not 0 <= count * dtype.itemsize <= limit:
                    raise pickle.UnpicklingError(f"a storage of {count} values in a file of {limit} bytes")
                flats[key] = torch.empty(count, dtype=dtype)
            return flats[key]

        if _unpickler(file).load() != MAGIC or _unpickler(file).load() != PROTOCOL:
            raise pickle.UnpicklingError("a pickle that torch.save did not write")
        _unpickler(file).load()
        content = _unpickler(file, storage).load()
        for key in _unpickler(file).load():
            flat = flats[key]
            (count,) = struct.unpack("<q", file.read(8))
            data = flat.view(torch.uint8).numpy()
            if count != flat.numel() or file.readinto(data) != data.nbytes:
                raise pickle.UnpicklingError(f"the file ends within storage {key}, or holds {count} values instead")
    return content


def _typed(data: "Tensor", dtype: Any) -> "Tensor":
    """Bytes as values of `dtype`, copied only where they are not aligned to its size."""
    return (data if data.storage_offset() % dtype.itemsize == 0 else data.clone()).view(dtype)
