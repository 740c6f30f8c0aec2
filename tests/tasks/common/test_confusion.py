"""Scores of dense predictions: examples worked by hand, and torchmetrics as the reference."""

import numpy as np
import pytest
import torch
from torchmetrics.functional import accuracy, f1_score, jaccard_index
from torchmetrics.functional.classification import (
    binary_f1_score,
    binary_jaccard_index,
    binary_precision,
    binary_recall,
    multiclass_confusion_matrix,
)

from models.common.errors import UserError
from tasks.common.confusion import change_scores, confusion, segmentation_scores

# Two images of 2 x 3 pixels, four classes, 9 is ignored. Class 2 is predicted twice but never labelled, class 3 neither.
LABEL = torch.tensor([[[0, 0, 0], [1, 1, 9]], [[0, 0, 1], [9, 9, 9]]])
PREDICTION = torch.tensor([[[0, 0, 1], [1, 2, 0]], [[0, 2, 1], [0, 3, 3]]])
# Rows are labels. Image 1: 0 -> 0, 0, 1 and 1 -> 1, 2. Image 2: 0 -> 0, 2 and 1 -> 1.
COUNTS = [
    [[2, 1, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]],
    [[1, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]],
]
# Together: class 0: TP 3, FN 2, FP 0, so IoU 3/5, F1 6/8. Class 1: TP 2, FN 1, FP 1, so IoU 2/4, F1 4/6.
# Class 2: FP 2, so IoU 0. Class 3: nothing.
NAMES = ("Land", "Open water", "Snow / ice", "Cloud")


def random_maps(seed: int, classes: int = 6, ignore: int = 255) -> tuple[torch.Tensor, torch.Tensor]:
    """Eight images; the last class is never labelled, the one before in neither."""
    generator = torch.Generator().manual_seed(seed)
    label = torch.randint(classes - 2, (8, 16, 16), generator=generator)
    guess = torch.randint(classes - 1, (8, 16, 16), generator=generator)
    guess[guess == classes - 2] = classes - 1
    prediction = torch.where(torch.rand(label.shape, generator=generator) < 0.6, label, guess)
    label[torch.rand(label.shape, generator=generator) < 0.1] = ignore
    label[3] = ignore
    return prediction, label


def test_rows_are_labels_columns_are_predictions_and_ignored_pixels_are_left_out():
    assert confusion(PREDICTION, LABEL, 4, 9).tolist() == COUNTS
    assert confusion(PREDICTION[1], LABEL[1], 4, 9).tolist() == COUNTS[1]


def test_the_counts_are_those_of_torchmetrics_for_every_image():
    prediction, label = random_maps(0)
    for found, one, truth in zip(confusion(prediction, label, 6, 255), prediction, label, strict=True):
        assert torch.equal(found, multiclass_confusion_matrix(one, truth, num_classes=6, ignore_index=255))


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16])
def test_labels_count_alike_in_every_type_they_are_stored_in(dtype: type):
    assert confusion(PREDICTION, torch.from_numpy(LABEL.numpy().astype(dtype)), 4, 9).tolist() == COUNTS


def test_an_image_that_is_all_ignored_has_no_counts_and_changes_no_score():
    empty = confusion(PREDICTION[:1], torch.full((1, 2, 3), 9), 4, 9).numpy()
    assert empty.sum() == 0
    assert segmentation_scores(np.concatenate([COUNTS, empty]), NAMES) == segmentation_scores(np.array(COUNTS), NAMES)


def test_a_label_outside_the_classes_is_refused_by_value_and_image():
    label = LABEL.clone()
    label[1, 0, 2] = 7
    with pytest.raises(
        UserError, match=r"the label of b\.tif holds the value 7, which is no class \(0\.\.3\) .* \(9\)"
    ):
        confusion(PREDICTION, label, 4, 9, names=("a.tif", "b.tif"))
    with pytest.raises(UserError, match="the label holds the value -1"):
        confusion(PREDICTION[0], torch.full((2, 3), -1), 4, 9)


def test_a_label_of_another_size_is_refused_and_never_resized():
    with pytest.raises(UserError, match=r"the label of a\.tif is 2 x 2 where the prediction is 2 x 3"):
        confusion(PREDICTION[0], LABEL[0, :, :2], 4, 9, names=("a.tif",))


