"""k-NN on hand-placed points with the answer written out, and against a plain loop."""

from math import exp, sqrt

import numpy as np
import pytest
import torch
from torch import Tensor

from models.common.errors import UserError
from tasks import knn
from tasks.common.splits import Split
from tasks.switches import Knn


def split(features: Tensor, labels: Tensor) -> Split:
    return Split(features, labels, tuple(f"image{i}" for i in range(len(features))))


def shares(distances: list[float], labels: list[int], temperature: float | None, classes: int = 2) -> Tensor:
    """Vote shares of neighbours at cosine 1 - distance."""
    targets = torch.nn.functional.one_hot(torch.tensor([labels]), classes).double()
    return knn.vote_shares(1 - torch.tensor([distances], dtype=torch.float64), targets, temperature)


def decide(distances: list[float], labels: list[int], temperature: float | None, classes: int = 2) -> int:
    targets = torch.nn.functional.one_hot(torch.tensor([labels]), classes).double()
    return int(knn.winner(shares(distances, labels, temperature, classes), targets))


BANK = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.8, 0.2], [0.0, 1.0]])
LABELS = torch.tensor([0, 1, 1, 0])
QUERY = torch.tensor([[1.0, 0.0]])


def predictions(
    switches: Knn, bank: Tensor = BANK, labels: Tensor = LABELS, query: Tensor = QUERY
) -> dict[str, list[list[int]]]:
    test = split(query, torch.zeros(len(query), dtype=torch.long))
    result = knn.evaluate(split(bank, labels), test, test, 2, False, switches)
    return {vote: result.samples[f"prediction_{vote}"].tolist() for vote in knn.VOTES}


def test_two_close_neighbours_outvote_the_nearest_one():
    # Nearest first: the query itself (class 0), then two of class 1. At k = 1 class 0, at k = 3 two votes to one.
    # Weights of cosines 1, 0.994, 0.970 at temperature 0.07: 1, 0.92, 0.65; 1.57 beats 1. At k = 4 the tie of the
    # uniform vote (2 : 2) goes to the class of the nearest, while the far fourth (cosine 0) weighs next to nothing.
    assert predictions(Knn(k=(1, 3, 4))) == {"uniform": [[0, 1, 0]], "weighted": [[0, 1, 1]]}


def test_a_temperature_vote_lets_two_near_ones_outvote_the_nearest():
    # exp(-0.01 / 0.07) = 0.867 and exp(-0.02 / 0.07) = 0.751: together 1.618 against 1.
    assert decide([0.0, 0.01, 0.02], [0, 1, 1], 0.07) == 1
    expected = (exp(-0.01 / 0.07) + exp(-0.02 / 0.07)) / (1 + exp(-0.01 / 0.07) + exp(-0.02 / 0.07))
    assert shares([0.0, 0.01, 0.02], [0, 1, 1], 0.07)[0, 1] == pytest.approx(expected, abs=1e-12)


def test_a_temperature_vote_lets_the_nearest_win_against_two_far_ones():
    # exp(-0.10 / 0.07) = 0.240 and exp(-0.12 / 0.07) = 0.180: together 0.42 against 1. The uniform vote is 2 : 1.
    assert decide([0.0, 0.10, 0.12], [0, 1, 1], 0.07) == 0
    assert decide([0.0, 0.10, 0.12], [0, 1, 1], None) == 1


def test_a_tied_vote_goes_to_the_class_whose_nearest_member_is_nearest():
    # 2 : 2 : 1. Class 1 has the nearest image but one vote; of classes 0 and 2 class 2 comes first, at rank 1.
    assert decide([0.1, 0.2, 0.3, 0.4, 0.5], [1, 2, 0, 0, 2], None, classes=3) == 2


def test_a_tied_weighted_vote_follows_the_same_rule():
    # Two images at the same distance: the one that stands first in the bank is nearer, here class 1.
    assert decide([0.1, 0.1], [1, 0], 0.07) == 1


