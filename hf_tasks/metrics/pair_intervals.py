"""95 % intervals of figures of text pairs, over pairs, or over the texts that look for a partner.

Axes: N pairs, Q texts that look for a partner, U distinct values.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hf_tasks.metrics.bootstrap import (
    CountedFigures,
    Figures,
    Interval,
    bootstrap,
    joined,
    mean_figures,
    ranking_draws,
    ranking_figures,
)

Floats = NDArray[np.floating[Any]]


def labelled_pair_intervals(
    scores_N: Floats, labels_N: NDArray[Any], *, threshold: float
) -> dict[str, Interval]:
    """An interval for each figure of compute_labelled_pairs; the threshold is not fitted again in a draw."""
    is_true_N, is_called_N = labels_N > 0, scores_N >= threshold
    figures = joined(
        decided_pair_figures(is_true_N, is_called_N),
        ranking_figures(scores_N[:, None], is_true_N[:, None]),
    )
    return bootstrap(figures, len(scores_N), draws=ranking_draws(len(scores_N), 1))


def decided_pair_figures(is_true_N: NDArray[np.bool_], is_called_N: NDArray[np.bool_]) -> CountedFigures:
    """`accuracy`, `precision`, `recall` and `f1`, as compute_labelled_pairs defines them."""
    hits_N = (is_true_N & is_called_N).astype(np.float64)
    true_N, called_N = is_true_N.astype(np.float64), is_called_N.astype(np.float64)
    either_N = true_N + called_N
    return joined(
        mean_figures({"accuracy": (is_true_N == is_called_N).astype(np.float64)}),
        mean_figures({"precision": hits_N}, called_N),
        mean_figures({"recall": hits_N}, true_N),
        # Where neither is there, 2 * hits / either has no meaning and no weight.
        mean_figures({"f1": 2 * hits_N / np.maximum(either_N, 1)}, either_N),
    )


def scored_pair_intervals(scores_N: Floats, labels_N: Floats) -> dict[str, Interval]:
    """An interval for `spearman` of compute_scored_pairs."""
    score_N, label_N = (np.unique(values, return_inverse=True)[1] for values in (scores_N, labels_N))

    def figures(count_N: NDArray[np.float64]) -> Figures:
        ranks_2N = np.stack([_counted_ranks(score_N, count_N), _counted_ranks(label_N, count_N)])
        centred_2N = ranks_2N - np.average(ranks_2N, axis=1, weights=count_N)[:, None]
        squares = (centred_2N**2) @ count_N
        if not squares.all():
            return {"spearman": np.nan}
        return {"spearman": (centred_2N[0] * centred_2N[1]) @ count_N / np.sqrt(squares.prod())}

    return bootstrap(figures, len(scores_N), draws=ranking_draws(len(scores_N), 1))


def partner_intervals(ranks_Q: NDArray[np.integer[Any]]) -> dict[str, Interval]:
    """An interval for `mrr`, `recall_at_1` and `recall_at_10` of compute_retrieval; candidates stay."""
    columns = {"mrr": 1 / ranks_Q, "recall_at_1": ranks_Q <= 1, "recall_at_10": ranks_Q <= 10}
    figures = mean_figures({name: column_Q.astype(np.float64) for name, column_Q in columns.items()})
    return bootstrap(figures, len(ranks_Q))


def triplet_intervals(positive_N: Floats, negative_N: Floats) -> dict[str, Interval]:
    """An interval for `triplet_accuracy` of compute_triplets."""
    is_told_N = (positive_N > negative_N).astype(np.float64)
    return bootstrap(mean_figures({"triplet_accuracy": is_told_N}), len(is_told_N))


def _counted_ranks(place_N: NDArray[np.int64], count_N: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean rank of each example among all as often as they are counted; equal ones share theirs."""
    count_U = np.bincount(place_N, count_N)
    return (np.cumsum(count_U) - (count_U - 1) / 2)[place_N]