def test_a_prediction_outside_the_classes_is_a_bug_unless_its_pixel_is_ignored():
    prediction = PREDICTION.clone()
    prediction[0, 1, 2] = 4
    assert confusion(prediction, LABEL, 4, 9).tolist() == COUNTS
    prediction[0, 0, 0] = 4
    with pytest.raises(ValueError, match=r"outside the classes 0\.\.3"):
        confusion(prediction, LABEL, 4, 9)


def test_the_averages_differ_in_what_they_do_with_classes_that_are_not_labelled():
    assert segmentation_scores(np.array(COUNTS, np.uint32), NAMES) == pytest.approx(
        {
            "miou_macro_present_native": (3 / 5 + 2 / 4) / 2,  # classes 0 and 1
            "miou_macro_all_native": (3 / 5 + 2 / 4 + 0) / 3,  # and 2, which is predicted
            "miou_macro_zero_native": (3 / 5 + 2 / 4 + 0 + 0) / 4,  # and 3, which is nowhere
            "iou_micro_native": 5 / (5 + 4 + 2),
            "f1_macro_present_native": (6 / 8 + 4 / 6) / 2,
            "pixel_accuracy_native": 5 / 8,
            "iou_0_land_native": 3 / 5,
            "iou_1_open_water_native": 2 / 4,
            "iou_2_snow_ice_native": 0,
        },
        abs=1e-15,
    )


def test_without_no_data_its_pixels_do_not_count_and_its_class_is_not_averaged():
    # Class 0 is no data: of its row nothing remains. Class 1: TP 2, FN 1, FP 0, so IoU 2/3, F1 4/5. Class 2: FP 1.
    counts = np.array([[[3, 1, 1, 0], [0, 2, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]]])
    scores = segmentation_scores(counts, NAMES, no_data=0)
    assert {name: score for name, score in scores.items() if name.endswith("_without_no_data")} == pytest.approx(
        {
            "miou_macro_present_native_without_no_data": 2 / 3,
            "miou_macro_all_native_without_no_data": (2 / 3 + 0) / 2,
            "miou_macro_zero_native_without_no_data": (2 / 3 + 0 + 0) / 3,
            "iou_micro_native_without_no_data": 2 / (3 + 1),
            "f1_macro_present_native_without_no_data": 4 / 5,
            "pixel_accuracy_native_without_no_data": 2 / 3,
        },
        abs=1e-15,
    )
    plain = segmentation_scores(counts, NAMES)
    assert {name: score for name, score in scores.items() if name in plain} == plain


def test_no_data_predicted_elsewhere_stays_an_error():
    right, wrong = np.array([[[4, 0], [0, 6]]]), np.array([[[4, 0], [3, 3]]])
    key = "miou_macro_present_native_without_no_data"
    assert segmentation_scores(right, ("none", "water"), no_data=0)[key] == 1
    assert segmentation_scores(wrong, ("none", "water"), no_data=0)[key] == 3 / 6


def test_where_no_data_is_all_there_is_the_scores_without_it_are_left_out():
    scores = segmentation_scores(np.array([[[4, 0], [0, 0]]]), ("none", "water"), no_data=0)
    assert scores["miou_macro_present_native"] == 1
    assert not [name for name in scores if "without" in name]


def test_a_test_split_without_labelled_pixels_is_refused():
    with pytest.raises(UserError, match="every pixel of the scored split is ignored"):
        segmentation_scores(np.zeros((3, 4, 4), np.int64), NAMES)


@pytest.mark.parametrize("name", ["Forêt / Wald", "forêt-wald", "  Foret wald "])
def test_a_class_is_named_in_lower_case_ascii_words(name: str):
    assert "iou_0_foret_wald_native" in segmentation_scores(np.array([[[4]]]), (name,))


def test_a_class_whose_name_has_no_latin_letter_is_named_by_its_number():
    assert "iou_0_native" in segmentation_scores(np.array([[[4]]]), ("水",))


