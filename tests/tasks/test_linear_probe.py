"""The linear probe: its heads against plain torch loops, its exact solution against autograd, its choices by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from models.common.errors import UserError
from tasks import linear_probe
from tasks.common import fit, metrics
from tasks.common.splits import Split
from tasks.switches import LinearProbe

QUICK = LinearProbe(learning_rates=(1e-3, 1e-2, 1e-1), epochs=8, warmup_epochs=2, batch=16)


def split(features: Tensor, labels: Tensor) -> Split:
    return Split(features, labels, tuple(f"image{i}" for i in range(len(features))))


def blobs(seed: int, multilabel: bool, spread: float, count: int = 150) -> tuple[Split, Split, Split]:
    """Three splits of five classes in 12 dimensions; multi-label: a label where one of five directions is positive."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(count, 12, generator=generator)
    if multilabel:
        features = noise
        mixing = torch.randn(12, 5, generator=generator)
        wobble = spread * torch.randn(count, 5, generator=generator)
        labels = (features @ mixing + wobble > 0).long()
    else:
        labels = torch.randint(5, (count,), generator=generator)
        features = 4 * torch.randn(5, 12, generator=generator)[labels] + spread * noise
    third = count // 3
    cuts = (slice(0, third), slice(third, 2 * third), slice(2 * third, count))
    return tuple(split(features[cut], labels[cut]) for cut in cuts)  # type: ignore[return-value]


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_linearly_separable_classes_are_learned_to_the_last_image(optimizer):
    train, val, test = blobs(0, multilabel=False, spread=0.3)
    result = linear_probe.evaluate(train, val, test, 5, False, 0, replace(QUICK, optimizer=optimizer))
    assert result.metrics == {"accuracy": 1.0}
    assert result.choices["validation"] == 1.0
    assert result.samples["prediction"].tolist() == test.labels.tolist()
    assert QUICK.primary(False) in result.metrics


def test_separable_labels_are_learned_by_the_binary_heads_and_their_exact_solution():
    train, val, test = blobs(1, multilabel=True, spread=0.0, count=900)
    result = linear_probe.evaluate(train, val, test, 5, True, 0, replace(QUICK, epochs=30))
    exact = linear_probe.logistic(train, val, test, 5, True, QUICK)
    for metric in ("f1_micro", "f1_macro", "map_micro", "map_macro"):
        assert result.metrics[metric] > 0.96
        assert exact.metrics[f"{metric}_logistic"] > 0.96
    assert QUICK.primary(True) in result.metrics


def separate_loops(train: Split, val: Split, multilabel: bool, seed: int, switches: LinearProbe) -> list[list[Tensor]]:
    """Per learning rate the layer of its best epoch, by torch.nn, torch.optim and a loop without any stacking."""
    kept = []
    for base in switches.learning_rates:
        generator = torch.Generator().manual_seed(seed)
        layer = torch.nn.Linear(12, 5, dtype=torch.float64)
        draw = (2 * torch.rand(5, 13, generator=generator, dtype=torch.float64) - 1) / 12**0.5
        layer.weight.data, layer.bias.data = draw[:, :-1].clone(), draw[:, -1].clone()
        if switches.optimizer == "adamw":
            optimizer = torch.optim.AdamW(layer.parameters(), weight_decay=switches.weight_decay)
        else:
            optimizer = torch.optim.SGD(
                layer.parameters(), momentum=switches.momentum, weight_decay=switches.weight_decay
            )
        best, state = -1.0, []
        slices = fit.batches(len(train.names), switches.batch)
        for epoch in range(switches.epochs):
            order = torch.randperm(len(train.names), generator=generator)
            for step, part in enumerate(slices):
                logits, labels = layer(train.features[order[part]]), train.labels[order[part]]
                if multilabel:
                    loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels.double())
                else:
                    loss = torch.nn.functional.cross_entropy(logits, labels)
                rate = fit.learning_rate(
                    torch.tensor([base], dtype=torch.float64), epoch + step / len(slices), switches
                )
                optimizer.param_groups[0]["lr"] = float(rate)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            with torch.no_grad():
                predicted = metrics.classify(layer(val.features), multilabel)
                score = float(metrics.selection_score(predicted, val.labels, multilabel))
            if score > best:
                best, state = score, [layer.weight.detach().clone(), layer.bias.detach().clone()]
        kept.append(state)
    return kept


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("multilabel", [False, True])
def test_the_stacked_sweep_equals_separate_torch_loops(optimizer, multilabel):
    train, val, _ = (
        replace(part, features=part.features.double())
        for part in blobs(2, multilabel, spread=4.0 if not multilabel else 1.0)
    )
    switches = replace(QUICK, optimizer=optimizer)
    kept = linear_probe.sweep(
        lambda epoch: (train.features, train.labels),
        len(train.names),
        val.features,
        val.labels,
        5,
        multilabel,
        3,
        switches,
    )
    reference = separate_loops(train, val, multilabel, 3, switches)
    assert len(set(kept.epoch.tolist())) > 1 or int(kept.epoch[0]) < switches.epochs  # best epochs are really chosen
    for head, layer in enumerate(reference):
        for tensor, expected in zip(kept.parameters, layer, strict=True):
            assert float((tensor[head] - expected).abs().max()) < 1e-12


