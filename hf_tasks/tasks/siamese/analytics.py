"""Tables about texts by their embeddings: nearest neighbours, probable duplicates, clusters.

Axes: T distinct texts, K neighbours, D width of the embeddings, P pairs, C parts that hang together.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components
from sklearn.cluster import HDBSCAN

from hf_tasks.metrics.neighbours import nearest_neighbours
from hf_tasks.tasks.siamese.model import PairModel
from hf_tasks.tasks.siamese.settings import Analytics
from hf_tasks.tasks.siamese.texts import scores_of_pairs, unit_rows

NO_CLUSTER = -1
# Neighbours of each text that clusters are made of: of so few texts or fewer these are all distances.
LINKS = 64
# Squared; texts that are the same are this far apart, as a sparse matrix has no distance of 0.
SMALLEST_DISTANCE = 1e-12


def analytics_tables(
    model: PairModel, texts: Sequence[str], embeddings_TD: np.ndarray, settings: Analytics
) -> dict[str, pa.Table]:
    """The tables `neighbours`, `duplicates` and, if asked for, `clusters`.

    Duplicates are looked for among the neighbours of each text; without a threshold there are none. Memory
    and, but for the search of neighbours, time grow with the number of texts, not with its square.

    Args:
        model: whose scores and threshold tell duplicates.
        texts: distinct.
        embeddings_TD: of the texts, as the encoder gave them.
        settings: how many and from where on.
    """
    unit_TD = unit_rows(embeddings_TD)
    smallest = settings.smallest_cluster
    count = settings.neighbours if smallest is None else max(settings.neighbours, smallest, LINKS)
    links_TK, link_cosines_TK = nearest_neighbours(unit_TD, None, count=count)
    neighbours_TK, cosines_TK = (part_TK[:, : settings.neighbours] for part_TK in (links_TK, link_cosines_TK))
    tables = {"neighbours": _neighbours(texts, neighbours_TK, cosines_TK)}
    start = model.threshold if settings.duplicates_from is None else settings.duplicates_from
    if start is not None:
        first_P, second_P = _pairs(neighbours_TK)
        scores_P = scores_of_pairs(model, embeddings_TD, first_P, second_P)
        tables["duplicates"] = _duplicates(texts, first_P, second_P, scores_P, start=start)
    if smallest is not None:
        tables["clusters"] = _clusters(texts, _distances(unit_TD, links_TK, link_cosines_TK), smallest)
    return tables


def _neighbours(texts: Sequence[str], neighbours_TK: np.ndarray, cosines_TK: np.ndarray) -> pa.Table:
    rows, count = neighbours_TK.shape
    names = pa.array(texts, pa.large_string())
    return pa.table(
        {
            "text": names.take(pa.array(np.repeat(np.arange(rows), count))),
            "place": np.tile(np.arange(1, count + 1), rows),
            "neighbour": names.take(pa.array(neighbours_TK.ravel())),
            "distance": (1 - cosines_TK.ravel()).clip(min=0),
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


def _distances(unit_TD: np.ndarray, links_TK: np.ndarray, cosines_TK: np.ndarray) -> csr_array:
    """Euclidean distances of each text to itself and to its neighbours, symmetric, (T, T).

    Parts that no neighbours join are joined by the distances of their first texts, as HDBSCAN asks.
    """
    rows, count = links_TK.shape
    own_T, from_P = np.arange(rows), np.repeat(np.arange(rows), count)
    near = csr_array((np.ones(rows * count, bool), (from_P, links_TK.ravel())), (rows, rows))
    firsts_C = np.unique(connected_components(near, directed=False)[1], return_index=True)[1]
    bridges_C = np.einsum("cd,cd->c", unit_TD[firsts_C[:-1]], unit_TD[firsts_C[1:]], dtype=np.float64)
    from_P = np.concatenate([from_P, firsts_C[:-1]])
    to_P = np.concatenate([links_TK.ravel(), firsts_C[1:]])
    squares_P = 2 - 2 * np.concatenate([cosines_TK.ravel(), bridges_C])
    lengths_P = np.sqrt(squares_P.clip(min=SMALLEST_DISTANCE))
    one_way = csr_array((lengths_P, (from_P, to_P)), (rows, rows))
    both_ways = one_way.maximum(one_way.T).tocoo()
    from_P, to_P = (np.concatenate([places, own_T]) for places in both_ways.coords)
    return csr_array((np.append(both_ways.data, np.zeros(rows)), (from_P, to_P)), (rows, rows))


def _clusters(texts: Sequence[str], distances_TT: csr_array, smallest: int) -> pa.Table:
    """The cluster of each text, or -1 where it is in none, by cluster; probability of belonging to it."""
    if len(texts) < smallest:
        labels_T, belief_T = np.full(len(texts), NO_CLUSTER), np.zeros(len(texts))
    else:
        fitted = HDBSCAN(min_cluster_size=smallest, metric="precomputed", copy=True).fit(distances_TT)
        labels_T, belief_T = fitted.labels_, fitted.probabilities_
    order = np.lexsort((-belief_T, np.where(labels_T == NO_CLUSTER, len(texts), labels_T)))
    names = pa.array(texts, pa.large_string())
    return pa.table(
        {"text": names.take(pa.array(order)), "cluster": labels_T[order], "probability": belief_T[order]}
    )
