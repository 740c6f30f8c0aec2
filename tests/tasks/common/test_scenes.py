"""Tiles, labels and stages: sizes that are never mended silently, augmentation that moves labels with their pixels."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from models.common.errors import UserError
from tasks.change_detection import difference
from tasks.common.augmentation import draw
from tasks.common.scenes import IGNORE
from tasks.common.tiles import Tile
from tasks.switches import Segmentation
from tests.tasks.dense_toy import floods, lakes, scenes, tiny

PLAIN = Segmentation(tile=0)


def test_a_label_of_another_size_than_its_image_is_refused():
    data = lakes()
    data.labels["image00"] = data.labels["image00"][:30]
    with pytest.raises(UserError, match="image00: the image has 32x32 pixels and its label 30x32"):
        scenes(data, PLAIN).stages([Tile("image00")])


def test_label_values_outside_the_classes_are_refused_with_the_image():
    data = lakes()
    data.labels["image03"][0, 0] = 7
    with pytest.raises(UserError, match=r"image03: its label holds 0\.\.7, outside the classes 0\.\.1"):
        scenes(data, PLAIN).label("image03")


def test_the_ignored_value_of_a_data_set_and_no_data_where_asked_for_become_one():
    data = lakes(ignore=255, classes=("no data", "water"), no_data=0)
    data.labels["image00"][:2] = 255
    counted = scenes(data, PLAIN).label("image00")
    left_out = scenes(data, replace(PLAIN, no_data="ignore")).label("image00")
    assert (counted[:2] == IGNORE).all()
    assert set(np.unique(counted[2:])) == {0, 1}
    assert set(np.unique(left_out)) == {IGNORE, 1}


def test_training_images_of_different_sizes_are_refused_unless_resized_to_one():
    data = lakes(size=0)
    data.images["image01"], data.labels["image01"] = data.images["image01"][:, :28], data.labels["image01"][:28]
    with pytest.raises(UserError, match=r"2 sizes .* do not make a batch; set input_size"):
        scenes(data, PLAIN).training(data.splits["train"])
    resized = scenes(data, replace(PLAIN, input_size=32))
    assert len(resized.training(data.splits["train"])) == 8
    shapes = {tuple(stage.shape) for stage in resized.stages([Tile("image00"), Tile("image01")])[:1]}
    assert shapes == {(2, 6, 8, 8)}


def test_training_tiles_without_any_label_are_left_out_and_a_split_of_them_is_refused():
    data = lakes(ignore=255)
    data.labels["image00"][:] = 255
    toy = scenes(data, PLAIN)
    assert [tile.name for tile in toy.training(data.splits["train"])] == list(data.splits["train"][1:])
    with pytest.raises(UserError, match="no pixel of the train split has a label"):
        toy.training(["image00"])


def test_overlapping_tiles_average_their_logits_into_those_of_the_image():
    data = lakes(size=0)
    toy = scenes(data, Segmentation(tile=16, tile_stride=8))
    position = torch.arange(32.0)

    def logits(tiles):
        return torch.stack([position[tile.window[0]][None, :, None].expand(2, 16, 16) for tile in tiles])

    found = dict(toy.predicted(data.splits["test"], logits))
    for name in data.splits["test"]:
        torch.testing.assert_close(found[name], position[None, :, None].expand(2, 32, 32))


def test_padding_is_cut_off_before_logits_are_brought_to_the_labels_size():
    data = lakes(side=28)
    toy = scenes(data, Segmentation(fit="pad", tile=0), tiny())
    assert toy.transform.sizes(28, 28) == ((28, 28), (32, 32))
    ramp = torch.arange(32.0).repeat(32, 1)[None, None]
    torch.testing.assert_close(toy.at_label_size(ramp, Tile("image00")), ramp[..., :28, :28])


def test_both_dates_are_encoded_alike_and_subtracted_before_minus_after():
    data = floods()
    toy = scenes(data, PLAIN, tiny(), fuse=lambda before, after: difference(before, after, absolute=False))
    pair = data.images["image00"]
    alone = [toy._stages([date.astype(np.float32)], tiny()) for date in pair]
    for stored, live, before, after in zip(
        toy.stages([Tile("image00")]), toy.live([Tile("image00")], tiny())[0], *alone, strict=True
    ):
        torch.testing.assert_close(stored, before - after)
        torch.testing.assert_close(live, before - after)


@pytest.mark.parametrize("kind", ["flips", "flips_rotation", "crop_flips"])
def test_labels_move_with_their_pixels(kind):
    switches = Segmentation(augmentation=kind)
    label = np.zeros((32, 32), dtype=np.int16)
    label[4:20, 6:14] = 1
    image = np.where(label, 200.0, 50.0)[None].astype(np.float32)
    for seed in range(8):
        geometry = draw(switches, np.random.default_rng(seed))
        moved, target = geometry(image)[0], geometry(label, fill=IGNORE, labels=True)
        assert set(np.unique(target)) <= {IGNORE, 0, 1}
        inside = target != IGNORE
        # Only pixels at an edge, where resampling mixes, may disagree.
        wrong = (moved > 125)[inside] != (target == 1)[inside]
        assert wrong.mean() < (0.0001 if kind == "flips" else 0.06)


def test_one_geometry_serves_both_dates_and_depends_on_its_key_alone():
    data = floods()
    toy = scenes(data, replace(PLAIN, augmentation="flips_rotation"), tiny(), fuse=lambda b, a: difference(b, a, False))
    tile = Tile("image00")
    same = [toy.live([tile], tiny(), keys=[(0, 1, 2)])[0][0] for _ in range(2)]
    torch.testing.assert_close(*same)
    other = toy.live([tile], tiny(), keys=[(0, 2, 2)])[0][0]
    assert not torch.equal(same[0], other)


def test_non_finite_pixels_are_filled_and_said_once_per_image():
    data = lakes()
    data.images = {name: image.astype(np.float32) for name, image in data.images.items()}
    data.images["image00"][0, 3, 3] = np.nan
    toy = scenes(data, PLAIN)
    for _ in range(2):
        assert all(bool(torch.isfinite(stage).all()) for stage in toy.stages([Tile("image00")]))
    assert any("non-finite pixels in 1 of" in line for line in toy.canary.warnings())
