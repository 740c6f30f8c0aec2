"""Fixtures: the shared folder beside the repository, and the command line in a folder of its own."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

# As `python -m harness` does, and before torch and numpy are imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from harness.cli import main

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder `shared` beside the repository (real imagery, parity kits); tests that need it skip without it."""
    path = ROOT.parent / "shared"
    if not path.is_dir():
        pytest.skip("needs the folder `shared` beside the repository (real imagery and full parity kits)")
    return path


@pytest.fixture(scope="session")
def demo_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with the synthetic twin, written once."""
    from tasks.data import twin

    root = tmp_path_factory.mktemp("data")
    twin.write(root / "twin")
    return root


@pytest.fixture
def harness(
    tmp_path: Path, demo_data: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> Callable[..., tuple[int, str, str]]:
    """`harness("run", "--model", ...)` -> (exit code, stdout, stderr); runs and leaderboards go below tmp_path."""
    monkeypatch.setenv("EO_HARNESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("EO_HARNESS_DATA", str(demo_data))
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return call