def test_equally_near_images_are_taken_in_the_order_of_the_bank():
    bank = torch.tensor([[0.0, 1.0]] + [[1.0, 0.0]] * 5, dtype=torch.float64)
    similarity, index = knn.neighbours(bank, QUERY.double(), 3, "cosine")
    assert index.tolist() == [[1, 2, 3]]
    assert similarity.tolist() == [[1.0, 1.0, 1.0]]
    _, index = knn.neighbours(bank, QUERY.double(), 6, "cosine")
    assert index.tolist() == [[1, 2, 3, 4, 5, 0]]


def test_the_order_among_many_duplicates_survives_a_wide_matrix_product():
    generator = torch.Generator().manual_seed(0)
    distinct = torch.nn.functional.normalize(torch.randn(7, 384, generator=generator, dtype=torch.float64), dim=1)
    order = torch.randint(7, (500,), generator=generator)
    similarity, index = knn.neighbours(distinct[order], distinct, 200, "cosine")
    for row, (values, chosen) in enumerate(zip(similarity, index, strict=True)):
        exact = (distinct[order] @ distinct[row]).round(decimals=12)
        assert chosen.tolist() == sorted(range(500), key=lambda i: (-exact[i], i))[:200]
        assert values.tolist() == exact[chosen].tolist()


def test_cosine_forgets_length_and_euclidean_does_not():
    bank, query = torch.tensor([[10.0, 0.0], [0.9, 0.9]]), torch.tensor([[1.0, 0.5]])
    labels = torch.tensor([0, 1])
    # From (1, 0.5): cosines 0.894 and 0.949, squared distances 81.25 and 0.17.
    # From (9, 5): cosines 0.874 and 0.962, squared distances 26 and 82.4.
    assert predictions(Knn(k=(1,)), bank, labels, query)["uniform"] == [[1]]
    assert predictions(Knn(k=(1,), distance="euclidean"), bank, labels, query)["uniform"] == [[1]]
    query = torch.tensor([[9.0, 5.0]])
    assert predictions(Knn(k=(1,)), bank, labels, query)["uniform"] == [[1]]
    assert predictions(Knn(k=(1,), distance="euclidean"), bank, labels, query)["uniform"] == [[0]]


def test_the_euclidean_similarity_is_the_squared_distance_over_the_mean_one():
    bank = torch.tensor([[0.0], [2.0]], dtype=torch.float64)
    # Ordered pairs: 0, 4, 4, 0: mean 2. From 5 the squared distances are 25 and 9.
    embedded = knn.embed(bank, torch.tensor([[5.0]]), Knn(distance="euclidean"))
    similarity, index = knn.neighbours(*embedded, 2, "euclidean")
    assert similarity.tolist() == [[-4.5, -12.5]]
    assert index.tolist() == [[1, 0]]


def test_both_distances_weigh_alike_on_unit_vectors_that_are_zero_on_average():
    bank = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    query = torch.tensor([[0.6, 0.8]])
    by_distance = []
    for distance in ("cosine", "euclidean"):
        similarity, index = knn.neighbours(*knn.embed(bank, query, Knn(distance=distance)), 4, distance)
        targets = torch.eye(4, dtype=torch.float64)[index]
        by_distance.append(knn.vote_shares(similarity, targets, 0.07))
    torch.testing.assert_close(*by_distance)


def test_standardisation_gives_a_small_feature_its_say():
    # Feature 0 spans thousands and says nothing; feature 1 spans one unit and decides.
    bank = torch.tensor([[0.0, 0.0], [3000.0, 0.1], [1000.0, 1.0], [4000.0, 0.9]])
    labels, query = torch.tensor([0, 0, 1, 1]), torch.tensor([[1400.0, 0.05]])
    raw, scaled = (Knn(k=(1,), distance="euclidean", standardise=how) for how in ("none", "train"))
    assert predictions(raw, bank, labels, query)["uniform"] == [[1]]
    assert predictions(scaled, bank, labels, query)["uniform"] == [[0]]


