"""How good class probabilities are: pure functions of NumPy arrays, from which everything is counted exactly.

N examples, C classes. A ratio with nothing to divide by is 0.0 in precision, recall and F1, where `support`
tells why; it is None in the ranking scores, which have no such convention. `f1_macro` is the mean over the
classes that occur in the labels, so a class that a small validation set lacks does not lower it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Integers = NDArray[np.integer[Any]]

# Softmax in half precision misses 1 by about this much; logits miss it by far more.
PROBABILITY_TOLERANCE = 1e-3


def compute_multiclass(
    probabilities_NC: Floats, labels_N: Integers, *, class_names: Sequence[str]
) -> dict[str, Any]:
    """Accuracy, F1, per-class rates and the confusion matrix of one class per example.

    The predicted class is the most probable one; among equals, the first in `class_names`. The same order
    decides who belongs to the first five.

    Args:
        probabilities_NC: in [0, 1].
        labels_N: true class, in [0, C).
        class_names: the C names, in the order of the columns, all different.

    Returns:
        JSON-ready: `accuracy`, `top_5_accuracy` (with more than five classes), `f1_macro`, `f1_micro`,
        `f1_weighted`, `per_class` (name to precision, recall, f1, support) and `confusion_matrix`
        (C lists of C counts; rows are true classes, columns predicted ones).

    Raises:
        ValueError: no examples, shapes that do not fit, or values that are no probabilities or no classes.
    """
    _require_probabilities(probabilities_NC, class_names)
    _require_classes(labels_N, probabilities_NC.shape)
    count, classes = probabilities_NC.shape
    predicted_N = probabilities_NC.argmax(axis=1)
    pairs_N = labels_N.astype(np.int64) * classes + predicted_N
    confusion_CC = np.bincount(pairs_N, minlength=classes**2).reshape(classes, classes)
    hits_C, predicted_C, support_C = confusion_CC.diagonal(), confusion_CC.sum(0), confusion_CC.sum(1)

    metrics: dict[str, Any] = {"accuracy": float(hits_C.sum() / count)}
    if classes > 5:
        metrics["top_5_accuracy"] = float((rank_of_truth(probabilities_NC, labels_N) < 5).mean())
    rates = _rates(hits_C, predicted_C, support_C)
    metrics |= _f1_averages(rates["f1"], hits_C, predicted_C, support_C)
    metrics["per_class"] = _per_class(class_names, rates)
    metrics["confusion_matrix"] = confusion_CC.tolist()
    return metrics


def compute_multilabel(
    probabilities_NC: Floats,
    labels_NC: NDArray[Any],
    *,
    class_names: Sequence[str],
    threshold: float | Floats = 0.5,
) -> dict[str, Any]:
    """Exact matches, F1 and ranking scores where each class is present or absent on its own.

    Args:
        probabilities_NC: of presence, in [0, 1].
        labels_NC: 1 where the class is present, else 0; any number type.
        class_names: the C names, in the order of the columns, all different.
        threshold: a class counts as predicted from this probability on; one for all, or one a class (C,).

    Returns:
        JSON-ready: `accuracy` (share of examples with every class right), `f1_macro`, `f1_micro`,
        `f1_weighted`, `average_precision` (mean over classes that are present somewhere), `roc_auc` (mean
        over classes that are present somewhere and absent somewhere) and `per_class` (name to precision,
        recall, f1, support, average_precision, roc_auc). Ranking scores that are not defined are None.

    Raises:
        ValueError: no examples, shapes that do not fit, or values that are no probabilities or not 0 and 1.
    """
    _require_probabilities(probabilities_NC, class_names)
    _require_presence(labels_NC, probabilities_NC.shape)
    present_NC = labels_NC.astype(bool)
    predicted_NC = probabilities_NC >= threshold
    hits_C, predicted_C = (present_NC & predicted_NC).sum(0), predicted_NC.sum(0)
    support_C = present_NC.sum(0)
    rates: dict[str, Any] = _rates(hits_C, predicted_C, support_C)
    scores_C = [ranking_scores(*columns) for columns in zip(probabilities_NC.T, present_NC.T, strict=True)]
    rates["average_precision"], rates["roc_auc"] = zip(*scores_C, strict=True)

    metrics: dict[str, Any] = {"accuracy": float((present_NC == predicted_NC).all(axis=1).mean())}
    metrics |= _f1_averages(rates["f1"], hits_C, predicted_C, support_C)
    metrics["average_precision"] = _mean_of_defined(rates["average_precision"])
    metrics["roc_auc"] = _mean_of_defined(rates["roc_auc"])
    metrics["per_class"] = _per_class(class_names, rates)
    return metrics


def rank_of_truth(probabilities_NC: Floats, labels_N: Integers) -> NDArray[np.int64]:
    """How many classes stand before the true one: more probable, or as probable and earlier."""
    truth_N1 = np.take_along_axis(probabilities_NC, labels_N[:, None], axis=1)
    ahead_N = np.count_nonzero(probabilities_NC > truth_N1, axis=1)
    earlier_NC = np.arange(probabilities_NC.shape[1]) < labels_N[:, None]
    return ahead_N + np.count_nonzero((probabilities_NC == truth_N1) & earlier_NC, axis=1)


def scalar_metrics(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The single numbers among the metrics, for logs and for choosing the best checkpoint."""
    return {name: float(value) for name, value in metrics.items() if isinstance(value, int | float)}