def test_a_seed_alone_gives_what_it_gives_among_others():
    train, val, test = blobs(3, multilabel=False, spread=6.0)
    among = {seed: linear_probe.evaluate(train, val, test, 5, False, seed, QUICK) for seed in range(5)}
    torch.manual_seed(12345)  # the global generator has no part in it
    alone = linear_probe.evaluate(train, val, test, 5, False, 3, QUICK)
    assert alone.metrics == among[3].metrics
    assert alone.choices == among[3].choices
    for name, array in alone.samples.items():
        np.testing.assert_array_equal(array, among[3].samples[name])
    assert len({result.samples["score"].tobytes() for result in among.values()}) == 5


def test_a_learning_rate_alone_gives_the_head_that_it_gives_in_the_sweep():
    train, val, _ = (replace(part, features=part.features.double()) for part in blobs(4, False, spread=4.0))

    def sweep(rates: tuple[float, ...]) -> fit.Kept:
        switches = replace(QUICK, learning_rates=rates)
        fixed = train.features, train.labels
        return linear_probe.sweep(
            lambda epoch: fixed, len(train.names), val.features, val.labels, 5, False, 0, switches
        )

    together, alone = sweep((1e-3, 1e-2, 1e-1)), sweep((1e-2,))
    torch.testing.assert_close(together.parameters[0][1], alone.parameters[0][0], rtol=0, atol=1e-12)
    assert together.epoch[1] == alone.epoch[0]


def test_of_equally_good_learning_rates_the_smallest_is_chosen():
    train, val, test = blobs(5, multilabel=False, spread=0.1)  # so easy that every rate is perfect on val
    switches = replace(QUICK, learning_rates=(1e-2, 3e-2, 1e-1), epochs=30)
    result = linear_probe.evaluate(train, val, test, 5, False, 0, switches)
    assert result.choices["learning_rate"] == 1e-2
    assert result.notes == ("the chosen learning rate 0.01 is the smallest of those tried",)


def test_of_equally_good_c_the_smallest_is_chosen():
    train, val, test = blobs(5, multilabel=False, spread=0.1)
    result = linear_probe.logistic(train, val, test, 5, False, replace(QUICK, logistic_c=(0.1, 1.0, 10.0)))
    assert result.choices["c_logistic"] == 0.1
    assert result.choices["validation_logistic"] == 1.0


def test_the_test_split_decides_nothing_and_the_val_split_does():
    train, val, test = blobs(17, multilabel=False, spread=6.0)

    def choices(val: Split, test: Split) -> list[dict[str, float]]:
        probe = linear_probe.evaluate(train, val, test, 5, False, 0, QUICK)
        return [probe.choices, linear_probe.logistic(train, val, test, 5, False, QUICK).choices]

    assert choices(val, test) == choices(val, train)
    for by_val, by_test in zip(choices(val, test), choices(test, test), strict=True):
        assert by_val != by_test


