"""Stage maps by name: what comes back is what was encoded, within the error that was measured, however it was kept."""

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv2d, cross_entropy

from models.common.errors import UserError
from tasks.common import chunks, fit
from tasks.common.stage_maps import MixedShapes, StageMaps, joined
from tasks.common.store import entry, evict
from tasks.switches import Training
from tests.support import ROOT

NAMES = [f"tile{number:02}" for number in range(20)]
SHAPES = ((4, 8, 8), (8, 4, 4), (8, 2, 2), (8, 2, 2))
ROW = 2 * (256 + 128 + 32 + 32)
KEY = {"weights": "random-0"}
UNIT = {"fp16": 2.0**-11, "bf16": 2.0**-8}  # half the spacing of neighbours, relative to the number


@pytest.fixture(autouse=True)
def small_files(monkeypatch):
    monkeypatch.setattr(chunks, "CHUNK_BYTES", 7 * ROW)  # two batches of three images in each file


def exact(name: str) -> list[Tensor]:
    """Four maps of one image, on scales as different as those of real stages."""
    generator = torch.Generator().manual_seed(int(name[-2:]))
    return [torch.randn(shape, generator=generator) * 10.0**scale for scale, shape in enumerate(SHAPES)]


class Encoder:
    """Counts its calls, and stops like Ctrl-C at the image `stop_at`."""

    def __init__(self, stop_at: str = "") -> None:
        self.calls: list[list[str]] = []
        self.stop_at = stop_at

    def __call__(self, names: Sequence[str]) -> tuple[Tensor, ...]:
        if self.stop_at in names:
            raise KeyboardInterrupt
        self.calls.append(list(names))
        return tuple(torch.stack(stages) for stages in zip(*map(exact, names), strict=True))


def opened(store: Path | None, encode, kind: str = "bf16", names: Sequence[str] = NAMES, **more) -> StageMaps:
    return StageMaps(encode, names, 3, kind=kind, store=store, **{"key": KEY, **more})


def extracted(store: Path, encode=None, kind: str = "bf16", **more) -> StageMaps:
    maps = opened(store, encode or Encoder(), kind, **more)
    maps(NAMES[:1])
    return maps


def files(store: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in store.glob("*/maps-*")}


@pytest.mark.parametrize("kind", ["fp16", "bf16"])
def test_what_comes_back_is_what_was_encoded_within_the_error_that_was_measured(tmp_path: Path, kind: str):
    maps = opened(tmp_path, Encoder(), kind)
    asked = ["tile07", "tile19", "tile00", "tile07"]
    found = maps(asked)
    assert maps.error is not None
    for stage, parts in zip(found, zip(*map(exact, asked), strict=True), strict=True):
        wanted = torch.stack(parts)
        assert stage.shape == wanted.shape
        assert stage.dtype == torch.float32
        assert torch.equal(stage, wanted.to(chunks.DTYPES[kind]).float())
        assert (stage - wanted).abs().max() <= UNIT[kind] * wanted.abs().max()
    assert (maps.extracted, maps.warnings) == (20, [])


@pytest.mark.parametrize("kind", ["fp16", "bf16"])
def test_the_error_is_that_of_the_worst_batch_and_stage(tmp_path: Path, kind: str):
    maximum, rms = 0.0, 0.0
    for stage in range(4):
        values = torch.stack([exact(name)[stage] for name in NAMES]).double()
        gaps = values.float().to(chunks.DTYPES[kind]).double() - values
        rms = max(rms, float(gaps.square().sum().sqrt() / values.square().sum().sqrt()))
        for start in range(0, 20, 3):
            part = slice(start, start + 3)
            maximum = max(maximum, float(gaps[part].abs().max() / values[part].abs().max()))
    found = extracted(tmp_path, kind=kind).error
    assert found is not None
    assert (found.maximum, found.rms) == (pytest.approx(maximum, rel=1e-6), pytest.approx(rms, rel=1e-6))
    assert found.rms < found.maximum <= UNIT[kind]
    (index,) = tmp_path.glob("*/index.json")
    assert json.loads(index.read_text())["error"] == asdict(found)


