"""A parity kit on disk: a manifest of facts and the outputs of the authors' code, judged in `harness.verify`.

A kit is a folder with `manifest.json` and the .npz files that its cases name. Everything in it is checked against the
schema when it is read, so that a broken kit is the caller's one-line error and never a difference between networks.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from models.common.errors import UserError
from models.parity.synthetic import Key

LATE = "after the resize"  # how an override says `when` it is applied; nothing else is understood


@dataclass(frozen=True)
class Stored:
    """One stored array: every `stride`-th entry along `axis` of what the network returns in the shape `full`."""

    full: tuple[int, ...]
    stride: int
    axis: int
    values: np.ndarray

    def cut(self, array: np.ndarray) -> np.ndarray:
        """The entries of a full array that are stored."""
        index = [slice(None)] * array.ndim
        if self.stride > 1:
            index[self.axis] = slice(None, None, self.stride)
        return array[tuple(index)]


@dataclass(frozen=True)
class Case:
    """One input, the arguments beside it, the weights it was run with, and what came out.

    `keys` are the entries of the state dict to fill; `scales` multiplies single ones, `constants` adds given values.
    `late` holds the factors among `scales` that the authors applied after a table was resized to the case. Resizing is
    linear, so they are applied before it all the same; arrays stored "before any scale" do not have them.
    """

    name: str
    inputs: Mapping[str, Mapping[str, Any]]
    args: Mapping[str, Any]
    keys: tuple[Key, ...]
    scales: Mapping[str, float]
    constants: Mapping[str, np.ndarray]
    late: Mapping[str, float]
    arrays: Mapping[str, Stored]


@dataclass(frozen=True)
class Kit:
    """Facts about one model and its outputs; an array passes when max|a-b| <= atol + rtol * max|b|."""

    name: str
    adapter: str
    rtol: float
    atol: float
    cases: tuple[Case, ...]


def find(path: Path) -> list[Path]:
    """The kit at `path`, or every kit in it, by name. Raises `UserError` where there is none."""
    if (path / "manifest.json").is_file():
        return [path]
    found = sorted(manifest.parent for manifest in path.glob("*/manifest.json"))
    if not found:
        raise UserError(f"no parity kit in {str(path)!r}: a kit is a folder with a manifest.json")
    return found


@contextmanager
def _one_line(path: Path) -> Iterator[None]:
    """Turn whatever a malformed kit makes of the parsing below into one `UserError` that names the kit."""
    name = path.resolve().name
    try:
        yield
    except KeyError as error:
        raise UserError(f"parity kit {name} cannot be read: {error} is missing") from None
    except (OSError, EOFError, BadZipFile, ValueError, TypeError, AttributeError, IndexError) as error:
        raise UserError(f"parity kit {name} cannot be read: {error}") from None


def read_adapter(path: Path) -> str:
    """The label of the adapter that a kit is for, without reading its arrays."""
    with _one_line(path):
        name = json.loads((path / "manifest.json").read_text(encoding="utf-8"))["adapter"]
        if not isinstance(name, str):
            raise ValueError(f"its adapter is {name!r}, not a name")
        return name


def read(path: Path) -> Kit:
    """Read and check one kit. Raises `UserError` naming the kit and what is wrong with it."""
    adapter = read_adapter(path)
    with _one_line(path):
        manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
        golden = manifest["golden"]
        cases = tuple(_case(path, name, case, manifest) for name, case in golden["cases"].items())
        if not cases:
            raise ValueError("it has no cases")
        rtol, atol = (float(golden["tolerance"][name]) for name in ("rtol", "atol"))
        return Kit(path.resolve().name, adapter, rtol, atol, cases)


def _case(path: Path, name: str, case: Mapping[str, Any], manifest: Mapping[str, Any]) -> Case:
    """One case with its weights resolved: lists joined, shapes replaced, patterns matched, constants looked up."""
    weights = case.get("weights", {})
    lists = {"keys": manifest["keys"]}
    lists |= {f"sections.{part}": section["keys"] for part, section in manifest.get("sections", {}).items()}
    keys: list[Key] = []
    for part in weights.get("uses", ["keys"]):
        shapes = weights.get("shapes", {}).get(part, {})
        keys += [(str(key), tuple(shapes.get(key, shape)), str(dtype)) for key, shape, dtype in lists[part]]
    scales: dict[str, float] = {}
    late: dict[str, float] = {}
    for pattern, change in weights.get("overrides", {}).items():
        if not str(change.get("when", LATE)).startswith(LATE):
            raise ValueError(f"case {name} scales {pattern} {change['when']!r}, which is not understood here")
        matched = [key for key, _, dtype in keys if fnmatchcase(key, pattern) and "float" in dtype]
        if not matched:
            raise ValueError(f"case {name} scales {pattern}, which matches no key")
        for key in matched:
            scales[key] = scales.get(key, 1.0) * float(change["scale"])
            if "when" in change:
                late[key] = late.get(key, 1.0) * float(change["scale"])
    constants = {key: _constant(key, value, manifest) for key, value in weights.get("constants", {}).items()}
    file = str(case["file"])
    if Path(file).name != file:
        raise ValueError(f"case {name} names a file outside the kit, {file!r}")
    with np.load(path / file, allow_pickle=False) as stored:
        arrays = {_leaf(name, key): _stored(key, spec, stored[key]) for key, spec in case["arrays"].items()}
    if not arrays:
        raise ValueError(f"case {name} has no arrays")
    return Case(name, dict(case["inputs"]), dict(case["args"]), tuple(keys), scales, constants, late, arrays)


def _constant(key: str, value: Any, manifest: Mapping[str, Any]) -> np.ndarray:
    """A constant of a case: a number, or the name of a list among the manifest's constants."""
    return np.asarray(manifest["constants"][key][value] if isinstance(value, str) else value, dtype=np.float32)


def _leaf(case: str, key: str) -> str:
    if not key.startswith(f"{case}/"):
        raise ValueError(f"array {key} is not named after its case {case}")
    return key[len(case) + 1 :]


def _stored(key: str, spec: Mapping[str, Any], values: np.ndarray) -> Stored:
    full, stride, axis = tuple(spec["shape_full"]), int(spec["channel_stride"]), int(spec.get("channel_axis", 1))
    shape = list(full)
    if stride > 1:
        shape[axis] = -(-shape[axis] // stride)
    if values.shape != tuple(shape) or values.dtype != np.float32 or not np.isfinite(values).all():
        raise ValueError(f"array {key} is {values.dtype} {values.shape}; finite float32 {tuple(shape)} was announced")
    return Stored(full, stride, axis, values)