def test_a_diverged_learning_rate_is_never_chosen():
    train, val, test = blobs(6, multilabel=False, spread=0.3)
    switches = replace(QUICK, optimizer="sgd", learning_rates=(1e-2, 1e38), standardise="none", warmup_epochs=0)
    assert linear_probe.evaluate(train, val, test, 5, False, 0, switches).choices["learning_rate"] == 1e-2
    with pytest.raises(UserError, match="every learning rate diverged"):
        linear_probe.evaluate(train, val, test, 5, False, 0, replace(switches, learning_rates=(1e38,)))


def test_metrics_follow_from_the_samples():
    train, val, test = blobs(7, multilabel=False, spread=6.0)
    result = linear_probe.evaluate(train, val, test, 5, False, 0, QUICK)
    right = result.samples["prediction"] == result.samples["label"]
    assert result.metrics["accuracy"] == pytest.approx(right.mean(), abs=1e-15)
    assert 0.2 < result.metrics["accuracy"] < 1
    assert result.samples["score"].shape == (50, 5)
    np.testing.assert_allclose(result.samples["score"].sum(axis=1, dtype=np.float64), 1, atol=2e-3)

    train, val, test = blobs(7, multilabel=True, spread=1.0)
    samples = linear_probe.evaluate(train, val, test, 5, True, 0, QUICK).samples
    assert samples["prediction"].dtype == samples["label"].dtype == np.uint8
    assert samples["score"].dtype == np.float32
    np.testing.assert_array_equal(samples["prediction"], samples["score"] > 0.5)


def test_features_of_every_epoch_are_asked_for_once_with_the_seed():
    train, val, test = blobs(8, multilabel=False, spread=4.0)
    calls = []

    def train_epoch(epoch: int, seed: int) -> Split:
        calls.append((epoch, seed))
        return train

    augmented = replace(QUICK, augmentation="flips", backbone_mode="train")
    fresh = linear_probe.evaluate(train, val, test, 5, False, 2, augmented, train_epoch)
    assert calls == [(epoch, 2) for epoch in range(QUICK.epochs)]
    # The same features each epoch, so the same result as from the store.
    stored = linear_probe.evaluate(train, val, test, 5, False, 2, QUICK)
    np.testing.assert_array_equal(fresh.samples["score"], stored.samples["score"])
    with pytest.raises(UserError, match="needs features of every epoch"):
        linear_probe.evaluate(train, val, test, 5, False, 2, augmented)
    with pytest.raises(ValueError, match="epoch 0 gave other images"):
        linear_probe.evaluate(train, val, test, 5, False, 2, augmented, lambda epoch, seed: val_named(val))


def val_named(val: Split) -> Split:
    return replace(val, names=tuple(f"other{i}" for i in range(len(val.names))))


def test_features_of_an_epoch_are_really_the_ones_trained_on():
    train, val, test = blobs(9, multilabel=False, spread=0.3)
    shifted = replace(train, labels=(train.labels + 1) % 5)
    switches = replace(QUICK, augmentation="flips", epochs=20)
    result = linear_probe.evaluate(train, val, test, 5, False, 0, switches, lambda epoch, seed: shifted)
    assert result.metrics["accuracy"] < 0.5


