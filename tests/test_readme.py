"""The README tells the truth: its first screen, its example model, its layout."""

import re
from pathlib import Path

from tests.support import ROOT

README = (ROOT / "README.md").read_text()


def block(language: str, containing: str) -> str:
    blocks = re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)
    (found,) = [text for text in blocks if containing in text]
    return found


def test_the_first_screen_has_exactly_two_commands_to_type_on_a_fresh_machine():
    first = re.search(r"```console\n(.*?)```", README, flags=re.DOTALL)
    assert first is not None
    commands = first.group(1).splitlines()
    assert commands == ["uv run python -m harness run --model deo --suite demo", "uv run pytest"]
    assert README[: first.start()].count("\n") < 20


def test_the_model_in_one_file_runs_and_lands_on_the_leaderboard(harness, tmp_path: Path):
    (tmp_path / "resnet18.py").write_text(block("python", "ResNet-18"))
    code, _, err = harness(
        *("run", "--model", "resnet18.py", "--suite", "demo", "--weights", "random", "--limit", "20"),
        *("--runs", "R", "--out", "O", "--task", "knn", "--set", "knn.k=1,3", "--json"),
    )
    assert code == 0, err
    assert "resnet18" in (tmp_path / "O/demo.csv").read_text()


def test_the_example_folder_description_is_understood(harness, tmp_path: Path):
    import numpy as np
    from PIL import Image

    (tmp_path / "my.toml").write_text(block("toml", "my-scenes"))
    for number in range(24):
        folder = tmp_path / "images" / ("bright" if number % 2 else "dark")
        folder.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 100, (16, 16, 3)) + 120 * (number % 2)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number:02}.png")
    code, _, err = harness(
        "run", "--model", "imagestats", "--dataset", "my.toml", "--runs", "R", "--out", "O", "--seeds", "0"
    )
    assert code == 0, err


def test_every_folder_of_the_layout_exists_and_none_is_left_out():
    layout = block("text", "leaderboards/")
    named = re.findall(r"^( *)(\w+)/ ", layout, flags=re.MULTILINE)
    above, paths = [], set()
    for indent, name in named:
        above = [*above[: len(indent) // 2], name]
        paths.add("/".join(above))
    assert all((ROOT / path).is_dir() for path in paths)
    packages = {
        path.parent.relative_to(ROOT)
        for floor in ("harness", "tasks", "models", "leaderboards")
        for path in (ROOT / floor).rglob("*.py")
    }
    assert {str(path) for path in packages} <= paths


def test_every_command_of_the_readme_names_known_verbs_and_options():
    from harness.cli import parser

    commands = re.findall(r"^(?:uv run )?python -m harness (.*)$", README, flags=re.MULTILINE)
    assert len(commands) >= 7
    for command in commands:
        parser().parse_args(command.split())
