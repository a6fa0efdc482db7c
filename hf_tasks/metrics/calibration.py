"""Whether probabilities mean what they say, and what makes them mean it: temperature and thresholds.

Legend of axes: N examples, C classes, M claims (a probability and whether it came true), B bins, S steps of
a ranking.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import expit

Floats = NDArray[np.floating[Any]]

BINS = 15
FOLDS = 5
TEMPERATURES = (0.01, 100.0)


def claims(probabilities_NC: Floats, labels: NDArray[Any]) -> tuple[Floats, NDArray[np.bool_]]:
    """What the probabilities claim, and whether it came true.

    Args:
        probabilities_NC: in [0, 1].
        labels: (N,) class numbers, or (N, C) of 0 and 1.

    Returns:
        For one class per example the probability of the decision and whether it is right, both (N,); for
        several the probability of each class and whether it is there, both (N * C,).
    """
    if labels.ndim == 2:
        return probabilities_NC.ravel(), labels.ravel().astype(bool)
    return probabilities_NC.max(axis=1), probabilities_NC.argmax(axis=1) == labels


def reliability_bins(probabilities_M: Floats, is_true_M: NDArray[np.bool_]) -> list[dict[str, float]]:
    """Claims in 15 bins of equal width: `low`, `high`, `count`, mean `probability`, `share` that came true.

    Bins without claims are left out. A claim on an edge belongs to the bin above it; 1 to the last.
    """
    bin_M = np.minimum((probabilities_M * BINS).astype(np.int64), BINS - 1)
    count_B = np.bincount(bin_M, minlength=BINS)
    sums = [np.bincount(bin_M, weights=column, minlength=BINS) for column in (probabilities_M, is_true_M)]
    return [
        {
            "low": number / BINS,
            "high": (number + 1) / BINS,
            "count": int(count),
            "probability": float(sums[0][number] / count),
            "share": float(sums[1][number] / count),
        }
        for number, count in enumerate(count_B)
        if count
    ]


def expected_calibration_error(probabilities_M: Floats, is_true_M: NDArray[np.bool_]) -> float:
    """Mean distance of probability and outcome over bins of equal width, weighted by their counts; in [0, 1].

    Source: ECE, arXiv:1706.04599, eq. 3, with 15 bins.
    """
    bins = reliability_bins(probabilities_M, is_true_M)
    gaps = sum(row["count"] * abs(row["probability"] - row["share"]) for row in bins)
    return gaps / len(probabilities_M)


def adaptive_calibration_error(probabilities_M: Floats, is_true_M: NDArray[np.bool_]) -> float:
    """The same over 15 bins of equal count, so that crowded probabilities are told apart; in [0, 1].

    Source: arXiv:1904.01685, section 3.2, for the claimed class alone.
    """
    order_M = np.argsort(probabilities_M, kind="stable")
    parts = np.array_split(order_M, min(BINS, len(order_M)))
    gaps = [len(part) * abs(probabilities_M[part].mean() - is_true_M[part].mean()) for part in parts]
    return float(sum(gaps) / len(order_M))


def brier_score(probabilities_NC: Floats, labels: NDArray[Any]) -> float:
    """Mean squared distance of probabilities and truth.

    For one class per example summed over the classes, in [0, 2]; for several their mean, in [0, 1].
    """
    if labels.ndim == 2:
        return float(((probabilities_NC - labels) ** 2).mean())
    squares_N = (probabilities_NC**2).sum(axis=1)
    truth_N = np.take_along_axis(probabilities_NC, labels[:, None], axis=1)[:, 0]
    return float((squares_N - 2 * truth_N + 1).mean())


def measure_calibration(probabilities_NC: Floats, labels: NDArray[Any]) -> dict[str, float]:
    """The three figures: `ece`, `adaptive_ece`, `brier`; all 0 at best."""
    claimed = claims(probabilities_NC, labels)
    return {
        "ece": expected_calibration_error(*claimed),
        "adaptive_ece": adaptive_calibration_error(*claimed),
        "brier": brier_score(probabilities_NC, labels),
    }


def fit_temperature(logits_NC: Floats, labels: NDArray[Any]) -> float:
    """The temperature T at which the probabilities of logits / T have the least (binary) cross entropy.

    The loss is convex in 1 / T, so that the root of its slope is the minimum. Where there is none in
    [0.01, 100], as when every example is right and surer is always better, T is 1: nothing changes.

    Args:
        logits_NC: of the examples to fit on.
        labels: (N,) class numbers, or (N, C) of 0 and 1.

    Source: arXiv:1706.04599, section 4.2.
    """
    slope = _slope_of_presence(logits_NC, labels) if labels.ndim == 2 else _slope_of_class(logits_NC, labels)
    low, high = np.log(1 / np.array(TEMPERATURES[::-1]))
    if not slope(low) < 0 < slope(high):
        return 1.0
    return float(np.exp(-brentq(slope, low, high, xtol=1e-5)))


def fold_numbers(count: int) -> NDArray[np.int64]:
    """Which of five parts each example belongs to, int64 (N,); the same for the same count."""
    return np.random.default_rng(0).permutation(count) % min(FOLDS, count)


def cross_fit(
    fit: Callable[[NDArray[np.bool_]], Any],
    apply: Callable[[Any, NDArray[np.bool_]], NDArray[Any]],
    count: int,
) -> NDArray[Any]:
    """Answers to each part of the examples by what was fitted to the others: what new data may expect.

    Args:
        fit: (which examples) -> what is fitted to them.
        apply: (what was fitted, which examples) -> an answer to each, along the first axis.
        count: examples, at least 2.
    """
    fold_N = fold_numbers(count)
    parts = [(fold_N == fold) for fold in range(fold_N.max() + 1)]
    answers = [apply(fit(~is_held_out_N), is_held_out_N) for is_held_out_N in parts]
    order_N = np.concatenate([np.flatnonzero(is_held_out_N) for is_held_out_N in parts])
    return np.concatenate(answers)[np.argsort(order_N)]


def f1_thresholds(probabilities_NC: Floats, labels_NC: NDArray[Any]) -> NDArray[np.float64]:
    """The threshold of each class with the highest F1, halfway to the next lower probability; (C,).

    Of equal ones the highest. A class that no example has keeps 0.5.
    """
    return np.array(
        [_f1_threshold(*columns) for columns in zip(probabilities_NC.T, labels_NC.T, strict=True)]
    )


def precision_thresholds(
    probabilities_NC: Floats, labels_NC: NDArray[Any], *, precision: float
) -> NDArray[np.float64]:
    """The lowest threshold of each class from which at least this share of its positives is right; (C,).

    1 where no threshold reaches it, so that only certainty counts; 0.5 for a class that no example has.
    """
    columns = zip(probabilities_NC.T, labels_NC.T, strict=True)
    return np.array([_precision_threshold(*column, precision) for column in columns])


def _slope_of_class(logits_NC: Floats, labels_N: NDArray[Any]) -> Callable[[float], float]:
    # Softmax is the same for logits less their highest, and its sums are then never too large.
    lower_NC = np.subtract(logits_NC, logits_NC.max(axis=1, keepdims=True), dtype=np.float64)
    true_mean = np.take_along_axis(lower_NC, labels_N[:, None], axis=1).mean()

    def slope(log_inverse: float) -> float:
        weights_NC = lower_NC * np.exp(log_inverse)
        np.exp(weights_NC, out=weights_NC)
        expected_N = np.einsum("nc,nc->n", weights_NC, lower_NC) / weights_NC.sum(axis=1)
        return float(expected_N.mean() - true_mean)

    return slope


def _slope_of_presence(logits_NC: Floats, labels_NC: NDArray[Any]) -> Callable[[float], float]:
    logits_NC = logits_NC.astype(np.float64)
    true_mean = (labels_NC * logits_NC).mean()
    return lambda log_inverse: float((expit(logits_NC * np.exp(log_inverse)) * logits_NC).mean() - true_mean)


def _steps(probabilities_N: Floats, present_N: NDArray[Any]) -> tuple[Floats, Floats, Floats]:
    """Of each distinct probability, falling: a threshold that includes it, its hits and its predictions."""
    order_N = np.argsort(-probabilities_N, kind="stable")
    sorted_N = probabilities_N[order_N].astype(np.float64)
    steps_S = np.flatnonzero(np.append(np.diff(sorted_N) != 0, True))
    values_S = sorted_N[steps_S]
    lower_S = np.append(values_S[1:], 0.0)
    halfway_S = (values_S + lower_S) / 2
    hits_S = np.cumsum(present_N[order_N], dtype=np.float64)[steps_S]
    return np.where(halfway_S > lower_S, halfway_S, values_S), hits_S, steps_S + 1.0


def _f1_threshold(probabilities_N: Floats, present_N: NDArray[Any]) -> float:
    positives = present_N.sum()
    if positives == 0:
        return 0.5
    thresholds_S, hits_S, predicted_S = _steps(probabilities_N, present_N)
    return float(thresholds_S[np.argmax(2 * hits_S / (predicted_S + positives))])


def _precision_threshold(probabilities_N: Floats, present_N: NDArray[Any], precision: float) -> float:
    if present_N.sum() == 0:
        return 0.5
    thresholds_S, hits_S, predicted_S = _steps(probabilities_N, present_N)
    reached_S = np.flatnonzero(hits_S >= precision * predicted_S)
    return float(thresholds_S[reached_S[-1]]) if len(reached_S) else 1.0