def ranking_scores(
    probabilities_N: Floats, present_N: NDArray[np.bool_]
) -> tuple[float | None, float | None]:
    """Average precision and ROC-AUC of one class, from one sort in which equal values are one step."""
    positives = int(present_N.sum())
    negatives = len(present_N) - positives
    if positives == 0:
        return None, None
    order_N = np.argsort(-probabilities_N)
    steps_S = np.flatnonzero(np.append(np.diff(probabilities_N[order_N]) != 0, True))
    hits_S = np.cumsum(present_N[order_N])[steps_S]
    new_hits_S = np.diff(hits_S, prepend=0)
    average_precision = float((new_hits_S * hits_S / (steps_S + 1)).sum() / positives)
    if negatives == 0:
        return average_precision, None
    new_alarms_S = np.diff(steps_S + 1 - hits_S, prepend=0)
    area = float((new_alarms_S * (hits_S - new_hits_S / 2)).sum() / (positives * negatives))
    return average_precision, area


def _rates(hits_C: Integers, predicted_C: Integers, support_C: Integers) -> dict[str, NDArray[Any]]:
    return {
        "precision": _ratio(hits_C, predicted_C),
        "recall": _ratio(hits_C, support_C),
        "f1": _ratio(2 * hits_C, predicted_C + support_C),
        "support": support_C,
    }


def _f1_averages(
    f1_C: Floats, hits_C: Integers, predicted_C: Integers, support_C: Integers
) -> dict[str, float]:
    total = support_C.sum()
    return {
        "f1_macro": float(_ratio(f1_C[support_C > 0].sum(), np.count_nonzero(support_C))),
        "f1_micro": float(_ratio(2 * hits_C.sum(), predicted_C.sum() + total)),
        "f1_weighted": float(_ratio((f1_C * support_C).sum(), total)),
    }


def _ratio(part: Any, whole: Any) -> NDArray[np.float64]:
    part, whole = np.asarray(part, float), np.asarray(whole, float)
    return np.divide(part, whole, out=np.zeros_like(part), where=whole != 0)


def _mean_of_defined(scores_C: Sequence[float | None]) -> float | None:
    defined = [score for score in scores_C if score is not None]
    return float(np.mean(defined)) if defined else None


def _per_class(class_names: Sequence[str], rates: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    columns = [values.tolist() if isinstance(values, np.ndarray) else values for values in rates.values()]
    rows = zip(*columns, strict=True)
    return {name: dict(zip(rates, row, strict=True)) for name, row in zip(class_names, rows, strict=True)}


def _require_probabilities(probabilities_NC: Floats, class_names: Sequence[str]) -> None:
    if probabilities_NC.ndim != 2 or probabilities_NC.size == 0:
        raise ValueError(
            f"probabilities: shape {probabilities_NC.shape}; wanted (examples, classes), both at least 1"
        )
    if len(class_names) != probabilities_NC.shape[1] or len(set(class_names)) != len(class_names):
        raise ValueError(
            f"class_names: {len(class_names)} names, {len(set(class_names))} of them different, for "
            f"{probabilities_NC.shape[1]} columns of probabilities; wanted one name a column, all different"
        )
    broken = np.flatnonzero(~np.isfinite(probabilities_NC).all(axis=1))
    if broken.size:
        raise ValueError(
            f"probabilities: NaN or infinity in {broken.size} of {len(probabilities_NC)} examples, first in "
            f"example {broken[0]}; the model has diverged, try a lower learning rate"
        )
    low, high = float(probabilities_NC.min()), float(probabilities_NC.max())
    if low < 0 or high > 1 + PROBABILITY_TOLERANCE:
        raise ValueError(
            f"probabilities: values from {low:g} to {high:g}; wanted 0 to 1: apply softmax or "
            "sigmoid to logits"
        )


def _require_classes(labels_N: Integers, shape: tuple[int, ...]) -> None:
    count, classes = shape
    if labels_N.shape != (count,) or not np.issubdtype(labels_N.dtype, np.integer):
        raise ValueError(
            f"labels: shape {labels_N.shape} of {labels_N.dtype}; wanted ({count},) of integers, "
            "a class an example"
        )
    if labels_N.min() < 0 or labels_N.max() >= classes:
        raise ValueError(
            f"labels: classes from {labels_N.min()} to {labels_N.max()}; wanted 0 to {classes - 1}"
        )


def _require_presence(labels_NC: NDArray[Any], shape: tuple[int, ...]) -> None:
    if labels_NC.shape != shape:
        raise ValueError(f"labels: shape {labels_NC.shape}; wanted {shape}, as the probabilities")
    if not ((labels_NC == 0) | (labels_NC == 1)).all():
        raise ValueError("labels: a value that is neither 0 nor 1; wanted 1 where a class is present, else 0")
