"""EuroSAT RGB, WorldStrat, UC-Merced and CV-BrCT: twins in the released layout, real images, and bad inputs."""

import shutil
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.common.errors import UserError
from tasks.data.drawn import drawn
from tasks.data.rgb_scenes import SceneDataset
from tasks.data.xstars_cards import XSTARS_CARDS

SETS = ("eurosat-rgb", "worldstrat", "uc-merced", "cv-brct")
RGB = ("RGB:red", "RGB:green", "RGB:blue")


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("twins")
    for name in SETS:
        card = XSTARS_CARDS[name]
        import_module(f"tasks.data.twins.{card.family}").write(root / card.location)
    return root


def opened(name: str, root: Path) -> SceneDataset:
    card = XSTARS_CARDS[name]
    reader = import_module(f"tasks.data.{card.family}")
    found = reader.present(card, root)
    assert found is not None
    return reader.open_dataset(card, found)


@pytest.mark.parametrize(
    ("name", "counts", "size"),
    [
        ("eurosat-rgb", (50, 20, 20), (64, 64)),
        ("worldstrat", (14, 7, 7), (1054, 1054)),
        ("uc-merced", (63, 21, 21), (256, 256)),
        ("cv-brct", (48, 6, 18), (500, 500)),
    ],
)
def test_a_twin_is_read_as_the_release_would_be(twins: Path, name: str, counts: tuple[int, ...], size: tuple[int, int]):
    dataset = opened(name, twins)
    assert tuple(len(dataset.splits[split]) for split in ("train", "val", "test")) == counts
    sample = dataset.splits["train"][0]
    image = dataset.read(sample, RGB)
    assert image.dtype == np.uint8
    assert image.shape == (3, *size)
    with Image.open(dataset.root / sample) as file:  # another decoder
        theirs = np.moveaxis(np.asarray(file), -1, 0)
    assert np.abs(image.astype(int) - theirs).max() <= (3 if sample.endswith(".jpg") else 0)
    assert np.array_equal(dataset.read(sample, RGB[::-1]), image[::-1])
    labels = [dataset.label(one) for split in dataset.splits.values() for one in split]
    assert set(labels) == set(range(dataset.card.num_classes))


def test_the_label_is_the_folder(twins: Path):
    for name in ("eurosat-rgb", "uc-merced", "cv-brct"):
        dataset = opened(name, twins)
        for sample in dataset.splits["test"]:
            assert dataset.card.classes[dataset.label(sample)] == Path(sample).parent.name


def test_the_bands_have_the_statistics_of_the_train_split(twins: Path):
    dataset = opened("eurosat-rgb", twins)
    stack = np.stack([dataset.read(name, RGB) for name in dataset.splits["train"]]).astype(float)
    assert [band.mean for band in dataset.bands] == pytest.approx(list(stack.mean((0, 2, 3))))
    assert [band.std for band in dataset.bands] == pytest.approx(list(stack.std((0, 2, 3))))


def test_worldstrat_keeps_a_tile_of_two_splits_out_of_train_and_skips_tiles_without_a_class(twins: Path):
    dataset = opened("worldstrat", twins)
    listed = (dataset.root / "stratified_train_val_test_split.csv").read_text()
    assert listed.count("Landcover-6003") == 2
    assert [split for split in dataset.splits if any("Landcover-6003" in name for name in dataset.splits[split])] == [
        "test"
    ]
    assert "Landcover-999999" in listed


def test_an_incomplete_set_and_odd_sizes_are_said(twins: Path):
    warnings = opened("uc-merced", twins).warnings
    assert "uc-merced: 63/21/21 samples (train/val/test) where the whole set has 1260/420/420" in warnings
    assert "uc-merced: 1 of 105 images are not 256 px square, down to 247 px" in warnings
    assert any("not the published lists" in line for line in opened("eurosat-rgb", twins).warnings)


def test_the_version_changes_with_the_files(twins: Path, tmp_path: Path):
    shutil.copytree(twins / "cv-brct", tmp_path / "cv-brct")
    before = opened("cv-brct", tmp_path).version
    assert before == opened("cv-brct", twins).version
    (tmp_path / "cv-brct/aerial/house/1.jpg").unlink()
    assert opened("cv-brct", tmp_path).version != before


def test_cv_brct_is_split_by_the_hash_of_each_name(twins: Path):
    dataset = opened("cv-brct", twins)
    for split, names in dataset.splits.items():
        assert {drawn(name.removeprefix("aerial/")) for name in names} == {split}


