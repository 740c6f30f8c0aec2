"""95% intervals of scores, from the predictions or the confusion matrices kept for each test image.

Percentile bootstrap (Efron & Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13), hierarchical: every
replicate draws the test images anew, and, where a row averages several runs, the training draws and the seeds within
them too.
"""

import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from leaderboards import confusions
from leaderboards.files import JournalError

REPLICATES = 1000
PERCENTILES = (2.5, 97.5)
CHUNK_ELEMENTS = 2**22  # image weights held at once: 32 MB
METRIC = re.compile(r"(accuracy|f1_micro|f1_macro)(_mean)?(.*)")
Samples = Mapping[str, np.ndarray]
Array = np.ndarray
Weighted = Callable[[Array], Array]  # image weights (B, N) -> scores (B,), NaN where undefined


def intervals(
    values: Mapping[str, Sequence[float]], samples: Sequence[Samples], draws: Sequence[int], seed: int
) -> dict[str, tuple[float, float]]:
    """Low and high end, by metric, for the mean over draws of the mean over each draw's runs.

    `values`: per metric, what each of R runs recorded. `samples`: per run, `label` (N,) or (N, C) of 0 and 1 and, of
    the same shape, `prediction<suffix>` behind the metric `accuracy<suffix>`, `f1_micro<suffix>` or `f1_macro<suffix>`;
    k-NN may keep all its k at once, as `k` (K,) and `prediction<suffix>` (N, K) or (N, K, C) behind
    `accuracy_k5<suffix>`. The metric `accuracy_mean<suffix>` is the mean over every k. Dense tasks keep `confusion`
    (N, K, K) alone, and `no_data` () where a class is no data, behind the metrics of `leaderboards.confusions`.
    `draws`: the draw of each run. `seed` makes it repeatable.

    A metric whose recorded values the arrays do not give back (another definition, or no arrays) has no interval.
    Replicates in which it is undefined (none of the images drawn has a pixel of that class) do not count.
    Raises `JournalError` if the runs were measured on different test images.
    """
    runs = [_by_k(one) for one in samples]
    labels = [_labels(one) for one in runs]
    if not all(map(len, labels)) or not runs:
        return {}
    if any(not np.array_equal(labels[0], other) for other in labels):
        raise JournalError("they hold different test labels: run them again with --force, on one version of the data")
    images = len(labels[0])
    whole = np.ones((1, images))
    scores = {}
    for metric, recorded in values.items():
        of_runs = [_scores(metric, one) for one in runs]
        if all(of_runs) and np.allclose([_mean(parts, whole)[0] for parts in of_runs], recorded, rtol=0, atol=1e-6):
            scores[metric] = of_runs
    if not scores:
        return {}

    generator = np.random.default_rng(seed)
    shares = _run_shares(draws, generator)
    replicates: dict[str, list[Array]] = {metric: [] for metric in scores}
    step = max(1, CHUNK_ELEMENTS // images)
    for start in range(0, REPLICATES, step):
        weights = _image_weights(images, min(step, REPLICATES - start), generator)
        for metric, of_runs in scores.items():
            by_run = np.stack([_mean(parts, weights) for parts in of_runs], axis=1)
            share = shares[start : start + step]
            replicates[metric].append(np.where(share > 0, by_run * share, 0).sum(axis=1))  # unused runs may be NaN
    ends = {}
    for metric, parts in replicates.items():
        means = np.concatenate(parts)
        defined = means[~np.isnan(means)]
        if len(defined):
            low, high = np.percentile(defined, PERCENTILES)
            ends[metric] = float(low), float(high)
    return ends


def _labels(samples: Samples) -> Array:
    """What must be the same in all runs of a row: the label, or the number of pixels labelled as each class (N, K)."""
    if "confusion" in samples:
        return samples["confusion"].sum(axis=2, dtype=np.int64)
    return samples.get("label", np.empty(0))


def _by_k(samples: Samples) -> dict[str, Array]:
    """The predictions of each k under their own name: `prediction_uniform` (N, K) -> `prediction_k5_uniform` (N,)."""
    named = {}
    for name, array in samples.items():
        if name.startswith("prediction") and "k" in samples:
            vote = name.removeprefix("prediction")
            named |= {f"prediction_k{k}{vote}": array[:, i] for i, k in enumerate(samples["k"])}
        else:
            named[name] = array
    return named


class Score:
    """A metric of one array of predictions, for any weights of the images.

    F1 is 2 TP / (2 TP + FP + FN); `f1_macro` is its mean over the classes, 0 for one with neither label nor prediction.
    All it is made of are sums over images, so that one matrix product serves every replicate.
    """

    def __init__(self, metric: str, prediction: Array, label: Array) -> None:
        self.metric = metric
        if metric == "accuracy":
            self.counts = (prediction == label).astype(float)[:, None]
            return
        if label.ndim == 1:
            classes = np.arange(max(prediction.max(), label.max()) + 1)
            prediction, label = prediction[:, None] == classes, label[:, None] == classes
        predicted, labelled = prediction.astype(bool), label.astype(bool)
        parts = (predicted & labelled).astype(float), predicted.astype(float) + labelled  # TP, and 2 TP + FP + FN
        if metric == "f1_micro":
            parts = tuple(part.sum(axis=1, keepdims=True) for part in parts)
        self.counts = np.concatenate(parts, axis=1)

    def __call__(self, weights: Array) -> Array:
        """How often each image counts, (B, N) -> scores (B,)."""
        counts = weights @ self.counts  # whole numbers: exact in any order of summation
        if self.metric == "accuracy":
            return counts[:, 0] / weights.sum(axis=1)
        true_positive, either = np.split(counts, 2, axis=1)
        return (2 * true_positive / np.maximum(either, 1)).mean(axis=1)


def _scores(metric: str, samples: Samples) -> list[Weighted]:
    """The arrays whose mean score is the metric (one, or one per k), ready to be weighted; empty if there are none."""
    if "confusion" in samples:
        score = confusions.score(metric, samples["confusion"], int(samples.get("no_data", -1)))
        return [score] if score else []
    found = METRIC.fullmatch(metric)
    if not found:
        return []
    kind, mean, suffix = found.groups()
    wanted = re.compile(rf"prediction_k\d+{re.escape(suffix)}" if mean else rf"prediction{re.escape(suffix)}")
    label = samples["label"]
    predictions = [samples[name] for name in sorted(samples) if wanted.fullmatch(name)]
    if any(prediction.shape != label.shape for prediction in predictions) or (kind == "accuracy" and label.ndim > 1):
        return []
    return [Score(kind, prediction, label) for prediction in predictions]


def _mean(scores: Sequence[Weighted], weights: Array) -> Array:
    return np.mean([score(weights) for score in scores], axis=0)


def _image_weights(images: int, replicates: int, generator: np.random.Generator) -> Array:
    """How often each image is drawn when as many are drawn with replacement: (replicates, images)."""
    drawn = generator.integers(images, size=(replicates, images)) + images * np.arange(replicates)[:, None]
    return np.bincount(drawn.ravel(), minlength=replicates * images).reshape(replicates, images).astype(float)


def _run_shares(draws: Sequence[int], generator: np.random.Generator) -> Array:
    """Each run's share in each replicate's mean, (REPLICATES, R): draws, then seeds within them, with replacement."""
    levels = sorted(set(draws))
    times = generator.multinomial(len(levels), np.full(len(levels), 1 / len(levels)), size=REPLICATES)
    shares = np.empty((REPLICATES, len(draws)))
    for level, often in zip(levels, times.T, strict=True):
        members = [run for run, draw in enumerate(draws) if draw == level]
        chosen = generator.multinomial(often * len(members), np.full(len(members), 1 / len(members)))
        shares[:, members] = chosen / (len(members) * len(levels))
    return shares
