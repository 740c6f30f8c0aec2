"""Parity: the authors' numbers are reproduced, the usual mistakes are seen, and broken kits are told in one line."""

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from timm.layers.pos_embed import resample_abs_pos_embed
from torch import Tensor

from harness import verify
from models.common.errors import UserError
from models.parity import synthetic

SLIM = Path(__file__).resolve().parents[1] / "parity"
KITS = ("deo", "deo_w7", "deo_vit", "dinov2", "dinov3", "dinov3_sat")


# The kits that the repository carries, and the full ones where they are.


@pytest.mark.parametrize("name", KITS)
def test_every_adapter_computes_what_its_authors_compute(name: str):
    outcome = verify.run_kit(SLIM / name)
    assert outcome.passed, outcome.line()
    assert 0 < outcome.error < outcome.rtol / 5  # exactly 0 would mean that nothing was compared


@pytest.mark.parametrize("name", KITS)
def test_the_full_kits_pass(shared: Path, name: str):
    outcome = verify.run_kit(shared / "parity" / name)
    assert outcome.passed, outcome.line()


def test_the_carried_kits_are_cut_from_the_full_ones(shared: Path, tmp_path: Path):
    cut: dict[str, Any] = {"__name__": "cut"}
    exec((SLIM / "cut.py").read_text(), cut)
    assert sorted(cut["CASES"]) == sorted(KITS)
    for name, cases in cut["CASES"].items():
        cut["cut"](shared / "parity" / name, tmp_path / name, cases)
        assert (tmp_path / name / "manifest.json").read_text() == (SLIM / name / "manifest.json").read_text()
        with np.load(tmp_path / name / "golden.npz") as new, np.load(SLIM / name / "golden.npz") as carried:
            assert new.files == carried.files
            assert all(np.array_equal(new[key], carried[key]) for key in new.files)


def test_the_carried_kits_are_small_and_name_no_place_of_a_machine():
    files = [path for name in KITS for path in (SLIM / name).iterdir()]
    assert sum(path.stat().st_size for path in files) < 1.5e6
    for path in files:
        if path.suffix == ".json":
            assert not any(place in path.read_text() for place in ("/work", "/home", "/root", "/tmp", "/Users"))


def test_synthetic_values_are_those_of_the_reference(shared: Path):
    reference: dict[str, Any] = {"__name__": "reference"}
    exec((shared / "parity" / "synthetic_weights.py").read_text(), reference)
    keys = [
        ("norm.weight", (7,), "float32"),
        ("norm.bias", (7,), "float32"),
        ("ls1.gamma", (5,), "bfloat16"),
        ("bn.running_var", (6,), "float32"),
        ("temperature", (), "float32"),
        ("scale", (1,), "float32"),
        ("conv.weight", (4, 3, 2, 2), "float32"),
        ("table.weight", (3, 4000), "float64"),
        ("counter", (), "int64"),
        ("mask", (3,), "bool"),
    ]
    theirs, ours = reference["synthetic_state_dict"](keys), synthetic.state_dict(keys)
    assert list(ours) == list(theirs)
    for name, value in ours.items():
        assert value.dtype == np.float32
        np.testing.assert_array_max_ulp(value, theirs[name], maxulp=1)
    spec = {"synthetic": "image", "shape": [2, 3, 4, 5], "scale": 1.0}
    assert np.array_equal(synthetic.image(spec), reference["synthetic_image"]("image", [2, 3, 4, 5]))
    moved = synthetic.image({**spec, "scale": 0.5, "offset": 0.25, "clip": [-0.5, 0.5]})
    assert np.array_equal(moved, np.clip(synthetic.image(spec) * np.float32(0.5) + np.float32(0.25), -0.5, 0.5))


# Mistakes. Each is made on a network that is right otherwise, by an adapter file of one's own.

MISTAKES = {
    "a norm's epsilon": """
    for module in model.modules():
        if type(module).__name__ == "LayerNorm":
            module.eps = 1e-6 if module.eps == 1e-5 else 1e-5
""",
    "tanh GELU": """
    from torch import nn
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.GELU):
                setattr(module, name, nn.GELU(approximate="tanh"))
""",
    "band order": """
    from torch import cat, nn
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_pre_hook(lambda conv, x: (cat([x[0][:, :3].flip(1), x[0][:, 3:]], dim=1),))
""",
}
FAMILIES = {
    "deo": ("deo", "rgb64_x0.005"),
    "deo_vit": ("deo_vit", "ms96"),
    "dinov2": ("dinov2", "c112x168"),
    "dinov3": ("dinov3", "c96x160"),
}


