"""A command line in a folder of its own: cache, data root, journal and leaderboards all below tmp_path."""

from collections.abc import Callable
from pathlib import Path

import pytest

from harness.cli import main


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
