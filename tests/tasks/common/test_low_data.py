"""Training fractions: GEO-Bench's own partitions by the name they have on disk, and nested, stratified draws of ours."""

import itertools
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from models.common.errors import UserError
from tasks.common import low_data
from tasks.common.low_data import available, draws, fraction_name, note, notes, train_names
from tasks.data import catalogue

FRACTIONS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 0.9)


class Toy:
    """As much of a data set as a fraction needs; `asked` lists the labels that were read."""

    def __init__(self, version: str, labels: dict[str, object], kind: str = "class", ignore: int = -1) -> None:
        classes = ("sea", "land", "ice", "town")
        self.card = SimpleNamespace(
            name="toy", label=kind, ignore=ignore, classes=classes, num_classes=4, family="geobench"
        )
        self.labels, self.version, self.root, self.asked = labels, version, Path("toy"), []
        self.splits = {"train": tuple(labels), "val": (), "test": ()}

    def label(self, name: str) -> object:
        self.asked.append(name)
        return self.labels[name]

    def partitions(self) -> dict[str, tuple[str, ...]]:
        return {"0.50x_train": ("d", "a"), "1.00x_train": tuple("abcd")}


@pytest.fixture
def toy(request) -> Toy:
    return Toy(request.node.name, {"a": 0, "b": 1, "c": 1, "d": 0})


def mixture(number: int, seed: int = 0) -> tuple[list[str], list[tuple[int, ...]]]:
    """Images with one of five classes, the commonest half of them and the rarest in three."""
    rng = np.random.default_rng(seed)
    shares = np.array([0.5, 0.3, 0.15, 0.04, 0.01])
    labels = rng.permutation([0, 1, 2, 3, 4, 4, 4, *rng.choice(4, number - 7, p=shares[:4] / shares[:4].sum())])
    return [f"img_{index:05d}" for index in range(number)], [(int(label),) for label in labels]


@pytest.mark.parametrize(("text", "name"), [("0.1", "0.10x"), ("0.10x", "0.10x"), ("1", "1.00x"), ("1.00", "1.00x")])
def test_a_fraction_has_one_name_however_it_is_written(text: str, name: str):
    assert fraction_name(text) == name


@pytest.mark.parametrize(("text", "name"), [("0.1", "0.10"), ("0.10x", "0.10"), ("1", "1.00x")])
def test_a_draw_of_ours_has_a_name_without_x_and_all_images_have_one_name(text: str, name: str):
    assert fraction_name(text, drawn=True) == name


@pytest.mark.parametrize("text", ["0", "1.01", "-0.5", "half", "", "nan", "0.125"])
def test_what_is_no_fraction_is_refused(text: str):
    with pytest.raises(UserError, match="--train-fraction"):
        fraction_name(text)


def test_a_set_without_partitions_gets_our_draw_instead():
    assert available("0.10x", catalogue.card("m-eurosat")) == "0.10x"
    assert available("0.10x", catalogue.card("sen1floods11")) == "0.10"
    assert available("0.10", catalogue.card("m-eurosat")) == "0.10"
    assert available("1.00x", catalogue.card("sen1floods11")) == "1.00x"


def test_the_partition_of_the_data_set_is_taken_as_it_stands(toy):
    assert train_names(toy, "0.50x") == ("d", "a")
    assert train_names(toy, "1.00x") == ("a", "b", "c", "d")
    assert train_names(toy, "0.50x", train=("a", "b")) == ("a",)
    assert toy.asked == []


def test_a_partition_that_is_not_there_is_named_beside_those_that_are(toy):
    with pytest.raises(UserError, match=r"'0.05x_train' \(it has 0.50x_train, 1.00x_train\); `--draws 5` draws"):
        train_names(toy, "0.05x")


def test_a_worked_example():
    """Six images; ice is in one, town in two, land in three, sea in all. Two of them hold all four classes."""
    names = ["a", "b", "c", "d", "e", "f"]
    sea, land, ice, town = range(4)
    classes = [(sea,), (sea, land), (sea, land), (sea, land, ice), (sea, town), (sea, town)]
    for draw in range(20):
        # d is the only ice, so it is in the cover, and it holds sea and land; of town one of e and f is missing still.
        two = draws(names, classes, 2 / 6, draw)
        assert two in (("d", "e"), ("d", "f"))
        # Strata by the rarest class: a | b c | d | e f. The rest is a, b, c and the other one of e and f, in the order
        # of their places in their strata: (0 + u), (0 + u) / 2 and (1 + u) / 2 for b and c, (1 + u) / 2 for e or f.
        three = draws(names, classes, 3 / 6, draw)
        assert set(two) < set(three)
        assert draws(names, classes, 1.0, draw) == tuple(names)
    third = {name for draw in range(20) for name in draws(names, classes, 3 / 6, draw)} - {"d", "e", "f"}
    assert third == {"a", "b", "c"}


@pytest.mark.parametrize("draw", range(3))
def test_draws_are_nested_of_exact_size_and_in_the_order_of_the_files(draw):
    names, classes = mixture(1000)
    subsets = [draws(names, classes, fraction, draw) for fraction in FRACTIONS]
    assert [len(subset) for subset in subsets] == [10, 20, 50, 100, 200, 500, 900]
    for small, large in itertools.pairwise(subsets):
        assert set(small) < set(large)
    assert all(list(subset) == sorted(subset) for subset in subsets)
    assert len(draws(names[:3], classes[:3], 0.01, draw)) == 1


