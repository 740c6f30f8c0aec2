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
    "gfm": ("s256w8", "s192_x0.005"),
    "radio": ("p224", "pos96x160"),
    "seco": ("c64",),
    "mae": ("c160", "c160_pos50"),
    "satmae": ("c160_pos50", "c224_pos50"),
    "satmae_sentinel": ("c64_pos50", "c96_pos50"),
    "scalemae": ("c160_res", "c224_deo"),
    "satdifuser_reduced": ("r128_two_steps", "gen128", "vae", "norm"),
    "xstars": ("s96", "s256_pos500"),
    "xstars_base": ("s96", "s256_pos500"),
    "xstars_tiny": ("s96", "s256_pos500"),
    "croma": ("s96", "s120_joint", "norm", "alibi"),
    "terrafm": ("pos160x96", "s1_224"),
    "copernicus_fm": ("s2_224_meta", "s2_64_k8_partialmeta", "rgb256_pos500"),
    "dofa": ("rgb_pos", "s1"),
    "panopticon": ("s2_98", "rgb224_pos500"),
}
FIELDS = ("adapter", "model", "variant", "source", "license", "checkpoint", "constants", "build", "input", "features")
NUMBERS = 2500  # at most, per array, as long as it has channels to leave out
FEWER = {"satdifuser_reduced": 150}  # this kit has a hundred arrays


def cut(kit: Path, out: Path, cases: tuple[str, ...]) -> None:
    """Write the cut kit as `out`/manifest.json and `out`/golden.npz."""
    manifest = json.loads((kit / "manifest.json").read_text(encoding="utf-8"))
    golden = manifest["golden"] | {"cases": {name: manifest["golden"]["cases"][name] for name in cases}}
    arrays = {}
    for case in golden["cases"].values():
        with np.load(kit / case["file"]) as stored:
            for key, spec in case["arrays"].items():
                arrays[key] = thin(stored[key], spec, FEWER.get(kit.name, NUMBERS))
        case["file"] = "golden.npz"
    out.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(out / "golden.npz", **arrays)
    facts = {name: manifest[name] for name in FIELDS if name in manifest}
    facts |= {"golden": golden}
    used = {part for case in golden["cases"].values() for part in case.get("weights", {}).get("uses", ())}
    lists = {"keys": manifest["keys"]}
    lists |= {name: part["keys"] for name, part in manifest.get("sections", {}).items() if f"sections.{name}" in used}
    text = json.dumps(facts, indent=1).removesuffix("\n}")
    if len(lists) > 1:
        sections = [f'  {json.dumps(name)}: {{"keys": {lines(lists[name])}}}' for name in lists if name != "keys"]
        text += ',\n "sections": {\n' + ",\n".join(sections) + "\n }"
    (out / "manifest.json").write_text(f'{text},\n "keys": {lines(lists["keys"])}\n}}\n', encoding="utf-8")


def lines(keys: list) -> str:
    """A list of keys, one a line."""
    return "[\n  " + ",\n  ".join(json.dumps(key) for key in keys) + "\n ]"


def thin(array: np.ndarray, spec: dict, numbers: int) -> np.ndarray:
    """Leave out channels until few numbers are left; `spec` then states the stride."""
    axis = spec.get("channel_axis", 1)
    channels = array.shape[axis]
    factor = 1
    while array.size * -(-channels // factor) / channels > numbers and factor < channels:
        factor *= 2
    spec["channel_stride"] *= factor
    return array[tuple(slice(None, None, factor) if index == axis else slice(None) for index in range(array.ndim))]


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    for name, cases in CASES.items():
        cut(Path(sys.argv[1], name), Path(sys.argv[2], name), cases)
