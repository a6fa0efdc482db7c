"""All that is computed from the embeddings of a validation part: scores, threshold, figures.

Axes: N rows, T distinct texts, D width of the embeddings.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from hf_tasks.metrics.bootstrap import Interval
from hf_tasks.metrics.pair_intervals import (
    labelled_pair_intervals,
    partner_intervals,
    scored_pair_intervals,
    triplet_intervals,
)
from hf_tasks.metrics.pairs import (
    compute_labelled_pairs,
    compute_retrieval,
    compute_scored_pairs,
    compute_triplets,
    fit_threshold,
    partner_ranks,
)
from hf_tasks.tasks.siamese.labels import is_binary
from hf_tasks.tasks.siamese.model import PairModel
from hf_tasks.tasks.siamese.texts import PairsOfTexts, scores_of_pairs, unit_rows


@dataclass(frozen=True)
class Measured:
    """Scores of pairs and what they are worth."""

    scores_N: np.ndarray
    threshold: float | None
    metrics: dict[str, Any]
    draw_intervals: Callable[[], Mapping[str, Interval]]
    """Draws the intervals of the metrics: seconds of work, which an evaluation in training does without."""


def measure(model: PairModel, pairs: PairsOfTexts, embeddings_TD: np.ndarray, *, fit: bool) -> Measured:
    """Score every pair, and compute the figures that fit what the rows hold.

    Args:
        model: encoder, head and threshold.
        pairs: the rows.
        embeddings_TD: of their distinct texts, as the encoder gave them.
        fit: fit the threshold to these pairs; else the model's own decides.

    Raises:
        ValueError: embeddings that are not finite.
    """
    broken = np.flatnonzero(~np.isfinite(embeddings_TD).all(axis=1))
    if broken.size:
        raise ValueError(
            f"embeddings of {broken.size} of {len(embeddings_TD)} texts are not finite; "
            "lower training.learning_rate, or train without fp16"
        )
    scores_N = scores_of_pairs(model, embeddings_TD, pairs.numbers_NK[:, 0], pairs.numbers_NK[:, 1])
    labels_N = pairs.labels_N
    if labels_N is None:
        return _unlabelled(model, pairs, embeddings_TD, scores_N)
    if not is_binary(labels_N):
        figures = compute_scored_pairs(scores_N, labels_N)
        return Measured(
            scores_N, model.threshold, figures, partial(scored_pair_intervals, scores_N, labels_N)
        )
    threshold = model.threshold
    if (fit and labels_N.any()) or threshold is None:
        threshold = fit_threshold(scores_N, labels_N)
    figures = compute_labelled_pairs(scores_N, labels_N, threshold=threshold)
    draw = partial(labelled_pair_intervals, scores_N, labels_N, threshold=threshold)
    return Measured(scores_N, threshold, figures, draw)


def _unlabelled(
    model: PairModel, pairs: PairsOfTexts, embeddings_TD: np.ndarray, scores_N: np.ndarray
) -> Measured:
    """Retrieval of each first text's partners among all second texts; triplets are told apart as well."""
    queries, query_P = np.unique(pairs.numbers_NK[:, 0], return_inverse=True)
    candidates, candidate_N = np.unique(pairs.numbers_NK[:, 1:], return_inverse=True)
    unit_TD = unit_rows(embeddings_TD)
    ranks_Q = partner_ranks(
        unit_TD[queries],
        unit_TD[candidates],
        query_P=query_P,
        candidate_P=candidate_N.reshape(len(query_P), -1)[:, 0],
    )
    figures = compute_retrieval(ranks_Q, candidates=len(candidates))
    if pairs.numbers_NK.shape[1] == 2:
        return Measured(scores_N, model.threshold, figures, partial(partner_intervals, ranks_Q))
    negative_N = scores_of_pairs(model, embeddings_TD, pairs.numbers_NK[:, 0], pairs.numbers_NK[:, 2])
    return Measured(
        scores_N,
        model.threshold,
        figures | compute_triplets(scores_N, negative_N),
        lambda: partner_intervals(ranks_Q) | triplet_intervals(scores_N, negative_N),
    )
