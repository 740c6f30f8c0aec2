"""The synthetic twins of the data sets, written once."""

from importlib import import_module
from pathlib import Path

import pytest

from tasks.data import catalogue

TWINS = ("sen1floods11", "pastis", "spacenet1", "levir-cd", "oscd")


@pytest.fixture(scope="session")
def twins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with the twin of every set in `TWINS` at the place that its card names."""
    root = tmp_path_factory.mktemp("twins")
    for name in TWINS:
        card = catalogue.card(name)
        import_module(f"tasks.data.twins.{card.family}").write(root / card.location)
    return root