def test_the_files_hold_rows_of_plain_bits_that_any_reader_can_read(tmp_path: Path):
    extracted(tmp_path)
    stored = files(tmp_path)
    assert [len(stored[name]) // ROW for name in sorted(stored)] == [6, 6, 6, 2]
    bits = np.frombuffer(stored["maps-00001.bin"], np.uint16).reshape(6, -1)[1]  # the eighth image
    values = (bits.astype(np.uint32) << 16).view(np.float32)
    wanted = np.concatenate([stage.numpy().ravel() for stage in exact("tile07")])
    assert np.allclose(values, wanted, rtol=UNIT["bf16"], atol=0)


def test_a_later_run_encodes_nothing(tmp_path: Path):
    first = opened(tmp_path, Encoder())
    wanted = first(NAMES)
    encoder = Encoder()
    again = opened(tmp_path, encoder)
    assert all(torch.equal(a, b) for a, b in zip(wanted, again(NAMES), strict=True))
    assert (encoder.calls, again.extracted, again.error) == ([], 0, first.error)


@pytest.mark.parametrize("change", [{"kind": "fp16"}, {"key": {"weights": "random-1"}}, {"names": NAMES[:19]}], ids=str)
def test_whatever_can_change_a_map_makes_it_another_entry(tmp_path: Path, change: dict):
    extracted(tmp_path)
    assert extracted(tmp_path, **change).extracted == len(change.get("names", NAMES))
    assert len(list(tmp_path.glob("*/index.json"))) == 2


def test_an_interrupted_extraction_goes_on_and_ends_with_the_same_bytes(tmp_path: Path):
    undisturbed, rest = Encoder(), Encoder()
    whole = extracted(tmp_path / "whole", undisturbed)
    with pytest.raises(KeyboardInterrupt):
        extracted(tmp_path / "cut", Encoder(stop_at="tile10"))
    assert not list((tmp_path / "cut").glob("*/index.json"))
    seen: list[tuple[int, int]] = []
    resumed = extracted(tmp_path / "cut", rest, progress=lambda done, total: seen.append((done, total)))
    assert files(tmp_path / "cut") == files(tmp_path / "whole")
    assert rest.calls == undisturbed.calls[2:]  # the file of the first six images was safe
    assert (resumed.extracted, resumed.error) == (14, whole.error)
    assert seen == [(9, 20), (12, 20), (15, 20), (18, 20), (20, 20)]


def test_an_extraction_stopped_in_its_first_file_leaves_nothing(tmp_path: Path):
    with pytest.raises(KeyboardInterrupt):
        extracted(tmp_path, Encoder(stop_at="tile04"))
    assert list(tmp_path.iterdir()) == []


HOLD = """
import sys
from pathlib import Path
import torch
from tasks.common.stage_maps import StageMaps

def encode(names):
    print("encoding", flush=True)
    sys.stdin.readline()
    return (torch.full((len(names), 1, 2, 2), 4.0),) * 4

StageMaps(encode, ["a", "b"], 2, kind="bf16", store=Path(sys.argv[1]), key={"weights": "random-0"})(["a"])
"""


def test_a_second_process_waits_and_finds_the_firsts_maps(tmp_path: Path):
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        assert other.stdout.readline() == "encoding\n"
        threading.Timer(0.3, lambda: (other.stdin.write("go\n"), other.stdin.flush())).start()
        encoder = Encoder()
        maps = opened(tmp_path, encoder, names=["a", "b"])
        assert maps(["b"])[3].unique().tolist() == [4.0]
        assert encoder.calls == []


def test_damaged_cut_and_lost_files_are_noticed_and_only_they_are_computed_again(tmp_path: Path):
    extracted(tmp_path)
    before, encoder = files(tmp_path), Encoder()
    paths = sorted(tmp_path.glob("*/maps-*"))
    paths[0].write_bytes(before["maps-00000.bin"][:-1] + b"\x00")
    paths[1].write_bytes(before["maps-00001.bin"][:-ROW])
    paths[3].unlink()
    maps = extracted(tmp_path, encoder)
    assert [names[0] for names in encoder.calls] == ["tile00", "tile03", "tile06", "tile09", "tile18"]
    assert files(tmp_path) == before
    assert maps.warnings == ["3 files of the stored stage maps were damaged and were computed again"]
    assert extracted(tmp_path).warnings == []


def test_a_damaged_index_is_not_believed(tmp_path: Path):
    extracted(tmp_path)
    (index,) = tmp_path.glob("*/index.json")
    index.write_text(index.read_text()[:-9])
    assert extracted(tmp_path).extracted == 20


def test_a_limit_below_one_entry_stores_nothing_and_says_so(tmp_path: Path):
    maps = opened(tmp_path, Encoder(), limit=20 * ROW - 1)
    assert torch.equal(maps(NAMES)[1], torch.stack([exact(name)[1] for name in NAMES]))
    assert maps.error is None
    assert not files(tmp_path)
    assert maps.warnings == ["stage maps are not stored in bf16: they take 17.9 kB, and --store-limit is 17.9 kB"]


def test_a_new_entry_makes_the_least_recently_used_one_leave_but_not_one_in_use(tmp_path: Path):
    one = 20 * ROW + 5000  # with its index
    held = extracted(tmp_path, key={"weights": "held"})
    for weights in ("old", "older"):
        extracted(tmp_path, key={"weights": weights}).close()
    with entry(tmp_path, {"pooled": "oldest"}, 1000) as slot:
        slot.finish(slot.create(4), {})
    pooled = slot.directory
    for directory in tmp_path.glob("*/"):
        weights = json.loads((directory / "index.json").read_text())["key"].get("maps", {}).get("weights", "oldest")
        os.utime(directory / "lock", (1, ["held", "oldest", "older", "old"].index(weights)))
    extracted(tmp_path, key={"weights": "new"}, limit=3 * one).close()
    assert not pooled.exists()
    left = [json.loads(path.read_text())["key"]["maps"]["weights"] for path in tmp_path.glob("*/index.json")]
    assert sorted(left) == ["held", "new", "old"]
    held.close()
    assert evict(tmp_path, 2 * one) <= 2 * one
    assert extracted(tmp_path, key={"weights": "held"}).extracted == 20


@pytest.mark.parametrize("where", ["one batch", "another batch"])
def test_maps_of_different_shape_are_not_stored_but_right(tmp_path: Path, where: str):
    odd = "tile04" if where == "one batch" else "tile19"

    def of_image(name: str) -> tuple[Tensor, ...]:
        return tuple(stage[None, ..., :1] if name == odd else stage[None] for stage in exact(name))

    names = [*NAMES[:18], odd] if where == "another batch" else NAMES
    maps = opened(tmp_path, lambda part: joined([of_image(name) for name in part]), names=names)
    assert torch.equal(maps([odd])[0][0], exact(odd)[0][..., :1])
    assert torch.equal(maps(["tile03", "tile05"])[2], torch.stack([exact(name)[2] for name in ("tile03", "tile05")]))
    assert maps.warnings == ["stage maps are not stored in bf16: the images differ in size, and their maps in shape"]
    assert list(tmp_path.glob("*/")) == []
    with pytest.raises(UserError, match=f"tile03 and {odd} differ in shape"):
        maps(["tile03", odd])


def test_groups_of_one_shape_are_joined_and_others_are_not():
    first, second, other = ((torch.zeros(count, 2, size, 3),) for count, size in ((2, 3), (1, 3), (1, 4)))
    assert joined([first, second])[0].shape == (3, 2, 3, 3)
    with pytest.raises(MixedShapes):
        joined([first, other])


def test_what_fp16_cannot_hold_is_refused_with_the_remedy(tmp_path: Path):
    def wild(names: Sequence[str]) -> tuple[Tensor, ...]:
        return tuple(stage * (70.0 if "tile08" in names else 1.0) for stage in Encoder()(names))

    with pytest.raises(UserError, match=r"stage 4 reaches .*fp16 cannot hold; store the maps as bf16"):
        extracted(tmp_path, wild, "fp16")
    assert list(tmp_path.iterdir()) == []
    assert extracted(tmp_path, wild, "bf16").extracted == 20


def test_values_that_are_not_finite_are_kept_and_told(tmp_path: Path):
    def broken(names: Sequence[str]) -> tuple[Tensor, ...]:
        stages = Encoder()(names)
        stages[1][0, 0, 0, 0] = torch.nan if "tile03" in names else torch.inf if "tile18" in names else 0
        return stages

    for _ in range(2):  # computed, then found
        maps = opened(tmp_path, broken)
        found = maps(["tile03", "tile18"])[1][:, 0, 0, 0]
        assert found[0].isnan()
        assert found[1].isinf()
        assert maps.warnings == ["the stage maps of 2 images hold values that are not finite"]
        assert maps.error is not None
        assert 0 < maps.error.maximum <= UNIT["bf16"]


def test_a_disk_without_room_is_said_before_anything_is_written(tmp_path: Path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(UserError, match=r"no room for 17\.9 kB .*1\.0 kB are free.*--store, or let --store-limit"):
        extracted(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_up_keeps_what_is_safe(tmp_path: Path, monkeypatch):
    real, seen = os.fsync, []

    def full(descriptor: int) -> None:
        seen.append(descriptor)
        if len(seen) == 3:  # a file, the progress, and this one
            raise OSError(28, os.strerror(28))
        real(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(UserError, match=r"no room for 12\.5 kB.*No space left.*goes on from there"):
            extracted(tmp_path)
    assert list(files(tmp_path)) == ["maps-00000.bin"]
    assert extracted(tmp_path).extracted == 14


def test_in_memory_batches_are_cut_alike_whatever_is_asked_for():
    encoder = Encoder()
    maps = opened(None, encoder, "none")
    asked = ["tile10", "tile01", "tile19", "tile10"]
    assert torch.equal(maps(asked)[0], torch.stack([exact(name)[0] for name in asked]))
    maps(["tile00", "tile09", "tile11"])
    assert encoder.calls == [NAMES[9:12], NAMES[0:3], NAMES[18:]]
    assert (maps.error, maps.warnings, maps.extracted) == (None, [], 8)


def test_without_room_images_are_encoded_anew_and_that_is_said():
    encoder = Encoder()
    maps = opened(None, encoder, "none", room=2 * (2 * ROW))  # float32: two images
    for _ in range(2):
        assert torch.equal(maps(NAMES)[3], torch.stack([exact(name)[3] for name in NAMES]))
    assert [names[0] for names in encoder.calls[7:]] == [f"tile{number:02}" for number in (2, 5, 8, 11, 14, 17)]
    (warning,) = maps.warnings
    assert "of 20 images take about 35.8 kB" in warning


def test_a_kind_without_a_store_and_an_unknown_kind_are_told():
    assert opened(None, Encoder(), "fp16").warnings == ["stage maps are not stored in fp16: there is no store"]
    with pytest.raises(UserError, match=r"'fp8'.*none, fp16, bf16"):
        opened(None, Encoder(), "fp8")


@pytest.mark.parametrize("kind", ["fp16", "bf16"])
def test_a_head_trained_on_stored_maps_goes_the_way_of_one_trained_on_exact_ones(tmp_path: Path, kind: str):
    labels = {name: (exact(name)[0].sum(0) > 0).long() for name in NAMES}
    training = Training(
        optimizer="sgd", learning_rates=(0.05,), epochs=8, warmup_epochs=1, schedule="constant", batch=5
    )

    def curve(maps: StageMaps) -> tuple[Tensor, Tensor]:
        weight = torch.randn(1, 2, 4, 1, 1, generator=torch.Generator().manual_seed(0)) * 0.1
        losses: list[Tensor] = []

        def loss(stage: Tensor, wanted: Tensor) -> Tensor:
            value = cross_entropy(conv2d(stage, weight[0]), wanted)
            losses.append(value.detach())
            return value[None]

        def batches(epoch: int):
            for part in (NAMES[start : start + 5] for start in range(0, 20, 5)):
                yield maps(part)[0], torch.stack([labels[name] for name in part])

        kept = fit.fit([weight], batches, 4, loss, lambda: torch.zeros(1, dtype=torch.float64), training)
        return torch.stack(losses), kept.parameters[0]

    stored = opened(tmp_path, Encoder(), kind)
    (plain, weight), (rounded, _) = curve(opened(None, Encoder(), "none")), curve(stored)
    assert stored.error is not None
    # At fixed weights a pixel x that moves by d moves its cross-entropy by at most sqrt(2) |W| |d|; weights of other losses
    # differ too, so twice that is allowed. Each of the 4 channels of d stays below maximum * max |x|.
    peak = max(float(exact(name)[0].abs().max()) for name in NAMES)
    allowed = 2 * 2**0.5 * float(weight.norm()) * stored.error.maximum * peak * 4**0.5
    assert plain[-1] < 0.7 * plain[0]
    assert 0 < (plain - rounded).abs().max() <= allowed