@pytest.mark.parametrize("multilabel", [False, True])
def test_value_and_gradient_of_the_logistic_objective_equal_autograd(multilabel):
    train, _, _ = blobs(10, multilabel, spread=3.0)
    features = train.features.double()
    targets = train.labels.double() if multilabel else torch.nn.functional.one_hot(train.labels, 5).double()
    layer = torch.randn(13, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_(True)
    logits = features @ layer[:-1] + layer[-1]
    if multilabel:
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, targets, reduction="none").sum(dim=1).mean()
    else:
        loss = torch.nn.functional.cross_entropy(logits, train.labels)
    value = loss + 0.3 / 2 * layer[:-1].square().sum()
    (gradient,) = torch.autograd.grad(value, layer)
    mine = linear_probe.objective(layer.detach().numpy().ravel(), features.numpy(), targets.numpy(), 0.3, multilabel)
    assert mine[0] == pytest.approx(value.item(), rel=1e-13)
    np.testing.assert_allclose(mine[1], gradient.numpy().ravel(), rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("multilabel", [False, True])
def test_the_logistic_objective_does_not_overflow(multilabel):
    layer = np.array([[1e4, -1e4], [0.0, 0.0]])
    features, targets = np.array([[1.0], [-1.0]]), np.array([[0.0, 1.0], [0.0, 1.0]])
    # Multinomial: the first image is wrong by 2e4, the second right by as much. Binary: two losses of 1e4, then none.
    value, gradient = linear_probe.objective(layer.ravel(), features, targets, 0.0, multilabel)
    assert value == pytest.approx(1e4)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("multilabel", [False, True])
def test_the_logistic_solution_has_no_gradient_and_does_not_depend_on_the_path(multilabel):
    train, val, test = blobs(11, multilabel, spread=6.0 if not multilabel else 1.0)
    path = linear_probe.logistic(train, val, test, 5, multilabel, QUICK)
    c = path.choices["c_logistic"]
    alone = linear_probe.logistic(train, val, test, 5, multilabel, replace(QUICK, logistic_c=(c,)))
    for result in (path, alone):
        assert result.choices["gradient_logistic"] <= linear_probe.GRADIENT_TOLERANCE
    np.testing.assert_allclose(
        path.samples["score_logistic"].astype(np.float64), alone.samples["score_logistic"].astype(np.float64), atol=2e-3
    )
    primary = f"{QUICK.primary(multilabel)}_logistic"
    assert path.metrics[primary] == alone.metrics[primary]
    assert not set(path.metrics) & {"accuracy", "f1_micro"}


def test_the_logistic_c_is_the_best_on_val_and_scored_on_test():
    train, val, test = blobs(12, multilabel=False, spread=8.0)
    result = linear_probe.logistic(train, val, test, 5, False, QUICK)
    by_c = [
        linear_probe.logistic(train, val, test, 5, False, replace(QUICK, logistic_c=(c,))) for c in QUICK.logistic_c
    ]
    validation = [row.choices["validation_logistic"] for row in by_c]
    assert len(set(validation)) > 1
    best = validation.index(max(validation))
    assert result.choices["c_logistic"] == QUICK.logistic_c[best]
    assert result.metrics == by_c[best].metrics


def test_the_logistic_weights_shrink_as_theory_says_in_one_dimension():
    # Images at +1 (class 1) and -1 (class 0), one each; by symmetry the bias is 0 and the optimum solves
    # w = C * 2 * sigmoid(-w): derivative of C * 2 * log(1 + e^-w) + w^2 / 2. For C = 1: w = 0.6748...
    features, targets = np.array([[1.0], [-1.0]]), np.array([[1.0], [0.0]])
    flat, _ = linear_probe.solve(np.zeros(2), features, targets, 1 / (1.0 * 2), True)
    weight, bias = flat
    assert bias == pytest.approx(0, abs=1e-5)
    assert weight == pytest.approx(2 / (1 + np.exp(weight)), abs=1e-5)
    assert weight == pytest.approx(0.6748, abs=1e-4)


def test_a_class_absent_from_train_is_never_predicted_by_the_logistic_solution():
    train, val, test = blobs(13, multilabel=False, spread=0.3)
    keep = train.labels != 2
    fewer = split(train.features[keep], train.labels[keep])
    result = linear_probe.logistic(fewer, val, test, 5, False, QUICK)
    assert 2 not in result.samples["prediction_logistic"]
    assert result.metrics["accuracy_logistic"] == pytest.approx(float((test.labels != 2).double().mean()), abs=1e-12)
    assert np.isfinite(result.samples["score_logistic"]).all()


def test_a_label_absent_from_or_everywhere_in_train_stays_so_in_the_logistic_solution():
    train, val, test = blobs(14, multilabel=True, spread=0.0)
    labels = train.labels.clone()
    labels[:, 0], labels[:, 1] = 0, 1
    result = linear_probe.logistic(split(train.features, labels), val, test, 5, True, QUICK)
    assert result.samples["prediction_logistic"][:, 0].max() == 0
    assert result.samples["prediction_logistic"][:, 1].min() == 1
    assert np.isfinite(result.samples["score_logistic"]).all()


@pytest.mark.parametrize("task", ["evaluate", "logistic"])
def test_splits_that_cannot_be_measured_are_refused(task):
    train, val, test = blobs(15, multilabel=False, spread=1.0)

    def measure(train: Split, val: Split, test: Split) -> None:
        if task == "evaluate":
            linear_probe.evaluate(train, val, test, 5, False, 0, QUICK)
        else:
            linear_probe.logistic(train, val, test, 5, False, QUICK)

    empty = split(torch.zeros(0, 12), torch.zeros(0, dtype=torch.long))
    with pytest.raises(UserError, match="the val split is empty"):
        measure(train, empty, test)
    with pytest.raises(UserError, match="the train split is empty"):
        measure(empty, val, test)
    with pytest.raises(UserError, match="same label"):
        measure(replace(train, labels=torch.full_like(train.labels, 3)), val, test)
    broken = train.features.clone()
    broken[7, 2] = float("nan")
    with pytest.raises(UserError, match=r"image7 \(train split\) hold NaN"):
        measure(replace(train, features=broken), val, test)


def test_without_standardisation_the_scale_of_the_features_matters_and_with_it_not():
    train, val, test = blobs(16, multilabel=False, spread=4.0)
    shrunk = [replace(part, features=part.features / 1024) for part in (train, val, test)]

    def scores(parts: list[Split], standardise: str) -> np.ndarray:
        train, val, test = parts
        result = linear_probe.evaluate(train, val, test, 5, False, 0, replace(QUICK, standardise=standardise))
        return result.samples["score"].astype(np.float64)

    whole = [train, val, test]
    np.testing.assert_allclose(scores(whole, "train"), scores(shrunk, "train"), atol=2e-3)
    assert np.abs(scores(whole, "none") - scores(shrunk, "none")).max() > 0.1


def test_a_data_set_can_have_its_own_learning_rate_and_augmentation():
    switches = LinearProbe(
        learning_rate_by_dataset={"m-so2sat": 3e-3}, augmentation_by_dataset={"m-bigearthnet": "flips_rotation"}
    )
    so2sat, bigearthnet = switches.for_dataset("m-so2sat"), switches.for_dataset("m-bigearthnet")
    assert so2sat.learning_rates == (3e-3,)
    assert so2sat.uses_stored_features
    assert bigearthnet.learning_rates == LinearProbe().learning_rates
    assert bigearthnet.augmentation == "flips_rotation"
    assert not bigearthnet.uses_stored_features
    assert not LinearProbe(backbone_mode="train").uses_stored_features
    assert switches.for_dataset("m-eurosat") == LinearProbe()


@pytest.mark.parametrize(
    ("switches", "sentence"),
    [
        ({"standardise": "test"}, "no standardisation of the linear probe 'test'"),
        ({"backbone_mode": "trian"}, "no backbone mode 'trian', did you mean 'train'?"),
        ({"augmentation": "flip"}, "no augmentation 'flip', did you mean 'flips'?"),
        ({"augmentation_by_dataset": {"m-eurosat": "flip"}}, "no augmentation 'flip'"),
        ({"logistic_c": ()}, "values of C are empty"),
        ({"logistic_c": (1.0, 0.1)}, "values of C must ascend"),
        ({"learning_rate_by_dataset": {"m-eurosat": 0.0}}, "learning rates by data set must be above 0"),
        ({"flip_probability": 1.5}, "flip probability"),
        ({"rotation_degrees": 270.0}, "rotation"),
        ({"optimizer": "lamb"}, "no optimizer 'lamb'"),
    ],
)
def test_impossible_switches_are_refused(switches, sentence):
    with pytest.raises(UserError, match=sentence.replace("?", r"\?")):
        LinearProbe(**switches)
