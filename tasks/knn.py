"""k-nearest-neighbour classification of pooled features: nothing is fitted, the train split is the bank, val is unused.

Each test image takes the labels of its k nearest train images, for every k of the protocol and under two votes:
`uniform` (each neighbour counts 1) and `weighted` (each counts exp(similarity / temperature): Wu et al., CVPR 2018, and
DINO's `eval_knn.py`). The similarity is the cosine, or minus the squared Euclidean distance divided by the mean squared
distance between two train images. So the temperature has a meaning at any scale of the features, and where the two can
be compared (vectors of unit length that are zero on average, mean squared distance 2) their weights are proportional.

All arithmetic is float64 and similarities are rounded to 1e-12, so that the last bits of a matrix product, which change
with the number of threads or the size of a chunk, decide nothing. What is equal then is settled by rule: of equally
near images the one that stands first in the train split is nearer; of classes with equal votes the one whose nearest
member is nearer wins. A zero vector has cosine 0 with everything.
"""

import torch
from torch import Tensor
from torch.nn.functional import normalize, one_hot

from models.common.errors import UserError
from tasks.common import metrics
from tasks.common.splits import Result, Split, check, scaler
from tasks.switches import Knn

VOTES = ("uniform", "weighted")
CHUNK_ELEMENTS = 2**24  # similarities held at once: 128 MB


