"""Kits on disk: values by the published rule, and every way of being broken told in one line."""

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.common.errors import UserError
from models.parity import kit, synthetic
from tests.parity import toy


@pytest.fixture
def toy_kit(tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    """A sound kit and its manifest."""
    path, _, manifest = toy.write(tmp_path)
    return path, manifest


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
        lambda m: m["golden"]["cases"]["scaled"]["weights"]["overrides"]["*gain"].update(when="at every second block"),
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
def test_a_broken_manifest_is_one_line_that_names_the_kit(toy_kit: tuple[Path, dict[str, Any]], what: str):
    path, manifest = toy_kit
    change, sentence = BROKEN[what]
    change(manifest)
    (path / "manifest.json").write_text("nonsense" if what == "no JSON" else json.dumps(manifest))
    with pytest.raises(UserError) as error:
        kit.read(path)
    assert str(error.value).startswith("parity kit toy cannot be read: ")
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


def test_a_truncated_file_of_arrays_is_one_line(toy_kit: tuple[Path, dict[str, Any]]):
    path, _ = toy_kit
    golden = (path / "golden.npz").read_bytes()
    for part in (b"", golden[:-60], golden[:200]):
        (path / "golden.npz").write_bytes(part)
        with pytest.raises(UserError, match="parity kit toy cannot be read"):
            kit.read(path)


def test_pickled_arrays_are_not_read(toy_kit: tuple[Path, dict[str, Any]]):
    path, _ = toy_kit
    with np.load(path / "golden.npz") as stored:
        arrays = dict(stored)
    np.savez(path / "golden.npz", **{**arrays, "plain/stage1": np.array([{}], dtype=object)})
    assert zipfile.is_zipfile(path / "golden.npz")
    with pytest.raises(UserError, match="allow_pickle=False"):
        kit.read(path)


def test_a_sound_kit_is_read_with_its_weights_resolved(toy_kit: tuple[Path, dict[str, Any]]):
    plain, scaled = kit.read(toy_kit[0]).cases
    assert plain.keys[0] == ("module.gain", (3,), "float32")
    assert dict(plain.scales) == {}
    assert dict(scaled.scales) == {"module.gain": 5.0, "module.offset": 3.0}
    stored = scaled.arrays["stage3"]
    assert stored.full == (1, 3, 2, 6)
    assert stored.values.shape == (1, 3, 2, 2)
    assert stored.cut(np.arange(36.0).reshape(1, 3, 2, 6))[0, 0].tolist() == [[0.0, 3.0], [6.0, 9.0]]


def test_a_factor_that_comes_after_a_resize_is_applied_and_remembered(toy_kit: tuple[Path, dict[str, Any]]):
    path, manifest = toy_kit
    overrides = {"*": {"scale": 2}, "*gain": {"scale": 5, "when": "after the resize to the window of the case"}}
    manifest["golden"]["cases"]["scaled"]["weights"]["overrides"] = overrides
    (path / "manifest.json").write_text(json.dumps(manifest))
    plain, scaled = kit.read(path).cases
    assert dict(plain.late) == {}
    assert dict(scaled.late) == {"module.gain": 5.0}
    assert dict(scaled.scales) == {"module.gain": 10.0, "module.offset": 2.0, "head.bias": 2.0}


def test_sections_constants_and_crossing_patterns_are_resolved(toy_kit: tuple[Path, dict[str, Any]]):
    path, manifest = toy_kit
    manifest["sections"] = {"head": {"keys": [["head.weight", [2, 3], "float32"], ["head.count", [], "int64"]]}}
    manifest["constants"] = {"periods": {"values": [1.0, 2.5]}}
    manifest["golden"]["cases"]["plain"]["weights"] = {
        "uses": ["keys", "sections.head"],
        "overrides": {"head.*": {"scale": 2}, "*weight": {"scale": 5}},
        "constants": {"periods": "values", "temperature": 0.5},
    }
    (path / "manifest.json").write_text(json.dumps(manifest))
    case = kit.read(path).cases[0]
    assert [name for name, _, _ in case.keys][3:] == ["head.weight", "head.count"]
    assert dict(case.scales) == {"head.bias": 2.0, "head.weight": 10.0}
    assert case.constants["periods"].tolist() == [1.0, 2.5]
    assert case.constants["temperature"].shape == ()
