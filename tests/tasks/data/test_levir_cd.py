"""LEVIR-CD: tiles of originals, sets that are cut already, torchgeo's pixels, and damage."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from models.common.errors import UserError
from tasks.data import levir_cd
from tasks.data.tiled import Tile, cut, tiles
from tasks.data.twins.rasters import save

CARD = levir_cd.CARDS["levir-cd"]
RGB = ["RGB:red", "RGB:green", "RGB:blue"]


@pytest.fixture
def root(twins, tmp_path) -> Path:
    return Path(shutil.copytree(twins / CARD.location, tmp_path / CARD.location))


def test_sixteen_tiles_per_original_give_the_counts_of_the_papers():
    cut_up = len(list(tiles("train_1", 1024, 1024, CARD.size)))
    assert tuple(pairs * cut_up for pairs in (445, 64, 128)) == CARD.splits


def test_tiles_cover_every_pixel_once_and_are_named_by_their_place():
    image = np.arange(6 * 5).reshape(1, 6, 5)
    found = dict(tiles("a", 6, 5, 4))
    assert list(found) == ["a_0000_0000", "a_0000_0004", "a_0004_0000", "a_0004_0004"]
    parts = [cut(image, tile, 4, -1) for tile in found.values()]
    assert parts[3].tolist() == [[[24, -1, -1, -1], [29, -1, -1, -1], [-1] * 4, [-1] * 4]]
    assert sorted(value for part in parts for value in part.ravel().tolist() if value >= 0) == list(range(30))
    assert dict(tiles("b", 4, 3, 4)) == {"b": Tile("b", 0, 0)}


def test_tiles_are_the_pixels_of_torchgeo(twins, tmp_path):
    from torchgeo.datasets import LEVIRCD

    flat = tmp_path / "levir-cd"  # as torchgeo unpacks the archives: one folder for all splits
    for part in levir_cd.PARTS:
        (flat / part).mkdir(parents=True)
        for file in (twins / CARD.location).glob(f"*/{part}/*.png"):
            shutil.copy(file, flat / part)
    ours, nested = (levir_cd.open_dataset(CARD, root) for root in (flat, twins / CARD.location))
    assert ours.splits == nested.splits
    for split in ("train", "val", "test"):
        theirs = LEVIRCD(flat, split=split, checksum=False)  # pyright: ignore[reportArgumentType]
        stems = [Path(files["image1"]).stem for files in theirs.files]
        assert len(ours.splits[split]) == 4 * len(stems)
        for stem, sample in zip(stems, theirs, strict=False):
            for row, column in ((0, 0), (0, 256), (256, 256)):
                name, window = f"{stem}_{row:04d}_{column:04d}", np.s_[..., row : row + 256, column : column + 256]
                np.testing.assert_array_equal(ours.read(name, RGB), sample["image"].numpy()[window])
                np.testing.assert_array_equal(ours.label(name), sample["mask"].numpy()[0][window])


def test_a_set_that_is_cut_already_is_read_as_it_is(shared, tmp_path):
    root = tmp_path / "levir-cd"
    for part in levir_cd.PARTS:
        shutil.copytree(shared / "data" / "levir_cd_samples" / part, root / part)
    with pytest.raises(UserError, match="levir-cd: the val split is empty; the whole set has 1024"):
        levir_cd.open_dataset(CARD, root)
    for part in levir_cd.PARTS:
        (root / part / "train_386_0512_0768.png").rename(root / part / "val_386_0512_0768.png")
    data = levir_cd.open_dataset(CARD, root)
    assert data.splits["train"] == ("train_36_0512_0512",)
    assert len(data.splits["test"]) == 6
    assert data.read("test_2_0000_0512", RGB).shape == (2, 3, 256, 256)
    assert data.label("val_386_0512_0768").max() == 0
    assert 0 < data.label("test_2_0000_0512").mean() < 1


def test_damage_gets_one_sentence_that_names_the_file(root):
    data = levir_cd.open_dataset(CARD, root)
    label = root / "train" / "label" / "train_1.png"
    save(label, np.full((512, 512), 7, dtype=np.uint8))
    with pytest.raises(UserError, match=r"train_1\.png holds 7; a label is 0 \(no change\) or 255"):
        data.label("train_1_0000_0000")
    save(label, np.zeros((256, 512), dtype=np.uint8))
    with pytest.raises(UserError, match="of different sizes \\(512x512, 512x512, 256x512\\)"):
        levir_cd.open_dataset(CARD, root)
    label.unlink()
    with pytest.raises(UserError, match=r"A/train_1\.png has no .*label/train_1\.png"):
        levir_cd.open_dataset(CARD, root)
    before = root / "val" / "A" / "val_1.png"
    before.write_bytes(before.read_bytes()[:2000])
    with pytest.raises(UserError, match=r"val_1\.png cannot be read"):
        data.read("val_1_0000_0000", RGB)


def test_a_copy_in_parquet_is_named_as_such(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train-00000-of-00005.parquet").touch()
    with pytest.raises(UserError, match="it is a copy in Parquet, which is not read: fetch the originals"):
        levir_cd.open_dataset(CARD, tmp_path)