@pytest.mark.parametrize("draw", range(3))
def test_every_class_keeps_its_share_to_within_one_image_and_none_is_lost(draw):
    names, classes = mixture(1000)
    whole = Counter(one for (one,) in classes)
    label = dict(zip(names, classes, strict=True))
    for fraction in FRACTIONS:
        held = Counter(label[name][0] for name in draws(names, classes, fraction, draw))
        assert set(held) == set(whole)
        for one, count in held.items():
            # A rare class that would have no image is given one, at the expense of the others.
            assert abs(count - fraction * whole[one]) <= 1 + (fraction < 0.1), (fraction, one)


@pytest.mark.parametrize("seed", range(5))
def test_several_labels_per_image_are_all_there_once_the_subset_is_as_large_as_their_number(seed):
    """Every class, also one that no image holds alone and that is nowhere the rarest."""
    rng = np.random.default_rng(seed)
    probability = np.array([0.7, 0.5, 0.3, 0.1, 0.05, 0.02, 0.01, 0.005, 0.005, 0.005])
    classes = [tuple(np.flatnonzero(row).tolist()) for row in rng.random((400, 10)) < probability]
    names = [f"{index}" for index in range(400)]
    present = {one for held in classes for one in held}
    chosen = draws(names, classes, 10 / 400, draw=seed)
    assert len(chosen) == 10
    assert {one for name in chosen for one in classes[int(name)]} == present


def test_a_class_that_is_nowhere_the_rarest_is_there_too():
    """Class 2 stands in a and b alone, each time beside a class as rare and listed before; c and d would do without it."""
    names, classes = ["a", "b", "c", "d"], [(0, 2), (1, 2), (0,), (1,)]
    for draw in range(20):
        chosen = draws(names, classes, 3 / 4, draw)
        assert {one for name in chosen for one in classes[names.index(name)]} == {0, 1, 2}


def test_the_order_of_the_files_does_not_matter():
    names, classes = mixture(300)
    back = draws(names[::-1], classes[::-1], 0.1, 1)
    assert back == draws(names, classes, 0.1, 1)[::-1]


def test_draws_differ_and_each_is_always_the_same():
    names, classes = mixture(300)
    found = [draws(names, classes, 0.1, draw) for draw in range(5)]
    assert len(set(found)) == 5
    assert found == [draws(names, classes, 0.1, draw) for draw in range(5)]
    # Pinned, so that a change of the algorithm, or of the generator's stream, is noticed: journals depend on it.
    ten, halves = [f"{number}" for number in range(10)], [(number % 2,) for number in range(10)]
    assert draws(ten, halves, 0.4, 0) == ("1", "2", "3", "6")


def test_images_without_a_class_are_drawn_like_a_class_of_their_own():
    names = [f"{index:02d}" for index in range(40)]
    chosen = draws(names, [() if index < 20 else (0,) for index in range(40)], 0.5, 0)
    assert Counter(int(name) < 20 for name in chosen) == {True: 10, False: 10}


@pytest.mark.parametrize(
    ("kind", "label", "expected"),
    [
        ("class", 3, (3,)),
        ("multilabel", np.array([0, 1, 0, 1]), (1, 3)),
        ("mask", np.array([[0, 2], [9, 2]]), (0, 2)),
        ("mask", np.full((2, 2), 9), ()),
    ],
)
def test_the_classes_of_an_image_follow_from_its_kind_of_label(kind, label, expected):
    assert low_data.present(label, Toy("present", {}, kind, ignore=9)) == expected  # type: ignore[arg-type]


def test_labels_are_read_once_for_all_fractions_and_draws(toy):
    for fraction in ("0.25", "0.50"):
        for draw in range(4):
            train_names(toy, fraction, draw)
    assert toy.asked == ["a", "b", "c", "d"]
    toy.version = "another release"
    train_names(toy, "0.50")
    assert len(toy.asked) == 8


def test_a_draw_is_made_of_the_images_that_it_may_use(toy):
    assert set(train_names(toy, "0.50", train=("b", "d"))) < {"b", "d"}
    assert len(train_names(toy, "0.99", train=("b", "d"))) == 2


def test_a_row_says_whose_subset_it_is_and_which_classes_are_lost(toy):
    assert notes(toy, "1.00x") == []
    assert note("0.10x").endswith("one random draw, unseeded, unstratified, not nested in the larger ones")
    assert notes(toy, "0.50x") == [note("0.50x"), "no training image of land is left at 0.50x"]
    assert notes(toy, "0.50") == [
        f"trained on a share of 0.50 drawn here: seeded ({low_data.SEED}), stratified by class, nested in the larger ones"
    ]


def test_all_draws_and_fractions_share_one_extraction(harness):
    code, out, err = harness(
        *("run", "--model", "imagestats", "--dataset", "demo-eurosat", "--task", "knn", "--protocol", "demo", "-q"),
        *("--train-fraction", "0.1,0.5,1", "--draws", "3"),
    )
    assert code == 0, err
    assert "7 runs computed" in out
    assert "140 images encoded" in out
