"""Stand-in weights and inputs that depend on names and shapes alone, the same for whoever implements a model.

The rule is that of the parity kits: standard normal float32 from PCG64, seeded with the first eight bytes (little
endian) of the SHA-256 of the name, then scaled by what kind of parameter the name and shape say it is.
"""

from collections.abc import Iterable
from hashlib import sha256
from math import prod, sqrt
from typing import Any

import numpy as np

Key = tuple[str, tuple[int, ...], str]  # name, shape, dtype of one entry of a state dict


def normal(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Standard normal float32 of this shape, the same for the same name everywhere (0-D shapes give a 0-D array)."""
    seed = int.from_bytes(sha256(name.encode()).digest()[:8], "little")
    values = np.random.Generator(np.random.PCG64(seed)).standard_normal(shape, dtype=np.float32)
    return np.asarray(values, dtype=np.float32)


def weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The float32 stand-in for one parameter: variances and norm weights around 1, the rest around 0."""
    values = normal(name, shape)
    leaf = name.rpartition(".")[2]
    if leaf == "running_var":
        return np.asarray(1 + 0.1 * np.abs(values), dtype=np.float32)
    if len(shape) == 1 and leaf in ("weight", "gamma", "scale"):
        return np.asarray(1 + 0.1 * values, dtype=np.float32)
    std = 0.02 if len(shape) <= 1 else min(0.05, 1 / sqrt(prod(shape[1:])))
    return np.asarray(np.float32(std) * values, dtype=np.float32)


def state_dict(keys: Iterable[Key]) -> dict[str, np.ndarray]:
    """A value for every floating-point key; integer and bool entries are tables that a model builds itself."""
    return {name: weight(name, shape) for name, shape, dtype in keys if "float" in dtype}


def image(spec: dict[str, Any]) -> np.ndarray:
    """The input of a case: float32 `clip(normal * scale + offset)` of `spec["shape"]`; no `offset`, no `clip`: none."""
    values = normal(f"input:{spec['synthetic']}", tuple(spec["shape"])) * np.float32(spec["scale"])
    values = values + np.float32(spec.get("offset", 0))
    if "clip" not in spec:
        return values
    low, high = spec["clip"]
    return np.clip(values, np.float32(low), np.float32(high))