def one_case(tmp_path: Path, name: str, case: str, change: Callable[[dict[str, Any]], object] | None = None) -> Path:
    """A copy of a carried kit with one of its cases, which `change` may alter."""
    manifest = json.loads((SLIM / name / "manifest.json").read_text())
    manifest["golden"]["cases"] = {case: manifest["golden"]["cases"][case]}
    if change:
        change(manifest["golden"]["cases"][case])
    folder = tmp_path / name
    folder.mkdir()
    (folder / "manifest.json").write_text(json.dumps(manifest))
    shutil.copy(SLIM / name / "golden.npz", folder)
    return folder


@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_usual_mistake_does_not_pass(tmp_path: Path, family: str, mistake: str):
    kit = one_case(tmp_path, *FAMILIES[family])
    label = json.loads((kit / "manifest.json").read_text())["adapter"]
    name, _, variant = label.partition(":")
    adapter = tmp_path / "broken.py"
    adapter.write_text(
        f"from models.{name} import CARD, build as official\n"
        f"def build(card, shapes):\n    model = official(card, shapes)\n{MISTAKES[mistake]}\n    return model\n"
    )
    outcome = verify.run_kit(kit, f"{adapter}:{variant}" if variant else str(adapter))
    assert not outcome.passed
    assert "is off by" in outcome.failures[0]
    assert outcome.error > outcome.limit


