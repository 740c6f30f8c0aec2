"""Files that hold more than tensors: every tensor as torch reads it, nothing imported, nothing called, no harm done."""

import builtins
import importlib
import io
import os
import pickle
import random
import struct
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models.common import unpickle, weights
from models.common.errors import UserError

FORMATS = {"zip": True, "sequence": False}


def save(content: Any, path: Path, kind: str = "zip") -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=FORMATS[kind])
    return path


def tensors() -> dict[str, Any]:
    torch.manual_seed(0)
    base = torch.randn(6, 8)
    kinds = {
        str(kind): (torch.randn(3, 5) * 10).to(kind)
        for kind in (torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8)
    }
    return {
        **kinds,
        "uint8": torch.arange(7, dtype=torch.uint8),
        "bool": torch.tensor([True, False, True]),
        "complex": torch.randn(4, dtype=torch.complex64),
        "plain": base,
        "transposed view of the same values": base.T,
        "slice with an offset": base[2:5, 1::3],
        "scalar": torch.tensor(3.5),
        "empty": torch.empty(0, 4),
        "expanded": torch.tensor([2.0]).expand(5, 3),
        "parameter": torch.nn.Parameter(torch.randn(2, 2)),
        "nested": OrderedDict(a=[torch.ones(2), (torch.zeros(1), None)], b={"c": "text", 3: 4.5}),
    }


def same(ours: Any, theirs: Any) -> bool:
    if isinstance(theirs, torch.Tensor):
        return ours.dtype == theirs.dtype and ours.shape == theirs.shape and torch.equal(ours, theirs)
    if isinstance(theirs, dict):
        return list(ours) == list(theirs) and all(same(ours[key], theirs[key]) for key in theirs)
    if isinstance(theirs, list | tuple):
        return type(ours) is type(theirs) and all(same(*pair) for pair in zip(ours, theirs, strict=True))
    return ours == theirs


@pytest.mark.parametrize("kind", FORMATS)
def test_every_kind_of_tensor_is_read_as_torch_reads_it(tmp_path, kind):
    path = save(tensors(), tmp_path / "file.pth", kind)
    assert same(unpickle.read(path), torch.load(path, weights_only=True))


@pytest.mark.parametrize("dtype", [torch.uint16, torch.float8_e4m3fn], ids=str)
def test_dtypes_without_a_storage_class_are_read_too(tmp_path, dtype):
    path = save({"w": torch.arange(12.0).reshape(3, 4).to(dtype)}, tmp_path / "file.pth")
    ours = unpickle.read(path)["w"]
    assert ours.dtype == dtype
    assert torch.equal(ours.float(), torch.arange(12.0).reshape(3, 4))


def test_changes_to_what_was_read_never_reach_the_file(tmp_path):
    path = save({"w": torch.ones(1000)}, tmp_path / "file.pth")
    before = path.read_bytes()
    unpickle.read(path)["w"].zero_()
    assert path.read_bytes() == before


MODULE = """
import enum
from dataclasses import dataclass, field

class Config(dict):
    pass

class Log(list):
    pass

class Names(set):
    pass

class Colour(enum.Enum):
    RED = 1

@dataclass
class Callback:
    best: float = 0.5
    history: list = field(default_factory=list)

class Slots:
    __slots__ = ("a",)
    def __init__(self): self.a = 1

def hook(): pass
"""


