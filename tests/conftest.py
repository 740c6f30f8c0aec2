"""Fixtures that every room uses: the shared folder beside the repository, where it is there."""

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder `shared` beside the repository (real imagery, parity kits); tests that need it skip without it."""
    path = ROOT.parent / "shared"
    if not path.is_dir():
        pytest.skip("needs the folder `shared` beside the repository (real imagery and full parity kits)")
    return path