@pytest.mark.parametrize(("name", "case"), [("dinov2", "c112x168_pos50"), ("deo_vit", "ms256_pos500")])
def test_positions_resized_as_timm_does_do_not_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, case: str
):
    def by_size(table: Tensor, size: tuple[int, int], patch: int) -> Tensor:
        return resample_abs_pos_embed(table, [size[0] // patch, size[1] // patch])

    monkeypatch.setattr("models.networks.vit.resize_positions", by_size)
    outcome = verify.run_kit(one_case(tmp_path, name, case))
    assert not outcome.passed
    assert outcome.error > 100 * outcome.limit


def test_periods_of_the_formula_do_not_pass_for_those_of_the_file(tmp_path: Path):
    kit = one_case(tmp_path, "dinov3", "c224_bf16periods", lambda case: case["weights"].pop("constants"))
    outcome = verify.run_kit(kit)
    assert not outcome.passed
    assert outcome.error > 10 * outcome.limit


# What a kit may say, on a network small enough to be worked out in the test.

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


@pytest.fixture
def toy(tmp_path: Path) -> tuple[Path, str, dict[str, Any]]:
    """A kit of the toy, the path to its adapter, and the kit's manifest."""
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
    kit = tmp_path / "toy"
    kit.mkdir()
    np.savez(kit / "golden.npz", **arrays)
    (kit / "manifest.json").write_text(json.dumps(manifest))
    adapter = tmp_path / "toy.py"
    adapter.write_text(TOY)
    return kit, str(adapter), json.loads(json.dumps(manifest))


def test_strides_shapes_offsets_clips_and_scales_of_a_kit_are_followed(toy: tuple[Path, str, dict[str, Any]]):
    kit, adapter, _ = toy
    lines: list[str] = []
    assert verify.verify([adapter], kit, lines.append) == 0
    assert len(lines) == 1
    assert lines[0].startswith("toy  pass <= 2e-05   (worst ")
    assert "2 cases, 10 arrays" in lines[0]


def test_a_scale_of_one_case_does_not_leak_into_the_next(toy: tuple[Path, str, dict[str, Any]]):
    kit, adapter, manifest = toy
    cases = manifest["golden"]["cases"]
    manifest["golden"]["cases"] = {"scaled": cases["scaled"], "plain": cases["plain"]}
    (kit / "manifest.json").write_text(json.dumps(manifest))
    assert verify.run_kit(kit, adapter).passed


def test_a_difference_is_told_by_array_and_size(toy: tuple[Path, str, dict[str, Any]]):
    kit, adapter, _ = toy
    with np.load(kit / "golden.npz") as stored:
        arrays = dict(stored)
    arrays["scaled/stage3"] = arrays["scaled/stage3"].copy()
    arrays["scaled/stage3"].flat[0] += 0.01 * np.abs(arrays["scaled/stage3"]).max()
    np.savez(kit / "golden.npz", **arrays)
    lines: list[str] = []
    assert verify.verify([adapter], kit, lines.append) == 1
    assert lines[0].startswith("toy  FAIL scaled/stage3 is off by 1.0e-02 of its largest value, allowed ")
    assert "1 failures" in lines[0]


FAILURES = {
    "an unmapped array": (
        lambda m: m["golden"]["cases"]["plain"]["arrays"].update(
            {"plain/attention": m["golden"]["cases"]["plain"]["arrays"]["plain/stage1"]}
        ),
        "plain/attention has no mapping in models/parity/toy.py",
    ),
    "an argument": (
        lambda m: m["golden"]["cases"]["plain"]["args"].update({"window": 12}),
        "plain: argument 'window' is not understood by models/parity/toy.py",
    ),
    "no input": (lambda m: m["golden"]["cases"]["plain"].update({"inputs": {}}), "a case without inputs"),
    "another sensor": (
        lambda m: m["golden"]["cases"]["plain"].update(
            {"inputs": {"sar": {"synthetic": "a", "shape": [1, 2, 8, 8], "scale": 1}}}
        ),
        "plain: toy has no sar mode with 2",
    ),
    "a key too many": (lambda m: m["keys"].append(["extra", [3], "float32"]), "1 unexpected: extra"),
    "a key too few": (
        lambda m: (m["keys"].pop(1), m["golden"]["cases"]["scaled"]["weights"]["overrides"].pop("module.offset")),
        "1 missing: offset",
    ),
}


@pytest.mark.parametrize("what", FAILURES)
def test_what_cannot_be_honoured_is_a_failure_and_not_passed_over(toy: tuple[Path, str, dict[str, Any]], what: str):
    kit, adapter, manifest = toy
    change, sentence = FAILURES[what]
    with np.load(kit / "golden.npz") as stored:
        np.savez(kit / "golden.npz", **dict(stored), **{"plain/attention": stored["plain/stage1"]})
    change(manifest)
    (kit / "manifest.json").write_text(json.dumps(manifest))
    outcome = verify.run_kit(kit, adapter)
    assert not outcome.passed
    assert sentence in outcome.failures[0]
    assert len(outcome.failures) == (2 if "key" in what else 1)


def test_a_stated_window_that_was_not_built_is_a_failure(tmp_path: Path):
    kit = one_case(tmp_path, "deo", "rgb64_x0.005", lambda case: case["args"].update(window=7))
    assert verify.run_kit(kit).failures == ("rgb64_x0.005: argument window = 7 is not true of what was built",)


BROKEN = {
    "no JSON": (lambda m: None, "Expecting value"),
    "no adapter": (lambda m: m.pop("adapter"), "'adapter' is missing"),
    "a number for an adapter": (lambda m: m.update(adapter=3), "not a name"),
    "no golden": (lambda m: m.pop("golden"), "'golden' is missing"),
    "no cases": (lambda m: m["golden"]["cases"].clear(), "no cases"),
    "no tolerance": (lambda m: m["golden"]["tolerance"].pop("atol"), "'atol' is missing"),
    "a list that is none": (lambda m: m.update(keys=[["gain"]]), "cannot be read"),
    "an unknown section": (
        lambda m: m["golden"]["cases"]["plain"]["weights"].update(uses=["sections.x"]),
        "sections.x",
    ),
    "a pattern without a key": (
        lambda m: m["golden"]["cases"]["scaled"]["weights"]["overrides"].update(pos_embed={"scale": 2}),
        "matches no key",
    ),
    "a scale at another time": (
        lambda m: m["golden"]["cases"]["scaled"]["weights"]["overrides"]["*gain"].update(when="after the resize"),
        "not understood",
    ),
    "an unknown constant": (
        lambda m: m["golden"]["cases"]["plain"]["weights"].update(constants={"periods": "values"}),
        "'constants' is missing",
    ),
    "an array that is not stored": (
        lambda m: m["golden"]["cases"]["plain"]["arrays"].update({"plain/x": {}}),
        "plain/x",
    ),
    "an array of another case": (
        lambda m: m["golden"]["cases"]["plain"]["arrays"].update({"scaled/stage1": {}}),
        "not named after its case",
    ),
    "another shape": (
        lambda m: m["golden"]["cases"]["plain"]["arrays"]["plain/stage1"].update(shape_full=[2, 3, 16, 9]),
        "was announced",
    ),
    "a file elsewhere": (lambda m: m["golden"]["cases"]["plain"].update(file="../golden.npz"), "outside the kit"),
    "no file": (lambda m: m["golden"]["cases"]["plain"].update(file="other.npz"), "other.npz"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_manifest_is_one_line_that_names_the_kit(toy: tuple[Path, str, dict[str, Any]], what: str):
    kit, adapter, manifest = toy
    change, sentence = BROKEN[what]
    change(manifest)
    (kit / "manifest.json").write_text("nonsense" if what == "no JSON" else json.dumps(manifest))
    with pytest.raises(UserError) as error:
        verify.verify([adapter], kit)
    assert str(error.value).startswith("parity kit toy cannot be read: ")
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


def test_a_truncated_file_of_arrays_is_one_line(toy: tuple[Path, str, dict[str, Any]]):
    kit, adapter, _ = toy
    golden = (kit / "golden.npz").read_bytes()
    for part in (b"", golden[:-60], golden[:200]):
        (kit / "golden.npz").write_bytes(part)
        with pytest.raises(UserError, match="parity kit toy cannot be read"):
            verify.run_kit(kit, adapter)


def test_pickled_arrays_are_not_read(toy: tuple[Path, str, dict[str, Any]]):
    kit, adapter, _ = toy
    with np.load(kit / "golden.npz") as stored:
        arrays = dict(stored)
    np.savez(kit / "golden.npz", **{**arrays, "plain/stage1": np.array([{}], dtype=object)})
    assert zipfile.is_zipfile(kit / "golden.npz")
    with pytest.raises(UserError, match="allow_pickle=False"):
        verify.run_kit(kit, adapter)


# Which kits are run.


def test_a_folder_without_kits_is_one_line(tmp_path: Path):
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(UserError, match="no parity kit in"):
            verify.kits(path)


def test_all_runs_what_has_an_adapter_here_and_names_what_has_not(tmp_path: Path):
    one_case(tmp_path, "dinov2", "c112x168")
    foreign = tmp_path / "elsewhere"
    foreign.mkdir()
    (foreign / "manifest.json").write_text(json.dumps({"adapter": "dinov2:giant"}))
    lines: list[str] = []
    assert verify.verify(None, tmp_path, lines.append) == 0
    assert lines[0].startswith("dinov2     pass <= 2e-05   (worst ")
    assert lines[1] == "elsewhere  skipped: no adapter dinov2:giant"


def test_nothing_to_run_is_no_success(tmp_path: Path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "manifest.json").write_text(json.dumps({"adapter": "x"}))
    with pytest.raises(UserError, match=r"no parity kit in .* is of a model here; it holds x"):
        verify.verify(None, tmp_path)


def test_a_named_model_without_a_kit_is_one_line():
    with pytest.raises(UserError, match=r"no parity kit of imagestats in .*; it holds .*dinov3:sat"):
        verify.verify(["imagestats"], SLIM)
    with pytest.raises(UserError, match="did you mean 'dinov3'"):
        verify.verify(["dinov33"], SLIM)


def test_a_named_variant_runs_its_own_kits_alone(tmp_path: Path):
    one_case(tmp_path, "dinov3", "c96x160")
    one_case(tmp_path, "deo_vit", "ms96")
    for label in ("dinov3", "dinov3:base"):
        lines: list[str] = []
        assert verify.verify([label], tmp_path, lines.append) == 0
        assert [line.split()[0] for line in lines] == ["dinov3"]
    with pytest.raises(UserError, match="no parity kit of dinov3:sat"):
        verify.verify(["dinov3:sat"], tmp_path)
