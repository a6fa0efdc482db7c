"""95 % intervals of a classifier's figures, and of the differences between two classifiers.

Legend of axes: N examples, C classes.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hf_tasks.metrics.bootstrap import (
    CountedFigures,
    Difference,
    Interval,
    bootstrap,
    joined,
    mean_figures,
    multiclass_figures,
    multilabel_figures,
    paired_bootstrap,
    ranking_draws,
    ranking_figures,
)
from hf_tasks.metrics.classification import rank_of_truth

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Answers:
    """What one classifier says of N examples."""

    decisions: NDArray[Any]
    """(N,) classes, or (N, C) of 0 and 1."""
    losses_N: Floats
    probabilities_NC: Floats | None
    """None where they are not known in full; then there are no figures of rankings."""


def classification_intervals(answers: Answers, labels: NDArray[Any], *, classes: int) -> dict[str, Interval]:
    """An interval for each figure of metrics.json: averages, `loss`, and F1 of each class as `f1` (C,).

    Args:
        answers: of one classifier.
        labels: true classes (N,), or 0 and 1 for each class (N, C).
        classes: C.
    """
    count = len(labels)
    intervals = bootstrap(_decided(answers, labels, classes), count, draws=_draws(labels))
    ranked = _ranked(answers, labels)
    return intervals if ranked is None else intervals | bootstrap(ranked, count, draws=_draws(labels))


def paired_intervals(
    first: Answers, second: Answers, labels: NDArray[Any], *, classes: int
) -> dict[str, Difference]:
    """The same for the differences, second less first, of two classifiers on the same examples."""
    count, draws = len(labels), _draws(labels)
    before, after = (_decided(answers, labels, classes) for answers in (first, second))
    intervals = paired_bootstrap(before, after, count, draws=draws)
    ranked_before, ranked_after = (_ranked(answers, labels) for answers in (first, second))
    if ranked_before is None or ranked_after is None:
        return intervals
    return intervals | paired_bootstrap(ranked_before, ranked_after, count, draws=draws)


def _draws(labels: NDArray[Any]) -> int:
    return ranking_draws(*(labels.shape if labels.ndim == 2 else (len(labels), 1)))


def _decided(answers: Answers, labels: NDArray[Any], classes: int) -> CountedFigures:
    means = {"loss": answers.losses_N.astype(np.float64)}
    if labels.ndim == 2:
        return joined(multilabel_figures(labels, answers.decisions), mean_figures(means))
    if classes > 5 and answers.probabilities_NC is not None:
        means["top_5_accuracy"] = (rank_of_truth(answers.probabilities_NC, labels) < 5).astype(np.float64)
    return joined(multiclass_figures(labels, answers.decisions, classes=classes), mean_figures(means))


def _ranked(answers: Answers, labels: NDArray[Any]) -> CountedFigures | None:
    if labels.ndim == 1 or answers.probabilities_NC is None:
        return None
    return ranking_figures(answers.probabilities_NC, labels)
