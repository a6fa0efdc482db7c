"""How well scores tell which texts belong together: pure functions of NumPy arrays.

Axes: N pairs, Q queries, G candidates, D width, P true pairs. Scores rise with likeness.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from hf_tasks.metrics.classification import ranking_scores

Floats = NDArray[np.floating[Any]]
Integers = NDArray[np.integer[Any]]

# Queries compared with all candidates at once: bounds the memory of 100,000 candidates to 100 MB.
QUERIES_AT_ONCE = 256
# The same cosine comes out of two kinds of float32 sums up to this far apart.
ROUNDING = 1e-6


def fit_threshold(scores_N: Floats, labels_N: NDArray[Any]) -> float:
    """The score from which a pair is best called true: it gives the highest F1.

    It lies half way between the two scores that it parts; of equal F1, the higher threshold is taken.

    Args:
        scores_N: of the pairs.
        labels_N: 1 for true pairs, else 0; at least one true pair.

    Raises:
        ValueError: no true pair, or shapes that do not fit.
    """
    _require_pairs(scores_N, labels_N)
    if not labels_N.any():
        raise ValueError("labels: no true pair; wanted at least one to fit a threshold")
    order_N = np.argsort(-scores_N, kind="stable")
    sorted_N = scores_N[order_N].astype(np.float64)
    ends = np.flatnonzero(np.append(np.diff(sorted_N) != 0, True))
    hits = np.cumsum(labels_N[order_N] > 0)[ends]
    f1 = 2 * hits / (ends + 1 + hits[-1])
    best = ends[np.argmax(f1)]
    if best + 1 == len(sorted_N):
        return float(sorted_N[best])
    return float((sorted_N[best] + sorted_N[best + 1]) / 2)


def compute_labelled_pairs(scores_N: Floats, labels_N: NDArray[Any], *, threshold: float) -> dict[str, Any]:
    """Ranking figures, and rates of the decisions at a threshold.

    Args:
        scores_N: of the pairs.
        labels_N: 1 for true pairs, else 0.
        threshold: a pair counts as true from this score on.

    Returns:
        JSON-ready: `average_precision` and `roc_auc` (None where only one kind of pairs is there),
        `accuracy`, `precision`, `recall`, `f1`, `threshold`.

    Raises:
        ValueError: no pairs, or shapes that do not fit.
    """
    _require_pairs(scores_N, labels_N)
    is_true_N, is_called_N = labels_N > 0, scores_N >= threshold
    average_precision, area = ranking_scores(scores_N, is_true_N)
    hits, called, true = ((part).sum() for part in (is_true_N & is_called_N, is_called_N, is_true_N))
    return {
        "average_precision": average_precision,
        "roc_auc": area,
        "accuracy": float((is_true_N == is_called_N).mean()),
        "precision": float(hits / called) if called else 0.0,
        "recall": float(hits / true) if true else 0.0,
        "f1": float(2 * hits / (called + true)) if called + true else 0.0,
        "threshold": float(threshold),
    }


def compute_scored_pairs(scores_N: Floats, labels_N: Floats) -> dict[str, Any]:
    """Agreement with scores of people: `spearman`, of ranks; None where either side is constant.

    Raises:
        ValueError: no pairs, or shapes that do not fit.
    """
    _require_pairs(scores_N, labels_N)
    is_constant = scores_N.min() == scores_N.max() or labels_N.min() == labels_N.max()
    return {"spearman": None if is_constant else float(spearmanr(scores_N, labels_N).statistic)}


def compute_retrieval(ranks_Q: Integers, *, candidates: int) -> dict[str, Any]:
    """How early a true partner comes, of partner_ranks.

    Args:
        ranks_Q: from 1.
        candidates: G.

    Returns:
        JSON-ready: `mrr` (mean of 1 / rank of the first true partner), `recall_at_1`, `recall_at_10` (share
        of queries with a true partner among the first 1 or 10) and `candidates`.
    """
    return {
        "mrr": float((1 / ranks_Q).mean()),
        "recall_at_1": float((ranks_Q <= 1).mean()),
        "recall_at_10": float((ranks_Q <= 10).mean()),
        "candidates": candidates,
    }


def partner_ranks(
    queries_QD: Floats, candidates_GD: Floats, *, query_P: Integers, candidate_P: Integers
) -> NDArray[np.int64]:
    """Rank, from 1, of each query's first true partner when its candidates are sorted by cosine; (Q,).

    Memory is bounded by QUERIES_AT_ONCE rows of cosines. A candidate with the same cosine as the best true
    partner counts as before it, so ties never flatter.

    Args:
        queries_QD: rows of length 1.
        candidates_GD: rows of length 1.
        query_P: the query of each true pair, in [0, Q); every query has at least one.
        candidate_P: its candidate, in [0, G).
    """
    best_Q = np.full(len(queries_QD), -np.inf)
    np.maximum.at(best_Q, query_P, np.einsum("pd,pd->p", queries_QD[query_P], candidates_GD[candidate_P]))
    ranks_Q = np.zeros(len(queries_QD), np.int64)
    true_pairs = np.argsort(query_P, kind="stable")
    for start in range(0, len(queries_QD), QUERIES_AT_ONCE):
        stop = min(start + QUERIES_AT_ONCE, len(queries_QD))
        cosines = queries_QD[start:stop] @ candidates_GD.T
        low, high = np.searchsorted(query_P[true_pairs], (start, stop))
        mine = true_pairs[low:high]
        cosines[query_P[mine] - start, candidate_P[mine]] = -np.inf
        ranks_Q[start:stop] = 1 + (cosines >= best_Q[start:stop, None] - ROUNDING).sum(axis=1)
    return ranks_Q


def compute_triplets(positive_N: Floats, negative_N: Floats) -> dict[str, Any]:
    """`triplet_accuracy`: share of triplets whose true text is strictly nearer than the false one."""
    return {"triplet_accuracy": float((positive_N > negative_N).mean())}


def _require_pairs(scores_N: NDArray[Any], labels_N: NDArray[Any]) -> None:
    if scores_N.ndim != 1 or scores_N.shape != labels_N.shape or scores_N.size == 0:
        raise ValueError(
            f"scores and labels: shapes {scores_N.shape} and {labels_N.shape}; wanted one of each a pair"
        )
    broken = np.flatnonzero(~np.isfinite(scores_N))
    if broken.size:
        raise ValueError(
            f"scores: NaN or infinity in {broken.size} of {len(scores_N)} pairs, first in pair {broken[0]}; "
            "the model has diverged, try a lower learning rate"
        )
