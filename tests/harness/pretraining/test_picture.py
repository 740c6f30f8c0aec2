"""The picture of a curve."""

import json
from pathlib import Path

from harness.pretraining import picture


def curve(out: Path, probes: bool) -> None:
    lines = [{"step": -1, "time": 0.0, "probe": {"accuracy": 0.3}}] if probes else []
    lines += [
        {"step": step, "time": 1.0, "loss": 1 / (step + 1), "dino": 0.5, "learning_rate": 0.1} for step in range(120)
    ]
    (out / "curve.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_the_same_curve_gives_the_same_picture_and_a_probe_makes_it_taller(tmp_path: Path):
    curve(tmp_path, probes=False)
    plain = picture.draw(tmp_path)
    assert plain is not None
    first = plain.read_bytes()
    assert picture.draw(tmp_path).read_bytes() == first
    curve(tmp_path, probes=True)
    assert len(picture.draw(tmp_path).read_bytes()) > len(first)


def test_without_a_step_there_is_nothing_to_draw(tmp_path: Path):
    assert picture.draw(tmp_path) is None
    assert list(tmp_path.iterdir()) == []