@pytest.mark.parametrize("kind", FORMATS)
def test_a_lightning_like_file_is_read_without_importing_its_classes(tmp_path, monkeypatch, kind):
    source = tmp_path / "vanishing.py"
    source.write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("vanishing")
    config, names = module.Config(lr=0.1), module.Names(["a"])
    content = {
        "state_dict": OrderedDict([("encoder.weight", torch.arange(6.0).view(2, 3))]),
        "callbacks": {module.Callback: module.Callback(history=[module.Slots(), module.hook])},
        "hyper_parameters": {"config": config, "log": module.Log([1, 2]), "names": names, "colour": module.Colour.RED},
        "epoch": 7,
    }
    path = save(content, tmp_path / "epoch=7.ckpt", kind)
    del sys.modules["vanishing"]
    imported = tmp_path / "imported"
    source.write_text(f"open({str(imported)!r}, 'w').close()")
    read = weights.read(path)
    assert torch.equal(read["state_dict"]["encoder.weight"], torch.arange(6.0).view(2, 3))
    assert read["epoch"] == 7
    assert type(read["hyper_parameters"]["config"]).__mro__[1] is unpickle.Placeholder
    assert "vanishing" not in sys.modules
    assert not imported.exists()
    importlib.invalidate_caches()
    importlib.import_module("vanishing")  # the trap works: an import would have been seen
    assert imported.exists()
    sys.modules.pop("vanishing")