def plain_loop(train: Split, test: Split, classes: int, k: int, switches: Knn, weighted: bool) -> list[int]:
    """k-NN as one would write it down, one query and one neighbour at a time."""
    bank, queries = train.features.double().numpy(), test.features.double().numpy()
    if switches.standardise == "train":
        mean, std = bank.mean(axis=0), bank.std(axis=0)
        bank, queries = (bank - mean) / std, (queries - mean) / std
    mean_squared = np.mean([((a - b) ** 2).sum() for a in bank for b in bank])
    answer = []
    for query in queries:
        if switches.distance == "cosine":
            similarity = [float(query @ x) / sqrt(float(query @ query) * float(x @ x)) for x in bank]
        else:
            similarity = [-float(((query - x) ** 2).sum() / mean_squared) for x in bank]
        near = sorted(range(len(bank)), key=lambda i: (-similarity[i], i))[:k]
        votes = [0.0] * classes
        for i in near:
            votes[int(train.labels[i])] += exp(similarity[i] / switches.temperature) if weighted else 1.0
        tied = [c for c in range(classes) if votes[c] == max(votes)]
        answer.append(next(int(train.labels[i]) for i in near if int(train.labels[i]) in tied))
    return answer


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
@pytest.mark.parametrize("standardise", ["none", "train"])
def test_it_equals_a_plain_loop_on_random_data(distance, standardise):
    generator = torch.Generator().manual_seed(1)
    centres = torch.randn(5, 12, generator=generator)
    labels = torch.randint(5, (90,), generator=generator)
    features = centres[labels] + 1.5 * torch.randn(90, 12, generator=generator) * torch.linspace(0.5, 3, 12)
    train, test = split(features[:60], labels[:60]), split(features[60:], labels[60:])
    switches = Knn(k=(1, 2, 5, 20, 60), distance=distance, standardise=standardise)
    result = knn.evaluate(train, test, test, 5, False, switches)
    for vote in knn.VOTES:
        for column, k in enumerate(switches.k):
            expected = plain_loop(train, test, 5, k, switches, vote == "weighted")
            assert result.samples[f"prediction_{vote}"][:, column].tolist() == expected
            right = sum(a == b for a, b in zip(expected, test.labels.tolist(), strict=True))
            assert result.metrics[f"accuracy_k{k}_{vote}"] == pytest.approx(right / 30, abs=1e-15)


def test_the_size_of_a_chunk_changes_nothing(monkeypatch):
    generator = torch.Generator().manual_seed(2)
    features = torch.randn(80, 33, generator=generator).repeat(2, 1)  # every vector twice: ties everywhere
    labels = torch.randint(4, (160,), generator=generator)
    train, test = split(features, labels), split(features[:50], labels[:50])
    whole = knn.evaluate(train, test, test, 4, False, Knn(k=(1, 5, 50)))
    monkeypatch.setattr(knn, "CHUNK_ELEMENTS", 500)
    pieces = knn.evaluate(train, test, test, 4, False, Knn(k=(1, 5, 50)))
    assert whole.metrics == pieces.metrics
    for name, array in whole.samples.items():
        np.testing.assert_array_equal(array, pieces.samples[name])


def test_the_mean_is_over_k_and_follows_from_the_samples():
    generator = torch.Generator().manual_seed(3)
    features, labels = torch.randn(60, 4, generator=generator), torch.randint(3, (60,), generator=generator)
    result = knn.evaluate(
        split(features, labels), split(features, labels), split(features, labels), 3, False, Knn(k=(3, 7))
    )
    assert sorted(result.metrics) == sorted(f"accuracy_{k}_{vote}" for k in ("k3", "k7", "mean") for vote in knn.VOTES)
    assert result.samples["k"].tolist() == [3, 7]
    for vote in knn.VOTES:
        by_k = [result.metrics[f"accuracy_k{k}_{vote}"] for k in (3, 7)]
        assert result.metrics[f"accuracy_mean_{vote}"] == sum(by_k) / 2
        right = result.samples[f"prediction_{vote}"] == result.samples["label"][:, None]
        assert right.mean(axis=0).tolist() == pytest.approx(by_k, abs=1e-15)
    assert Knn().primary(False) in result.metrics
    assert result.notes == ()


