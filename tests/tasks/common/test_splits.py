"""The door of the tasks on pooled features, and the standardisation they share."""

import pytest
import torch

from models.common.errors import UserError
from tasks.common.splits import Split, check, scaler


def split(features: list[list[float]], labels: list, names: tuple[str, ...] | None = None) -> Split:
    rows = torch.tensor(features, dtype=torch.float32).reshape(len(features), len(features[0]) if features else 2)
    return Split(
        rows, torch.tensor(labels, dtype=torch.long), names or tuple(f"image{i}" for i in range(len(features)))
    )


GOOD = split([[0.0, 1.0], [1.0, 0.0]], [0, 1])


def test_good_splits_pass_the_door():
    check(2, False, train=GOOD, test=GOOD)
    check(2, True, train=split([[0.0], [1.0]], [[0, 1], [1, 0]]))


@pytest.mark.parametrize(
    ("multilabel", "splits", "sentence"),
    [
        (False, {"train": GOOD, "test": split([[0.0]], [0])}, r"different widths \(\{'train': 2, 'test': 1\}\)"),
        (False, {"test": split([], [])}, "the test split is empty"),
        (False, {"train": split([[0.0], [1.0]], [1, 1])}, r"all images of the train split have the same label \(1\)"),
        (True, {"train": split([[0.0], [1.0]], [[0, 1], [0, 1]])}, r"same label \(\[0, 1\]\)"),
        (False, {"val": split([[0.0], [float("nan")]], [0, 1])}, r"image1 \(val split\) hold NaN or infinite values"),
        (False, {"val": split([[float("inf")], [1.0]], [0, 1])}, r"image0 \(val split\) hold NaN or infinite values"),
        (False, {"test": split([[0.0], [1.0]], [0, 2])}, r"image1 \(test split\) has label 2, outside 0..1"),
        (False, {"test": split([[0.0], [1.0]], [-1, 1])}, r"image0 \(test split\) has label -1, outside 0..1"),
        (
            True,
            {"test": split([[0.0], [1.0]], [[0, 1], [2, 0]])},
            r"image1 \(test split\) has label \[2, 0\], outside 0..1",
        ),
        (True, {"test": split([[0.0], [1.0]], [0, 1])}, r"wants integer labels \(2, 2\), got torch.int64 \(2,\)"),
        (True, {"test": split([[0.0], [1.0]], [[0, 0], [0, 0]])}, "no image of the test split has a label"),
        (False, {"test": split([[0.0], [1.0]], [0, 1], ("one",))}, r"the test split of 1 images wants float features"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_one_sentence(multilabel, splits, sentence):
    with pytest.raises(UserError, match=sentence) as caught:
        check(2, multilabel, **splits)
    assert "\n" not in str(caught.value)


def test_standardisation_uses_the_train_mean_and_population_standard_deviation():
    # Train column 0: 1, 3, 5, 7 has mean 4 and variance (9 + 1 + 1 + 9) / 4 = 5.
    train = torch.tensor([[1.0, 8.0], [3.0, 8.0], [5.0, 8.0], [7.0, 8.0]])
    scale = scaler(train, "train")
    torch.testing.assert_close(scale(torch.tensor([[9.0, 8.0]])), torch.tensor([[5 / 5**0.5, 0.0]]))


def test_a_feature_that_is_constant_in_train_is_only_centred():
    constant = 0.1  # has no exact binary form: its standard deviation need not come out as 0
    scale = scaler(torch.full((7, 1), constant), "train")
    torch.testing.assert_close(scale(torch.tensor([[constant], [constant + 2]])), torch.tensor([[0.0], [2.0]]))


def test_no_standardisation_leaves_features_alone_and_dtypes_stay():
    features = torch.randn(5, 3)
    assert scaler(features, "none")(features) is features
    assert scaler(features, "train")(features).dtype == torch.float32
    assert scaler(features, "train")(features.double()).dtype == torch.float64
