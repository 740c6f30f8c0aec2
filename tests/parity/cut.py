"""Cut parity kits down to what the repository carries: one or two small cases each, few numbers per array.

    python tests/parity/cut.py KITS OUT

KITS holds the full kits, OUT receives a folder per kit of the table below. Case names containing `pos` or `tab` scale
a table up, `x0.005` makes a norm's epsilon visible, `bf16periods` rounds the rotary periods: the mistakes that other
cases do not see. Arrays keep every n-th channel, so that a cut kit is a kit like any other.
"""

import json
import sys
from pathlib import Path

import numpy as np

CASES = {
    "deo": ("ms128_tab40", "rgb64_x0.005"),
    "deo_w7": ("ms128_tab40", "rgb96"),
    "deo_vit": ("ms96", "ms256_pos500"),
    "dinov2": ("c112x168", "c112x168_pos50"),
    "dinov3": ("c96x160", "c224_bf16periods"),
    "dinov3_sat": ("c96x160", "c224_bf16periods"),
}
FIELDS = ("adapter", "model", "variant", "source", "license", "checkpoint", "constants", "build", "input", "features")
NUMBERS = 2500  # at most, per array, as long as it has channels to leave out


def cut(kit: Path, out: Path, cases: tuple[str, ...]) -> None:
    """Write the cut kit as `out`/manifest.json and `out`/golden.npz."""
    manifest = json.loads((kit / "manifest.json").read_text(encoding="utf-8"))
    golden = manifest["golden"] | {"cases": {name: manifest["golden"]["cases"][name] for name in cases}}
    arrays = {}
    for case in golden["cases"].values():
        with np.load(kit / case["file"]) as stored:
            for key, spec in case["arrays"].items():
                arrays[key] = thin(stored[key], spec)
        case["file"] = "golden.npz"
    out.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(out / "golden.npz", **arrays)
    facts = {name: manifest[name] for name in FIELDS if name in manifest} | {"golden": golden}
    keys = ",\n  ".join(json.dumps(key) for key in manifest["keys"])
    text = json.dumps(facts, indent=1).removesuffix("\n}")
    (out / "manifest.json").write_text(f'{text},\n "keys": [\n  {keys}\n ]\n}}\n', encoding="utf-8")


def thin(array: np.ndarray, spec: dict) -> np.ndarray:
    """Leave out channels until few numbers are left; `spec` then states the stride."""
    axis = spec.get("channel_axis", 1)
    channels = array.shape[axis]
    factor = 1
    while array.size * -(-channels // factor) / channels > NUMBERS and factor < channels:
        factor *= 2
    spec["channel_stride"] *= factor
    return array[tuple(slice(None, None, factor) if index == axis else slice(None) for index in range(array.ndim))]


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    for name, cases in CASES.items():
        cut(Path(sys.argv[1], name), Path(sys.argv[2], name), cases)
