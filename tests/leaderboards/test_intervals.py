import numpy as np
import pytest
from scipy.stats import binom

from leaderboards import intervals as module
from leaderboards.intervals import Score, intervals
from leaderboards.results import JournalError


def f1(prediction: np.ndarray, label: np.ndarray) -> np.ndarray:
    """F1 of every class, 0 for one with neither label nor prediction, straight from the definition."""
    scores = []
    for predicted, labelled in zip(prediction.T, label.T, strict=True):
        hits, misses, alarms = (
            (predicted * labelled).sum(),
            ((1 - predicted) * labelled).sum(),
            (predicted * (1 - labelled)).sum(),
        )
        scores.append(2 * hits / (2 * hits + misses + alarms) if hits + misses + alarms else 0.0)
    return np.array(scores)


def single(correct: np.ndarray, classes: int = 4) -> dict[str, np.ndarray]:
    """Predictions that are right where `correct` says so."""
    label = np.arange(len(correct)) % classes
    return {"label": label, "prediction": np.where(correct, label, (label + 1) % classes)}


def test_the_interval_of_an_accuracy_is_close_to_the_binomial_one() -> None:
    images, right = 500, 400
    (ends,) = intervals({"accuracy": [0.8]}, [single(np.arange(images) < right)], [0], seed=0).values()
    assert ends == pytest.approx(binom.ppf((0.025, 0.975), images, 0.8) / images, abs=0.004)


def test_the_micro_f1_of_single_labels_has_the_interval_of_their_accuracy() -> None:
    samples = single(np.arange(200) % 5 > 0)
    found = intervals({"accuracy": [0.8], "f1_micro": [0.8]}, [samples], [0], seed=3)
    assert found["accuracy"] == pytest.approx(found["f1_micro"], abs=1e-12)


