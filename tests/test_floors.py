"""The walls between the floors, and the quiet of the ones that must answer at once."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FLOORS = ("harness", "tasks", "models", "leaderboards")
MAY_IMPORT = {
    "harness": {"harness", "tasks", "models", "leaderboards"},
    "tasks": {"tasks", "models.common"},
    "models": {"models"},
    "leaderboards": {"leaderboards"},
}
HEAVY = (
    "torch",
    "torchvision",
    "timm",
    "pandas",
    "geobench",
    "scipy",
    "torchgeo",
    "mmseg",
    "h5py",
    "rasterio",
    "matplotlib",
)


def imported(path: Path) -> set[str]:
    """Every module a file imports, also inside functions."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


@pytest.mark.parametrize("floor", FLOORS)
def test_a_floor_never_imports_upward(floor: str):
    for path in (ROOT / floor).rglob("*.py"):
        for name in imported(path):
            if name.split(".")[0] in FLOORS:
                # `from models import common` is spelt as `models` plus `models.common`: a prefix of what is allowed is fine
                allowed = any(
                    name == below or name.startswith(f"{below}.") or below.startswith(f"{name}.")
                    for below in MAY_IMPORT[floor]
                )
                assert allowed, f"{path.relative_to(ROOT)} imports {name}"


def test_tasks_never_name_an_adapter():
    for path in (ROOT / "tasks").rglob("*.py"):
        assert "models" not in imported(path), f"{path.relative_to(ROOT)} imports the adapters"


@pytest.mark.parametrize("floor", [floor for floor in FLOORS if floor != "harness"])
def test_only_the_harness_reads_the_command_line_the_environment_and_the_clock(floor: str):
    for path in (ROOT / floor).rglob("*.py"):
        assert "argparse" not in imported(path), f"{path.relative_to(ROOT)} imports argparse"
        text = path.read_text()
        clock = ("time.time(", "time.monotonic(", "perf_counter(", "datetime.now(", "today(")
        for word in ("os.environ", "os.getenv", "sys.argv", *clock):
            assert word not in text, f"{path.relative_to(ROOT)} reads {word}"


def test_no_file_is_longer_than_400_lines():
    for floor in (*FLOORS, "tests"):
        for path in (ROOT / floor).rglob("*.py"):
            length = len(path.read_text().splitlines())
            assert length <= 400, f"{path.relative_to(ROOT)} has {length} lines"


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["run", "--help"],
        ["pretrain", "--help"],
        ["list", "models"],
        ["list", "suites"],
        ["list", "datasets"],
        ["list", "protocols"],
        ["list", "protocols", "--diff", "clean", "deo-paper"],
        ["list", "models", "--transform", "m-so2sat"],
        ["plan", "--suite", "geobench", "--model", "deo,dinov2,dinov3"],
    ],
    ids=" ".join,
)
def test_a_verb_that_only_tells_imports_nothing_heavy(arguments: list[str], tmp_path: Path):
    script = (
        "import json, sys\nfrom harness.cli import main\n"
        f"try:\n    code = main({arguments!r})\nexcept SystemExit as stop:\n    code = stop.code\n"
        f"print()\nprint(json.dumps([code, [name for name in {HEAVY!r} if name in sys.modules]]))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    code, heavy = json.loads(done.stdout.splitlines()[-1])
    assert (code, heavy) == (0, []), done.stderr