def evaluate(train: Split, val: Split, test: Split, num_classes: int, multilabel: bool, switches: Knn) -> Result:
    """Classify the test split by its neighbours in the train split; raises `UserError` on splits that cannot be.

    Metrics, for each k, for the mean over k, and for each vote: `accuracy_k5_uniform` ... `accuracy_mean_weighted`;
    multi-label: `f1_micro_*` and `f1_macro_*` (a label is predicted where at least half the vote has it), `map_macro_*`
    (of the vote shares). A k larger than the train split is left out, also of the mean, and named in the notes.

    Samples: `k` (K,), `label` (N,), `prediction_<vote>` (N, K); multi-label: `label` (N, C), `prediction_<vote>` and
    `score_<vote>`, the vote shares, (N, K, C).
    """
    check(num_classes, multilabel, train=train, test=test)
    used = tuple(k for k in switches.k if k <= len(train.names))
    if not used:
        raise UserError(
            f"k-NN with k = {_list(switches.k)} needs more than the {len(train.names)} images of the train split"
        )
    bank, queries = embed(train.features, test.features, switches)
    targets = (train.labels if multilabel else one_hot(train.labels, num_classes)).double()
    parts = [
        _classify(bank, targets, chunk, used, multilabel, switches)
        for chunk in queries.split(max(1, CHUNK_ELEMENTS // max(len(bank), used[-1] * num_classes)))
    ]
    predicted, shared = (torch.cat(part, dim=1).cpu() for part in zip(*parts, strict=True))  # (V, N, K), (V, N, K, C)

    label = test.labels.cpu()
    samples = {"k": torch.tensor(used), "label": label.to(torch.uint8) if multilabel else label}
    scores: dict[str, float] = {}
    for vote, prediction, share in zip(VOTES, predicted, shared, strict=True):
        samples[f"prediction_{vote}"] = prediction
        if multilabel:
            samples[f"score_{vote}"] = share
        by_k = [_scores(prediction[:, i], share[:, i], label, multilabel) for i in range(len(used))]
        for metric in by_k[0]:
            values = [row[metric] for row in by_k]
            scores |= {f"{metric}_k{k}_{vote}": value for k, value in zip(used, values, strict=True)}
            scores[f"{metric}_mean_{vote}"] = sum(values) / len(values)
    notes = ()
    if left_out := [k for k in switches.k if k not in used]:
        size = f"the train split holds {len(train.names)} images"
        notes = (f"k = {_list(left_out)} left out: {size}; means are over k = {_list(used)}",)
    return Result(scores, {name: values.numpy() for name, values in samples.items()}, notes=notes)


def embed(bank: Tensor, queries: Tensor, switches: Knn) -> tuple[Tensor, Tensor]:
    """Bring bank (M, D) and queries (N, D) to float64 vectors that `neighbours` can compare.

    Cosine: of unit length. Euclidean: centred on the bank's mean and divided by the root of its mean squared distance.
    (The mean over all ordered pairs of train images, which is twice the sum of the variances.) Standardised before.
    """
    scale = scaler(bank, switches.standardise)
    bank, queries = scale(bank.double()), scale(queries.double())
    if switches.distance == "cosine":
        return normalize(bank, dim=1), normalize(queries, dim=1)
    centre = bank.mean(dim=0)
    spread = (2 * (bank - centre).square().sum(dim=1).mean()).sqrt()
    spread = torch.where(spread > 0, spread, 1.0)  # a bank of equal vectors
    return (bank - centre) / spread, (queries - centre) / spread


def neighbours(bank: Tensor, queries: Tensor, k: int, distance: str) -> tuple[Tensor, Tensor]:
    """The k most similar rows of `bank` (M, D) for each of `queries` (N, D): similarities and row numbers, both (N, k).

    Nearest first; equal similarities in the order of the bank, which also decides who is in where the k-th is shared.
    """
    similarity = queries @ bank.T
    if distance == "euclidean":
        squared = queries.square().sum(dim=1, keepdim=True) + bank.square().sum(dim=1) - 2 * similarity
        similarity = -squared.clamp(min=0)
    similarity = similarity.round(decimals=12)
    # topk promises no order among equals, so it only tells the k-th value; who has it is then counted from the front.
    kth = similarity.topk(k, dim=1).values[:, -1:]
    nearer, level = similarity > kth, similarity == kth
    room = k - nearer.sum(dim=1, keepdim=True)
    inside = nearer | (level & (level.cumsum(dim=1) <= room))
    index = inside.nonzero()[:, 1].view(len(queries), k)
    ordered, order = similarity.gather(1, index).sort(dim=1, descending=True, stable=True)
    return ordered, index.gather(1, order)


def vote_shares(similarity: Tensor, targets: Tensor, temperature: float | None) -> Tensor:
    """Share of the vote that each class gets: similarities (N, k), nearest first, and 0/1 targets (N, k, C) -> (N, C).

    Without a temperature each neighbour has weight 1. With one it has exp((similarity - the nearest's) / temperature):
    the factor common to a query's neighbours leaves the shares alone and keeps the exponential in range.
    """
    if temperature is None:
        weights = torch.ones_like(similarity)
    else:
        weights = ((similarity - similarity[:, :1]) / temperature).exp()
    shares = (weights[:, :, None] * targets).sum(dim=1) / weights.sum(dim=1, keepdim=True)
    return shares.round(decimals=12)


def winner(shares: Tensor, targets: Tensor) -> Tensor:
    """The class with the largest of shares (N, C) -> (N,); of equals the one whose nearest member is nearer.

    `targets` (N, k, C) are the one-hot classes of the neighbours, nearest first.
    """
    nearest_member = targets.argmax(dim=1)  # the first 1 among k; wrong for classes without any, but these have share 0
    level = shares == shares.amax(dim=1, keepdim=True)
    return torch.where(level, nearest_member, targets.shape[1]).argmin(dim=1)


def _classify(
    bank: Tensor, targets: Tensor, queries: Tensor, used: tuple[int, ...], multilabel: bool, switches: Knn
) -> tuple[Tensor, Tensor]:
    """Predictions (V, N, K) or (V, N, K, C) and shares (V, N, K, C) of a chunk of queries: V votes, K values of k."""
    similarity, index = neighbours(bank, queries, used[-1], switches.distance)
    near = targets[index]
    predicted, shared = [], []
    for temperature in (None, switches.temperature):  # in the order of VOTES
        shares = [vote_shares(similarity[:, :k], near[:, :k], temperature) for k in used]
        if multilabel:
            predicted.append(torch.stack([(share >= 0.5).to(torch.uint8) for share in shares], dim=1))
        else:
            predicted.append(
                torch.stack([winner(share, near[:, :k]) for k, share in zip(used, shares, strict=True)], dim=1)
            )
        shared.append(torch.stack(shares, dim=1).float())
    return torch.stack(predicted), torch.stack(shared)


def _scores(prediction: Tensor, share: Tensor, label: Tensor, multilabel: bool) -> dict[str, float]:
    if not multilabel:
        return {"accuracy": float(metrics.accuracy(prediction, label))}
    return {
        "f1_micro": float(metrics.f1(prediction, label, "micro")),
        "f1_macro": float(metrics.f1(prediction, label, "macro")),
        "map_macro": metrics.average_precision(share, label, "macro"),
    }


def _list(values: tuple[int, ...] | list[int]) -> str:
    return ", ".join(map(str, values))