def test_one_seed_gives_one_interval_and_another_seed_another() -> None:
    first, again, other = (
        intervals({"accuracy": [0.5]}, [single(np.arange(60) % 2 > 0)], [0], seed) for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


def test_the_interval_does_not_depend_on_how_many_replicates_are_held_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    samples = single(np.arange(100) % 4 > 0)
    whole = intervals({"accuracy": [0.75]}, [samples], [0], seed=1)
    monkeypatch.setattr(module, "CHUNK_ELEMENTS", 700)
    assert intervals({"accuracy": [0.75]}, [samples], [0], seed=1) == whole


def test_a_perfect_score_has_no_width() -> None:
    assert intervals({"accuracy": [1.0]}, [single(np.ones(50, bool))], [0], seed=0) == {"accuracy": (1.0, 1.0)}


def test_f1_under_image_weights_is_f1_of_the_repeated_images() -> None:
    generator = np.random.default_rng(0)
    label = (generator.random((30, 5)) < 0.3).astype(np.uint8)
    label[:, 4] = 0
    prediction = label ^ (generator.random((30, 5)) < 0.2)
    prediction[:, 4] = 0  # a class with neither label nor prediction counts 0
    times = generator.multinomial(30, np.full(30, 1 / 30), size=4)
    macro, micro = (Score(name, prediction, label)(times.astype(float)) for name in ("f1_macro", "f1_micro"))
    for row, weights in enumerate(times):
        repeated = np.repeat(prediction, weights, axis=0), np.repeat(label, weights, axis=0)
        assert macro[row] == pytest.approx(f1(*repeated).mean())
        assert micro[row] == pytest.approx(f1(*(part.reshape(-1, 1) for part in repeated))[0])


def test_multilabel_f1_has_an_interval_around_its_value() -> None:
    generator = np.random.default_rng(1)
    label = (generator.random((400, 6)) < 0.4).astype(np.uint8)
    prediction = label ^ (generator.random((400, 6)) < 0.1)
    value = f1(prediction, label).mean()
    (low, high) = intervals({"f1_macro": [value]}, [{"label": label, "prediction": prediction}], [0], seed=0)[
        "f1_macro"
    ]
    assert low < value < high
    assert high - low < 0.06


def test_the_arrays_of_every_k_and_their_mean_are_found() -> None:
    label = np.arange(100) % 4
    votes = np.stack([np.where(np.arange(100) < right, label, (label + 1) % 4) for right in (80, 60)], axis=1)
    samples = {
        "label": label,
        "k": np.array([5, 10]),
        "prediction_uniform": votes,
        "prediction_weighted": votes[:, ::-1],
    }
    values = {
        "accuracy_k5_uniform": [0.8],
        "accuracy_k10_uniform": [0.6],
        "accuracy_mean_uniform": [0.7],
        "accuracy_k5_weighted": [0.6],
    }
    found = intervals(values, [samples], [0], seed=0)
    assert found.keys() == values.keys()
    middle = {name: (low + high) / 2 for name, (low, high) in found.items()}
    assert middle == pytest.approx({name: value[0] for name, value in values.items()}, abs=0.03)
    assert found["accuracy_mean_uniform"] == pytest.approx(
        np.mean([found["accuracy_k5_uniform"], found["accuracy_k10_uniform"]], axis=0), abs=0.02
    )  # the same images are drawn for both k


def test_several_heads_of_one_run_each_have_their_own_interval() -> None:
    samples = single(np.arange(200) < 100)
    samples["prediction_logistic"] = single(np.arange(200) < 180)["prediction"]
    found = intervals({"accuracy": [0.5], "accuracy_logistic": [0.9]}, [samples], [0], seed=0)
    assert found["accuracy"][1] < found["accuracy_logistic"][0]


@pytest.mark.parametrize("metric", ["map_macro", "accuracy_best", "accuracy_mean_uniform", "seconds"])
def test_a_metric_without_arrays_has_no_interval(metric: str) -> None:
    assert intervals({metric: [0.5]}, [single(np.arange(20) < 10)], [0], seed=0) == {}


def test_a_metric_that_the_arrays_do_not_give_back_has_no_interval() -> None:
    assert intervals({"accuracy": [0.51]}, [single(np.arange(20) < 10)], [0], seed=0) == {}


def test_the_accuracy_of_a_multilabel_set_has_no_interval_since_it_has_no_one_meaning() -> None:
    label = np.eye(4, dtype=np.uint8)
    assert intervals({"accuracy": [1.0]}, [{"label": label, "prediction": label}], [0], seed=0) == {}


def test_without_arrays_there_are_no_intervals() -> None:
    assert intervals({"accuracy": [0.5]}, [{}], [0], seed=0) == {}
    assert intervals({"accuracy": [0.5, 0.5]}, [single(np.arange(20) < 10), {}], [0, 0], seed=0) == {}


def test_seeds_that_disagree_widen_the_interval() -> None:
    images = np.arange(1000)
    alike = [single(images < 700), single(images < 700)]
    apart = [single(images < 500), single(images < 900)]
    narrow = intervals({"accuracy": [0.7, 0.7]}, alike, [0, 0], seed=0)["accuracy"]
    wide = intervals({"accuracy": [0.5, 0.9]}, apart, [0, 0], seed=0)["accuracy"]
    assert narrow[1] - narrow[0] < 0.07
    assert wide == pytest.approx((0.5, 0.9), abs=0.04)  # half of the replicates draw one seed twice


def test_every_draw_weighs_the_same_however_many_seeds_it_has() -> None:
    images = np.arange(1000)
    samples = [single(images < 900), single(images < 500), single(images < 500), single(images < 500)]
    values = {"accuracy": [0.9, 0.5, 0.5, 0.5]}
    shares = module._run_shares([0, 1, 1, 1], np.random.default_rng(0))
    assert np.allclose(shares.sum(axis=1), 1)
    assert shares.mean(axis=0) == pytest.approx([1 / 2, 1 / 6, 1 / 6, 1 / 6], abs=0.03)
    assert intervals(values, samples, [0, 1, 1, 1], seed=0)["accuracy"] == pytest.approx((0.5, 0.9), abs=0.04)


def test_runs_on_different_test_images_are_refused() -> None:
    first, second = single(np.arange(20) < 10), single(np.arange(24) < 12)
    with pytest.raises(JournalError, match="different test labels"):
        intervals({"accuracy": [0.5, 0.5]}, [first, second], [0, 0], seed=0)