def test_a_k_larger_than_the_bank_is_left_out_and_named():
    result = knn.evaluate(
        split(BANK, LABELS), split(BANK, LABELS), split(BANK, LABELS), 2, False, Knn(k=(1, 4, 5, 200))
    )
    assert {name.split("_")[1] for name in result.metrics} == {"k1", "k4", "mean"}
    assert result.notes == ("k = 5, 200 left out: the train split holds 4 images; means are over k = 1, 4",)
    with pytest.raises(UserError, match="k-NN with k = 5, 10 needs more than the 4 images of the train split"):
        knn.evaluate(split(BANK, LABELS), split(BANK, LABELS), split(BANK, LABELS), 2, False, Knn(k=(5, 10)))


def test_a_label_is_predicted_where_half_the_vote_has_it():
    bank = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]])
    labels = torch.tensor([[1, 1, 0], [1, 0, 0], [0, 0, 1], [0, 0, 1]])
    query = split(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[1, 0, 0], [0, 0, 1]]))
    result = knn.evaluate(split(bank, labels), query, query, 3, True, Knn(k=(1, 2, 4)))
    # First query, uniform: k = 1 copies the first image; k = 2 halves label 1 (kept: at least half); k = 4 halves 0, 2.
    assert result.samples["score_uniform"][0].tolist() == [[1, 1, 0], [1, 0.5, 0], [0.5, 0.25, 0.5]]
    assert result.samples["prediction_uniform"][0].tolist() == [[1, 1, 0], [1, 1, 0], [1, 0, 1]]
    # k = 1: TP 2, FP 1, FN 0 over both queries: F1 = 4 / 5; by class 1, 0, 1.
    assert result.metrics["f1_micro_k1_uniform"] == pytest.approx(4 / 5, abs=1e-15)
    assert result.metrics["f1_macro_k1_uniform"] == pytest.approx(2 / 3, abs=1e-15)
    assert result.metrics["map_macro_k1_uniform"] == 1.0
    # The weighted vote at k = 4 all but forgets the two far images.
    assert result.samples["prediction_weighted"][0, 2].tolist() == [1, 1, 0]
    assert Knn().primary(True) in result.metrics
    assert result.samples["prediction_uniform"].dtype == np.uint8
    assert result.samples["label"].dtype == np.uint8


def test_a_zero_vector_is_classified_and_not_nan():
    result = predictions(Knn(k=(4,)), query=torch.zeros(1, 2))
    assert result == {"uniform": [[0]], "weighted": [[0]]}  # all cosines 0: 2 : 2, and image 0 stands first


def test_a_bank_of_equal_vectors_has_a_euclidean_answer():
    result = predictions(Knn(k=(3,), distance="euclidean"), bank=torch.ones(4, 2))
    assert result == {"uniform": [[1]], "weighted": [[1]]}  # labels 0, 1, 1 of the first three


def test_splits_that_cannot_be_measured_are_refused():
    good = split(BANK, LABELS)
    with pytest.raises(UserError, match="NaN or infinite"):
        knn.evaluate(
            good, good, split(torch.full((1, 2), float("nan")), torch.zeros(1, dtype=torch.long)), 2, False, Knn(k=(1,))
        )
    with pytest.raises(UserError, match="train split have the same label"):
        knn.evaluate(split(BANK, torch.zeros(4, dtype=torch.long)), good, good, 2, False, Knn(k=(1,)))
    with pytest.raises(UserError, match="train split is empty"):
        knn.evaluate(split(torch.zeros(0, 2), torch.zeros(0, dtype=torch.long)), good, good, 2, False, Knn(k=(1,)))


@pytest.mark.parametrize(
    ("switches", "sentence"),
    [
        ({"distance": "euclidian"}, "no distance of k-NN 'euclidian', did you mean 'euclidean'?"),
        ({"standardise": "all"}, "no standardisation of k-NN 'all'"),
        ({"k": (5, 5)}, "must ascend"),
        ({"k": (0, 5)}, "must be 1 or more"),
        ({"k": ()}, "empty"),
        ({"temperature": 0.0}, "temperature"),
    ],
)
def test_impossible_switches_are_refused(switches, sentence):
    with pytest.raises(UserError, match=sentence.replace("?", r"\?")):
        Knn(**switches)
