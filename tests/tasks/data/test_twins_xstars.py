"""The twins of the X-STARS sets: the same bytes for the same seed, and together one data root of small files."""

import hashlib
from importlib import import_module
from pathlib import Path

import pytest

from tasks.data.dataset import SPLITS
from tasks.data.xstars_cards import XSTARS_CARDS


def content(root: Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("name", ["eurosat-rgb", "cv-brct", "spacenet8", "chesapeake-landsat8"])
def test_one_seed_gives_the_same_bytes_and_another_seed_others(tmp_path: Path, name: str):
    module = import_module(f"tasks.data.twins.{XSTARS_CARDS[name].family}")
    for place, seed in (("one", 0), ("again", 0), ("other", 1)):
        module.write(tmp_path / place, seed)
    first, again, other = (content(tmp_path / place) for place in ("one", "again", "other"))
    assert first == again
    assert first.keys() == other.keys()
    assert first != other


def test_all_twins_together_are_a_data_root_of_small_files(tmp_path: Path):
    for card in XSTARS_CARDS.values():
        import_module(f"tasks.data.twins.{card.family}").write(tmp_path / card.location)
        reader = import_module(f"tasks.data.{card.family}")
        splits = reader.open_dataset(card, reader.present(card, tmp_path)).splits
        assert min(len(splits[split]) for split in SPLITS) > 0, card.name
    assert sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) < 40e6