class Call:
    """Pickles as a call of `function` with `arguments`, which unpickling then makes."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.call

    def __call__(self) -> None:
        """pickle wants the first part of a call to be callable."""


def evil_bytes(payload: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(payload, buffer)
    return buffer.getvalue()


def touch(marker: Path) -> str:
    return f"touch {marker}"


PAYLOADS: dict[str, Callable[[Path], Any]] = {
    "os.system": lambda marker: Call(os.system, touch(marker)),
    "builtins.eval": lambda marker: Call(eval, f"open({str(marker)!r}, 'w').close()"),
    "builtins.exec": lambda marker: Call(exec, f"open({str(marker)!r}, 'w').close()"),
    "builtins.open": lambda marker: Call(open, str(marker), "w"),
    "getattr chain": lambda marker: Call(Call(getattr, Call(importlib.import_module, "os"), "system"), touch(marker)),
    "__import__ chain": lambda marker: Call(Call(getattr, Call(builtins.__import__, "os"), "system"), touch(marker)),
    "torch.hub": lambda marker: Call(torch.hub._load_local, str(marker.parent / "hub"), "entry"),
    "a pickle in a numpy array": lambda marker: np.array([Call(os.system, touch(marker)), None], dtype=object),
    "a pickle in bytes": lambda marker: Call(pickle.loads, pickle.dumps(Call(os.system, touch(marker)))),
    "a file in a storage": lambda marker: Call(
        torch.storage._load_from_bytes, evil_bytes(Call(os.system, touch(marker)))
    ),
    "a call in a dict key": lambda marker: {Call(os.system, touch(marker)): 1},
    "a call as a shape": lambda marker: Call(torch.Size, [Call(os.system, touch(marker))]),
}


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("payload", PAYLOADS)
def test_nothing_that_a_pickle_calls_is_executed(tmp_path, payload, kind):
    marker = tmp_path / "executed"
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub" / "hubconf.py").write_text(f"def entry(): return open({str(marker)!r}, 'w').close()")
    content = {"student": {"w": torch.arange(3.0)}, "args": PAYLOADS[payload](marker)}
    path = save(content, tmp_path / "file.pth", kind)

    torch.load(path, weights_only=False)
    assert marker.exists(), "the payload is no threat, so this test shows nothing"
    marker.unlink()

    for read in (weights.read, unpickle.read):
        if payload == "a call as a shape":  # which no shape is
            with pytest.raises((UserError, TypeError)):
                read(path)
        else:
            assert torch.equal(read(path)["student"]["w"], torch.arange(3.0))
        assert not marker.exists()


@pytest.mark.parametrize("position", range(5))
def test_every_pickle_of_the_older_format_is_read_with_the_same_caution(tmp_path, position):
    marker = tmp_path / "executed"
    parts = [unpickle.MAGIC, unpickle.PROTOCOL, {"little_endian": True}, {}, []]
    parts[position] = Call(os.system, touch(marker))
    path = tmp_path / "file.pth"
    path.write_bytes(b"".join(pickle.dumps(part, protocol=2) for part in parts))
    pickle.loads(pickle.dumps(parts[position]))
    assert marker.exists()
    marker.unlink()
    for read in (weights.read, unpickle.read):
        try:
            read(path)
        except (UserError, pickle.UnpicklingError, TypeError):
            assert position != 2
        assert not marker.exists()


def test_numpy_objects_are_not_rebuilt_since_their_own_state_can_forge_pointers(tmp_path):
    # GLOBAL numpy dtype, called with ("O8", False, True), then given flags that say: these bytes are no objects.
    forged = b"cnumpy\ndtype\n(X\x02\x00\x00\x00O8\x89\x88tR(K\x03X\x01\x00\x00\x00|NNNK\x08K\x08K\x00tb"
    path = tmp_path / "file.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("file/data.pkl", b"\x80\x02" + forged + b".")
        archive.writestr("file/version", "3")
    assert np.dtype("O8") != (found := weights.read(path))
    assert isinstance(found, unpickle.Placeholder)


def test_a_file_cannot_change_the_classes_it_is_given(tmp_path):
    # BUILD with a pair sets attributes on whatever is on the stack, here on classes.
    path = tmp_path / "file.pth"
    for number, name in enumerate((b"ccollections\nOrderedDict\n", b"csome\nThing\n", b"cargparse\nNamespace\n")):
        state = b"(N}X\x05\x00\x00\x00itemsK\x01stb"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("file/data.pkl", b"\x80\x02" + name + state + b".")
            archive.writestr("file/version", "3")
        with pytest.raises(UserError, match="damaged, incomplete or no PyTorch checkpoint"):
            weights.read(path)
        assert number < 3
    import argparse

    assert "items" not in vars(argparse.Namespace)
    assert callable(OrderedDict.items)
    assert callable(unpickle.Kept.items)
    assert not hasattr(unpickle.Placeholder, "items")


def test_a_tensor_cannot_reach_beyond_its_storage(tmp_path):
    path = save({"w": torch.ones(4), "args": Call(os.getpid)}, tmp_path / "file.pth")
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    (pickled,) = (name for name in members if name.endswith("data.pkl"))
    assert members[pickled].count(b"K\x04\x85") == 1  # the shape (4,)
    members[pickled] = members[pickled].replace(b"K\x04\x85", b"K\x63\x85")
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    with pytest.raises(pickle.UnpicklingError, match="beyond its 4 stored values"):
        unpickle.read(path)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_file_cut_anywhere_is_refused_in_one_sentence(tmp_path, kind):
    content = {"student": {"w": torch.arange(50.0)}, "args": Call(os.getpid)}
    whole = save(content, tmp_path / "whole.pth", kind).read_bytes()
    path = tmp_path / "cut.pth"
    for length in random.Random(0).sample(range(1, len(whole) - 1), 60):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match=r"cut\.pth is damaged, incomplete or no PyTorch checkpoint"):
            weights.read(path)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_damaged_pickle_is_read_or_refused_but_never_crashes(tmp_path, kind):
    marker = tmp_path / "executed"
    content = {"student": {"w": torch.arange(5.0)}, "args": Call(os.system, touch(marker))}
    whole = save(content, tmp_path / "whole.pth", kind).read_bytes()
    start = whole.index(b"student") - 20
    dice = random.Random(1)
    path = tmp_path / "damaged.pth"
    refused = 0
    for _ in range(300):
        damaged = bytearray(whole)
        for _ in range(dice.choice((1, 1, 3))):
            damaged[start + dice.randrange(300)] = dice.randrange(256)
        path.write_bytes(damaged)
        try:
            weights.read(path)
        except UserError:
            refused += 1
        assert not marker.exists()
    assert refused > 50


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
def test_what_torch_save_did_not_write_is_refused(tmp_path):
    path = tmp_path / "file.pth"
    for content in (pickle.dumps({"w": 1}), pickle.dumps(np.ones(3)), struct.pack("<5q", 1, 2, 3, 4, 5)):
        path.write_bytes(content)
        with pytest.raises(UserError, match="damaged, incomplete or no PyTorch checkpoint"):
            weights.read(path)
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(path))
    with pytest.raises(UserError, match="damaged, incomplete or no PyTorch checkpoint"):
        weights.read(path)
