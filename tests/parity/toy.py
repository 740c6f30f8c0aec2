"""A kit of a network small enough to be worked out by numpy: every field of the schema that ordinary kits use."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from models.parity import synthetic

TOY = '''
from models.common.card import Card, Checkpoint, Mode

CARD = Card(
    name="toy", title="Toy", inputs=(Mode("rgb", ("red", "green", "blue"), "any", (), 8, 8),),
    checkpoint=Checkpoint("none", strip=("module.",), ignore=("head.",)), channels=(3, 3, 3, 3), strides=(1, 2, 4, 8),
    width=3, licence="MIT", paper="none",
)


def build(card, shapes):
    """Stages are the image times a weight per band, averaged over 1, 2, 4, 8 pixels."""
    import torch
    from models.common.backbone import Backbone

    class Toy(Backbone):
        def __init__(self, card, bands):
            super().__init__(card)
            self.gain = torch.nn.Parameter(torch.ones(bands))
            self.offset = torch.nn.Parameter(torch.ones(bands, 2))

        def encode(self, batch):
            image = batch.images["optical"] * self.gain[:, None, None] + self.offset[:, 0, None, None]
            stages = tuple(torch.nn.functional.avg_pool2d(image, stride) for stride in self.card.strides)
            return stages, {"default": image.mean(dim=(2, 3))}

    return Toy(card, shapes["gain"][0])
'''
TOY_KEYS = [["module.gain", [9], "float32"], ["module.offset", [3, 2], "float32"], ["head.bias", [4], "float32"]]


def toy_outputs(spec: dict[str, Any], gain: float = 1.0, offset: float = 1.0) -> dict[str, np.ndarray]:
    """The toy's stages and vector, by numpy."""
    image = synthetic.image(spec) * np.float32(gain) * synthetic.weight("module.gain", (3,))[:, None, None]
    image = image + np.float32(offset) * synthetic.weight("module.offset", (3, 2))[:, :1, None]
    number, bands, height, width = image.shape
    stages = [image.reshape(number, bands, height // s, s, width // s, s).mean(axis=(3, 5)) for s in (1, 2, 4, 8)]
    return {f"stage{index}": stage for index, stage in enumerate(stages, 1)} | {"pooled": image.mean(axis=(2, 3))}


def write(folder: Path) -> tuple[Path, str, dict[str, Any]]:
    """A kit of the toy in `folder`, the path to its adapter, and a copy of the kit's manifest."""
    specs = {
        "plain": {"synthetic": "a", "shape": [2, 3, 16, 8], "scale": 1.0},
        "scaled": {"synthetic": "b", "shape": [1, 3, 8, 24], "scale": 2.0, "offset": 0.5, "clip": [-1.0, 1.5]},
    }
    outputs = {
        "plain": toy_outputs(specs["plain"]),
        "scaled": toy_outputs(specs["scaled"], gain=5.0, offset=3.0),
    }
    weights = {"uses": ["keys"], "shapes": {"keys": {"module.gain": [3]}}}
    overrides = {"*gain": {"scale": 5}, "module.offset": {"scale": 3}}
    cases, arrays = {}, {}
    for name, found in outputs.items():
        announced = {}
        for leaf, array in found.items():
            stride, axis = {"stage2": (2, 1), "stage3": (3, 3)}.get(leaf, (1, 1))
            index = [slice(None)] * array.ndim
            index[axis] = slice(None, None, stride)
            arrays[f"{name}/{leaf}"] = array[tuple(index)].astype(np.float32)
            announced[f"{name}/{leaf}"] = {
                "shape_full": list(array.shape),
                "channel_stride": stride,
                "channel_axis": axis,
                "meaning": leaf,
            }
        cases[name] = {"file": "golden.npz", "inputs": {"image": specs[name]}, "args": {}, "arrays": announced}
    cases["plain"]["weights"] = weights
    cases["scaled"]["weights"] = weights | {"overrides": overrides}
    tolerance = {"rtol": 2e-5, "atol": 1e-6, "metric": "max|a-b| / max|b|"}
    golden = {"tolerance": tolerance, "notes": [], "cases": cases}
    manifest = {"adapter": "toy", "model": "toy", "keys": TOY_KEYS, "golden": golden}
    kit = folder / "toy"
    kit.mkdir()
    np.savez(kit / "golden.npz", **arrays)
    (kit / "manifest.json").write_text(json.dumps(manifest))
    adapter = folder / "toy.py"
    adapter.write_text(TOY)
    return kit, str(adapter), json.loads(json.dumps(manifest))
