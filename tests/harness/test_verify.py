"""Parity: the authors' numbers are reproduced, the usual mistakes are seen, and broken kits are told in one line."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from timm.layers.pos_embed import resample_abs_pos_embed
from torch import Tensor

from harness import verify
from models.common.errors import UserError
from tests.parity import cut
from tests.parity import toy as toy_files

SLIM = Path(__file__).resolve().parents[1] / "parity"
KITS = tuple(cut.CASES)


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
    assert sorted(path.parent.name for path in SLIM.glob("*/manifest.json")) == sorted(KITS)
    for name, cases in cut.CASES.items():
        cut.cut(shared / "parity" / name, tmp_path / name, cases)
        assert (tmp_path / name / "manifest.json").read_text() == (SLIM / name / "manifest.json").read_text()
        with np.load(tmp_path / name / "golden.npz") as new, np.load(SLIM / name / "golden.npz") as carried:
            assert new.files == carried.files
            assert all(np.array_equal(new[key], carried[key]) for key in new.files)


def test_the_carried_kits_are_small_and_name_no_place_of_a_machine():
    files = [path for name in KITS for path in (SLIM / name).iterdir()]
    assert sum(path.stat().st_size for path in files) < 6e6
    for path in files:
        if path.suffix == ".json":
            assert not any(place in path.read_text() for place in ("/work", "/home", "/root", "/tmp", "/Users"))


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
    "queries and keys exchanged": """
    from torch import cat
    right = model.convert
    def exchanged(state):
        state = dict(right(state))
        for name in state:
            if name.endswith("qkv.weight"):
                third = len(state[name]) // 3
                query, key, value = state[name].split(third)
                state[name] = cat([key, query, value])
        return state
    model.convert = exchanged
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


# What a kit may say, on a network small enough to be worked out by numpy.


@pytest.fixture(name="toy")
def toy_kit(tmp_path: Path) -> tuple[Path, str, dict[str, Any]]:
    """A kit of the toy, the path to its adapter, and the kit's manifest."""
    return toy_files.write(tmp_path)


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