@pytest.mark.parametrize("seed", range(3))
def test_segmentation_scores_equal_torchmetrics(seed: int):
    prediction, label = random_maps(seed)
    scores = segmentation_scores(confusion(prediction, label, 6, 255).numpy(), list("abcdef"))
    pixels = {"preds": prediction, "target": label, "task": "multiclass", "num_classes": 6, "ignore_index": 255}
    by_class = jaccard_index(**pixels, average="none")
    assert scores["miou_macro_all_native"] == pytest.approx(float(jaccard_index(**pixels, average="macro")))
    assert scores["iou_micro_native"] == pytest.approx(float(jaccard_index(**pixels, average="micro")))
    assert scores["miou_macro_present_native"] == pytest.approx(float(by_class[:4].mean()))
    assert scores["miou_macro_zero_native"] == pytest.approx(float(by_class.mean()))
    assert scores["f1_macro_present_native"] == pytest.approx(float(f1_score(**pixels, average="none")[:4].mean()))
    assert scores["pixel_accuracy_native"] == pytest.approx(float(accuracy(**pixels, average="micro")))
    assert scores["iou_2_c_native"] == pytest.approx(float(by_class[2]))
    assert "iou_4_e_native" not in scores


@pytest.mark.parametrize("seed", range(3))
def test_scores_without_no_data_equal_torchmetrics_with_that_class_ignored(seed: int):
    prediction, label = random_maps(seed, ignore=0)
    scores = segmentation_scores(confusion(prediction, label, 6, -1).numpy(), list("abcdef"), no_data=0)
    pixels = {"preds": prediction, "target": label, "task": "multiclass", "num_classes": 6, "ignore_index": 0}
    macro, micro = (float(jaccard_index(**pixels, average=average)) for average in ("macro", "micro"))
    assert scores["miou_macro_all_native_without_no_data"] == pytest.approx(macro)
    assert scores["iou_micro_native_without_no_data"] == pytest.approx(micro)


@pytest.mark.parametrize("seed", range(3))
def test_change_scores_equal_torchmetrics(seed: int):
    generator = torch.Generator().manual_seed(seed)
    label = (torch.rand(5, 20, 20, generator=generator) < 0.1).long()
    prediction = (torch.rand(5, 20, 20, generator=generator) < 0.1 + 0.5 * label).long()
    both = f1_score(prediction, label, task="multiclass", num_classes=2, average="macro")
    assert change_scores(confusion(prediction, label, 2, -1).numpy()) == pytest.approx(
        {
            "f1_change": float(binary_f1_score(prediction, label)),
            "iou_change": float(binary_jaccard_index(prediction, label)),
            "precision_change": float(binary_precision(prediction, label)),
            "recall_change": float(binary_recall(prediction, label)),
            "f1_mean": float(both),
            "pixel_accuracy": float((prediction == label).double().mean()),
        }
    )


def test_change_is_scored_over_all_pixels_together_and_not_pair_by_pair():
    # Pair 1: TP 1, FN 1, FP 0. Pair 2: TP 0, FN 0, FP 2. Together F1 = 2 / (2 + 1 + 2), no change: 14 / (14 + 2 + 1).
    scores = change_scores(np.array([[[4, 0], [1, 1]], [[3, 2], [0, 0]]], np.uint32))
    assert scores == pytest.approx(
        {
            "f1_change": 2 / 5,
            "iou_change": 1 / 4,
            "precision_change": 1 / 3,
            "recall_change": 1 / 2,
            "f1_mean": (2 / 5 + 14 / 17) / 2,
            "pixel_accuracy": 8 / 11,
        },
        abs=1e-15,
    )


def test_precision_is_zero_where_no_change_is_predicted():
    scores = change_scores(np.array([[[6, 0], [2, 0]]]))
    assert (scores["precision_change"], scores["f1_change"], scores["recall_change"]) == (0, 0, 0)


def test_where_everything_changed_there_is_no_mean_of_both_classes():
    scores = change_scores(np.array([[[0, 0], [0, 5]]]))
    assert scores["f1_change"] == 1
    assert "f1_mean" not in scores


def test_pairs_without_any_changed_pixel_are_refused():
    with pytest.raises(UserError, match="no pixel of the scored split is labelled as change"):
        change_scores(np.array([[[6, 1], [0, 0]]]))
    with pytest.raises(UserError, match="no pixel of the scored split is labelled:"):
        change_scores(np.zeros((2, 2, 2), np.int64))
