"""Tables about texts by their embeddings: nearest neighbours, probable duplicates, clusters.

Axes: T distinct texts, K neighbours, D width of the embeddings, P pairs.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from sklearn.cluster import HDBSCAN

from hf_tasks.metrics.neighbours import nearest_neighbours
from hf_tasks.tasks.siamese.model import PairModel
from hf_tasks.tasks.siamese.settings import Analytics
from hf_tasks.tasks.siamese.texts import scores_of_pairs, unit_rows

NO_CLUSTER = -1


def analytics_tables(
    model: PairModel, texts: Sequence[str], embeddings_TD: np.ndarray, settings: Analytics
) -> dict[str, pa.Table]:
    """The tables `neighbours`, `duplicates` and, if asked for, `clusters`.

    Duplicates are looked for among the neighbours of each text; without a threshold there are none.

    Args:
        model: whose scores and threshold tell duplicates.
        texts: distinct.
        embeddings_TD: of the texts, as the encoder gave them.
        settings: how many and from where on.
    """
    unit_TD = unit_rows(embeddings_TD)
    neighbours_TK, cosines_TK = nearest_neighbours(unit_TD, None, count=settings.neighbours)
    tables = {"neighbours": _neighbours(texts, neighbours_TK, cosines_TK)}
    start = model.threshold if settings.duplicates_from is None else settings.duplicates_from
    if start is not None:
        first_P, second_P = _pairs(neighbours_TK)
        scores_P = scores_of_pairs(model, embeddings_TD, first_P, second_P)
        tables["duplicates"] = _duplicates(texts, first_P, second_P, scores_P, start=start)
    if settings.smallest_cluster is not None:
        tables["clusters"] = _clusters(texts, unit_TD, settings.smallest_cluster)
    return tables


def _neighbours(texts: Sequence[str], neighbours_TK: np.ndarray, cosines_TK: np.ndarray) -> pa.Table:
    rows, count = neighbours_TK.shape
    names = pa.array(texts, pa.large_string())
    return pa.table(
        {
            "text": names.take(pa.array(np.repeat(np.arange(rows), count))),
            "place": np.tile(np.arange(1, count + 1), rows),
            "neighbour": names.take(pa.array(neighbours_TK.ravel())),
            "distance": 1 - cosines_TK.ravel(),
        }
    )


def _pairs(neighbours_TK: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each pair of neighbours once."""
    rows, count = neighbours_TK.shape
    pairs_P2 = np.stack([np.repeat(np.arange(rows), count), neighbours_TK.ravel()], axis=1)
    first_P, second_P = np.unique(np.sort(pairs_P2, axis=1), axis=0).T
    return first_P, second_P


def _duplicates(
    texts: Sequence[str], first_P: np.ndarray, second_P: np.ndarray, scores_P: np.ndarray, *, start: float
) -> pa.Table:
    """Pairs from a score on, likeliest first."""
    kept = np.flatnonzero(scores_P >= start)
    kept = kept[np.argsort(-scores_P[kept], kind="stable")]
    names = pa.array(texts, pa.large_string())
    return pa.table(
        {
            "text_1": names.take(pa.array(first_P[kept])),
            "text_2": names.take(pa.array(second_P[kept])),
            "score": scores_P[kept],
        }
    )


def _clusters(texts: Sequence[str], unit_TD: np.ndarray, smallest: int) -> pa.Table:
    """The cluster of each text, or -1 where it is in none, by cluster; probability of belonging to it."""
    if len(texts) < smallest:
        labels_T, belief_T = np.full(len(texts), NO_CLUSTER), np.zeros(len(texts))
    else:
        # A tree keeps no distance of every pair; on rows of length 1 it orders them as the cosine does.
        fitted = HDBSCAN(min_cluster_size=smallest, algorithm="ball_tree", copy=True).fit(unit_TD)
        labels_T, belief_T = fitted.labels_, fitted.probabilities_
    order = np.lexsort((-belief_T, np.where(labels_T == NO_CLUSTER, len(texts), labels_T)))
    names = pa.array(texts, pa.large_string())
    return pa.table(
        {"text": names.take(pa.array(order)), "cluster": labels_T[order], "probability": belief_T[order]}
    )