def test_cv_brct_takes_the_nine_folders_as_they_are_called(twins: Path, tmp_path: Path):
    shutil.copytree(twins / "cv-brct", tmp_path / "cv-brct")
    (tmp_path / "cv-brct/aerial/religious").rename(tmp_path / "cv-brct/aerial/church")
    dataset = opened("cv-brct", tmp_path)
    assert "church" in dataset.card.classes
    assert any("the classes are called" in line for line in dataset.warnings)
    shutil.rmtree(tmp_path / "cv-brct/aerial/church")
    with pytest.raises(UserError, match="8 class folders; cv-brct has 9"):
        opened("cv-brct", tmp_path)


def test_a_set_that_is_not_there_is_none(tmp_path: Path):
    for name in SETS:
        card = XSTARS_CARDS[name]
        assert import_module(f"tasks.data.{card.family}").present(card, tmp_path) is None


def test_bad_inputs_are_refused_in_one_sentence(twins: Path, tmp_path: Path):
    root = tmp_path / "eurosat-rgb"
    shutil.copytree(twins / "eurosat-rgb", root)
    dataset = opened("eurosat-rgb", tmp_path)
    sample = root / dataset.splits["train"][0]
    Image.new("RGB", (60, 64)).save(sample)
    with pytest.raises(UserError, match=r"is 64x60; images of eurosat-rgb are 64 px square"):
        dataset.read(dataset.splits["train"][0], RGB)
    Image.new("L", (64, 64)).save(sample)
    with pytest.raises(UserError, match="has 1 bands of uint8"):
        dataset.read(dataset.splits["train"][0], RGB)
    sample.write_bytes(b"no image")
    with pytest.raises(UserError, match="cannot be read"):
        dataset.read(dataset.splits["train"][0], RGB)
    with pytest.raises(UserError, match="no band of eurosat-rgb 'RGB:rad', did you mean 'RGB:red'"):
        dataset.read(dataset.splits["val"][0], ["RGB:rad"])
    (root / "eurosat-val.txt").write_text("Rivver_1.jpg\n")
    with pytest.raises(UserError, match="did you mean 'River'"):
        opened("eurosat-rgb", tmp_path)
    (root / "eurosat-val.txt").write_text("")
    with pytest.raises(UserError, match="no image of the val split"):
        opened("eurosat-rgb", tmp_path)
    (root / "eurosat-val.txt").unlink()
    with pytest.raises(UserError, match=r"the list .*eurosat-val.txt is missing"):
        opened("eurosat-rgb", tmp_path)


def test_a_damaged_list_of_worldstrat_is_refused(twins: Path, tmp_path: Path):
    shutil.copytree(twins / "worldstrat", tmp_path / "worldstrat")
    path = tmp_path / "worldstrat/stratified_train_val_test_split.csv"
    text = path.read_text()
    path.write_text(text.replace("IPCC Class", "class"))
    with pytest.raises(UserError, match="lacks a column of tile, IPCC Class, split"):
        opened("worldstrat", tmp_path)
    path.write_text(text.replace(",Forest,", ",Forrest,"))
    with pytest.raises(UserError, match="did you mean 'Forest'"):
        opened("worldstrat", tmp_path)
    path.write_text(text.replace(",test\n", ",tast\n"))
    with pytest.raises(UserError, match="did you mean 'test'"):
        opened("worldstrat", tmp_path)


def test_real_uc_merced_images_go_through_the_reader(shared: Path, tmp_path: Path):
    (tmp_path / "uc-merced").mkdir()
    (tmp_path / "uc-merced/Images").symlink_to(shared / "data/ucmerced")
    dataset = opened("uc-merced", tmp_path)
    names = [name for split in dataset.splits.values() for name in split]
    assert len(names) == 51
    assert any("51 images are not 256 px square" in line for line in dataset.warnings)
    shapes = set()
    for name in names:
        image = dataset.read(name, RGB)
        with Image.open(dataset.root / name) as file:
            assert np.array_equal(image, np.moveaxis(np.asarray(file), -1, 0))
        assert dataset.card.classes[dataset.label(name)] == Path(name).parent.name
        shapes.add(image.shape)
    assert len(shapes) > 1


def test_real_eurosat_images_go_through_the_reader(shared: Path, tmp_path: Path):
    root = tmp_path / "eurosat-rgb"
    root.mkdir()
    (root / "2750").symlink_to(shared / "data/eurosat_rgb")
    files = [path.name for path in sorted((root / "2750").glob("*/*.jpg"))]
    for split in ("train", "val", "test"):
        (root / f"eurosat-{split}.txt").write_text("\n".join(name for name in files if drawn(name) == split))
    dataset = opened("eurosat-rgb", tmp_path)
    assert sum(len(names) for names in dataset.splits.values()) == len(files) == 2000
    assert {dataset.read(name, RGB).shape for name in dataset.splits["val"]} == {(3, 64, 64)}
