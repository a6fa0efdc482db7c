"""How far a figure could have come out otherwise: 95 % bootstrap intervals over examples, seeded.

A draw with replacement is a count per example, and every figure is computed from such counts, so that a draw
of 100,000 examples costs milliseconds. Legend of axes: N examples, C classes, D draws.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Figures = dict[str, Any]
CountedFigures = Callable[[NDArray[np.float64]], Figures]

DRAWS = 1000
FEWEST_DRAWS = 100
# Examples times classes times draws: about ten seconds of one core.
RANKING_WORK = 400_000_000


@dataclass(frozen=True)
class Interval:
    """A figure and the 2.5 % and 97.5 % points of its draws; arrays where the figure is one."""

    value: Any
    low: Any
    high: Any


@dataclass(frozen=True)
class Difference:
    """A figure of two models, and the interval of second less first; arrays where the figure is one."""

    first: Any
    second: Any
    low: Any
    high: Any


def bootstrap(
    figures: CountedFigures, count: int, *, draws: int = DRAWS, seed: int = 0
) -> dict[str, Interval]:
    """An interval for each figure.

    Args:
        figures: (how often each example counts, float64 (N,)) -> numbers or arrays by name, NaN where a
            draw leaves a figure undefined.
        count: N.
        draws: of N examples with replacement each.
        seed: of the draws; the same seed draws the same examples, whatever the figures.
    """
    generator = np.random.default_rng(seed)
    values = figures(np.ones(count))
    drawn: dict[str, list[Any]] = {name: [] for name in values}
    for _ in range(draws):
        chosen = generator.integers(0, count, count, dtype=np.int32)
        for name, value in figures(np.bincount(chosen, minlength=count).astype(np.float64)).items():
            drawn[name].append(value)
    return {name: _interval(values[name], np.array(drawn[name])) for name in values}


def paired_bootstrap(
    first: CountedFigures, second: CountedFigures, count: int, *, draws: int = DRAWS, seed: int = 0
) -> dict[str, Difference]:
    """An interval for each difference, second less first, where both answered the same examples.

    Each draw takes the same examples for both, so that what is hard for both cancels out. Figures that only
    one of them has are left out.
    """

    def differences(count_N: NDArray[np.float64]) -> Figures:
        before, after = first(count_N), second(count_N)
        return {name: after[name] - before[name] for name in before if name in after}

    intervals = bootstrap(differences, count, draws=draws, seed=seed)
    before, after = first(np.ones(count)), second(np.ones(count))
    return {
        name: Difference(before[name], after[name], interval.low, interval.high)
        for name, interval in intervals.items()
    }


def multiclass_figures(labels_N: NDArray[Any], decisions_N: NDArray[Any], *, classes: int) -> CountedFigures:
    """`accuracy`, `f1_macro`, `f1_micro`, `f1_weighted` and `f1` (C,), as compute_multiclass defines them."""
    is_right_N = labels_N == decisions_N
    right_classes = labels_N[is_right_N]

    def figures(count_N: NDArray[np.float64]) -> Figures:
        # Without any right answer NumPy gives whole numbers.
        hits_C = np.bincount(right_classes, count_N[is_right_N], classes).astype(np.float64)
        predicted_C = np.bincount(decisions_N, count_N, classes).astype(np.float64)
        support_C = np.bincount(labels_N, count_N, classes).astype(np.float64)
        return {"accuracy": hits_C.sum() / count_N.sum(), **_f1_figures(hits_C, predicted_C, support_C)}

    return figures


def multilabel_figures(labels_NC: NDArray[Any], decisions_NC: NDArray[Any]) -> CountedFigures:
    """`accuracy`, `f1_macro`, `f1_micro`, `f1_weighted` and `f1` (C,), as compute_multilabel defines them."""
    is_right_N = (labels_NC == decisions_NC).all(axis=1).astype(np.float64)
    predicted_NC, present_NC = decisions_NC.astype(np.float32), labels_NC.astype(np.float32)
    hits_NC = predicted_NC * present_NC

    def figures(count_N: NDArray[np.float64]) -> Figures:
        # Whole numbers below 2**24, which float32 adds exactly and fast.
        counted = (
            count_N.astype(np.float32) @ column_NC for column_NC in (hits_NC, predicted_NC, present_NC)
        )
        rates = _f1_figures(*(column_C.astype(np.float64) for column_C in counted))
        return {"accuracy": count_N @ is_right_N / count_N.sum(), **rates}

    return figures


def ranking_figures(probabilities_NC: Floats, labels_NC: NDArray[Any]) -> CountedFigures:
    """`average_precision` and `roc_auc`, means over classes, as compute_multilabel defines them."""
    sorted_classes = [_Ranking.of(*columns) for columns in zip(probabilities_NC.T, labels_NC.T, strict=True)]

    def figures(count_N: NDArray[np.float64]) -> Figures:
        scores_C2 = np.array([ranking.scores(count_N) for ranking in sorted_classes])
        is_defined_C2 = ~np.isnan(scores_C2)
        defined_2 = is_defined_C2.sum(axis=0)
        means_2 = np.where(defined_2 > 0, np.nansum(scores_C2, axis=0) / np.maximum(defined_2, 1), np.nan)
        return {"average_precision": means_2[0], "roc_auc": means_2[1]}

    return figures


def mean_figures(values: Mapping[str, Floats], weight_N: Floats | None = None) -> CountedFigures:
    """The mean of each column of numbers, an example each; NaN where a draw has no weight.

    Args:
        values: columns by name.
        weight_N: of each example, such as its tokens, or 0 for one that does not count; None is 1 for all.
    """

    def figures(count_N: NDArray[np.float64]) -> Figures:
        weighted_N = count_N if weight_N is None else count_N * weight_N
        total = weighted_N.sum()
        return {name: weighted_N @ column_N / total if total else np.nan for name, column_N in values.items()}

    return figures


def joined(*parts: CountedFigures) -> CountedFigures:
    """The figures of all parts at once, from the same draws."""
    return lambda count_N: {name: value for figures in parts for name, value in figures(count_N).items()}


def interval_ends(intervals: Mapping[str, Interval]) -> dict[str, Any]:
    """Intervals for metrics.json: `[low, high]`, None where not defined; of an array a pair for each."""
    return {name: _ends(interval) for name, interval in intervals.items()}


def ranking_draws(count: int, classes: int) -> int:
    """Draws that figures of all classes can afford: 1000 for small data, never under 100."""
    return int(np.clip(RANKING_WORK // (count * classes), FEWEST_DRAWS, DRAWS))


@dataclass(frozen=True)
class _Ranking:
    """One class: its examples from the most to the least probable, and where equal ones end."""

    order_N: NDArray[np.int64]
    is_present_N: NDArray[np.bool_]
    steps_S: NDArray[np.int64]

    @classmethod
    def of(cls, probabilities_N: Floats, present_N: NDArray[Any]) -> "_Ranking":
        order_N = np.argsort(-probabilities_N)
        steps_S = np.flatnonzero(np.append(np.diff(probabilities_N[order_N]) != 0, True))
        return cls(order_N, present_N[order_N].astype(bool), steps_S)

    def scores(self, count_N: NDArray[np.float64]) -> tuple[float, float]:
        """Average precision and ROC-AUC of the counted examples; NaN where not defined."""
        sorted_N = count_N[self.order_N]
        seen_S = np.cumsum(sorted_N)[self.steps_S]
        hits_S = np.cumsum(sorted_N * self.is_present_N)[self.steps_S]
        positives, negatives = hits_S[-1], seen_S[-1] - hits_S[-1]
        if positives == 0:
            return np.nan, np.nan
        new_hits_S = np.diff(hits_S, prepend=0)
        precision_S = np.divide(hits_S, seen_S, out=np.zeros_like(hits_S), where=seen_S > 0)
        average_precision = float(new_hits_S @ precision_S / positives)
        if negatives == 0:
            return average_precision, np.nan
        new_alarms_S = np.diff(seen_S - hits_S, prepend=0)
        return average_precision, float(new_alarms_S @ (hits_S - new_hits_S / 2) / (positives * negatives))


def _f1_figures(hits_C: Floats, predicted_C: Floats, support_C: Floats) -> Figures:
    total = support_C.sum()
    whole_C = predicted_C + support_C
    f1_C = np.divide(2 * hits_C, whole_C, out=np.zeros_like(hits_C), where=whole_C > 0)
    occurring = np.count_nonzero(support_C)
    return {
        "f1_macro": f1_C[support_C > 0].sum() / max(occurring, 1),
        "f1_micro": 2 * hits_C.sum() / max(predicted_C.sum() + total, 1),
        "f1_weighted": f1_C @ support_C / max(total, 1),
        "f1": f1_C,
    }


def _interval(value: Any, drawn_D: NDArray[Any]) -> Interval:
    is_defined_D = ~np.isnan(drawn_D.astype(float))
    if not is_defined_D.any():
        return Interval(value, np.nan, np.nan)
    low, high = np.nanpercentile(drawn_D, [2.5, 97.5], axis=0)
    return Interval(value, low, high)


def _ends(interval: Interval) -> Any:
    if np.ndim(interval.value) == 0:
        return None if np.isnan(interval.low) else [float(interval.low), float(interval.high)]
    return np.stack([interval.low, interval.high], axis=1).tolist()
