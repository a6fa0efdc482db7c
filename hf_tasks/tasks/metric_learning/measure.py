"""Embeddings of validation rows to figures: queries ranked by all processes together, and the cut-off.

N rows, Q queries, G gallery, D width.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import datasets
import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import gather_object

from hf_tasks.metrics.compression import compression_table
from hf_tasks.metrics.cutoff import figures_at_cutoff, fit_cutoff
from hf_tasks.metrics.retrieval import (
    NOBODY,
    LabelledEmbeddings,
    QueryScores,
    average_scores,
    join_scores,
    score_queries,
)
from hf_tasks.tasks.metric_learning.own_pictures import own_gallery_rows

SAMPLE = 200
"""Queries that are ranked exactly as well, to measure an approximate ranking."""


@dataclass(frozen=True)
class Retrieval:
    """What was measured on validation rows; queries and gallery as numbers of these rows."""

    query_rows_Q: np.ndarray
    gallery_rows_G: np.ndarray
    embeddings_ND: np.ndarray
    scores: QueryScores
    """Gallery pictures in it are places in gallery_rows_G."""
    cutoff_distance: float
    figures: dict[str, float]


def measure_retrieval(
    rows: datasets.Dataset,
    embeddings_ND: np.ndarray,
    *,
    ks: Sequence[int],
    false_accept_rate: float | None,
    cutoff_distance: float | None,
    device: torch.device,
    approximate_above: int | None = None,
) -> Retrieval:
    """Rank the gallery for each query and fit the cut-off, alike on every process.

    Args:
        rows: as RetrievalSplits.validation describes them.
        embeddings_ND: one a row.
        ks: places to count hits at.
        false_accept_rate: for fit_cutoff.
        cutoff_distance: of a model that has one; None fits it.
        device: where to compute.
        approximate_above: gallery pictures from which on FAISS ranks; the figures then hold
            `neighbours_found`, the share of the true nearest few among those found, over SAMPLE queries.
    """
    query_rows_Q, gallery_rows_G = (
        np.flatnonzero(np.asarray(rows[name][:])) for name in ("is_query", "is_gallery")
    )
    own_rows_Q = _own_rows(rows, query_rows_Q, gallery_rows_G)
    queries, gallery = (_side(rows, embeddings_ND, part) for part in (query_rows_Q, gallery_rows_G))
    device = torch.device("cpu") if device.type == "mps" else device  # no float64 there
    is_approximate = approximate_above is not None and len(gallery_rows_G) > approximate_above
    score = partial(score_queries, ks=ks, device=device)
    scores = _score_together(
        queries, gallery, own_rows_Q=own_rows_Q, score=partial(score, approximate=is_approximate)
    )
    if cutoff_distance is None:
        cutoff_distance = fit_cutoff(scores, false_accept_rate=false_accept_rate).distance
    figures = {
        **average_scores(scores),
        "cutoff_distance": cutoff_distance,
        **figures_at_cutoff(scores, cutoff_distance),
    }
    if is_approximate:
        some = np.linspace(0, len(own_rows_Q) - 1, min(SAMPLE, len(own_rows_Q))).astype(np.int64)
        exact = score(_share(queries, some), gallery, own_rows_Q=own_rows_Q[some])
        figures["neighbours_found"] = _share_found(scores.neighbours_QK[some], exact.neighbours_QK)
    return Retrieval(query_rows_Q, gallery_rows_G, embeddings_ND, scores, cutoff_distance, figures)


def measure_compression(
    rows: datasets.Dataset, retrieval: Retrieval, *, device: torch.device
) -> list[dict[str, Any]]:
    """Recall@1 of the same search in smaller embeddings, as compression_table describes it."""
    embeddings_ND = retrieval.embeddings_ND
    return compression_table(
        _side(rows, embeddings_ND, retrieval.query_rows_Q),
        _side(rows, embeddings_ND, retrieval.gallery_rows_G),
        own_rows_Q=_own_rows(rows, retrieval.query_rows_Q, retrieval.gallery_rows_G),
        device=torch.device("cpu") if device.type == "mps" else device,
    )


def _own_rows(rows: datasets.Dataset, query_rows_Q: np.ndarray, gallery_rows_G: np.ndarray) -> np.ndarray:
    """The place in the gallery of each query's own picture, or NOBODY."""
    place_in_gallery_N = np.full(len(rows), NOBODY)
    place_in_gallery_N[gallery_rows_G] = np.arange(len(gallery_rows_G))
    own_N = own_gallery_rows(rows)
    return np.where(own_N >= 0, place_in_gallery_N[own_N], NOBODY)[query_rows_Q]


def _side(rows: datasets.Dataset, embeddings_ND: np.ndarray, chosen: np.ndarray) -> LabelledEmbeddings:
    labels_N, groups_N = (np.asarray(rows[name][:]) for name in ("label", "group"))
    return LabelledEmbeddings(embeddings_ND[chosen], labels_N[chosen], groups_N[chosen])


def _score_together(
    queries: LabelledEmbeddings,
    gallery: LabelledEmbeddings,
    *,
    own_rows_Q: np.ndarray,
    score: Callable[..., QueryScores],
) -> QueryScores:
    """The scores of all queries on every process; each ranks a share."""
    state = PartialState()
    shares = min(state.num_processes, len(own_rows_Q))
    mine: list[QueryScores] = []
    if state.process_index < shares:
        part = slice(state.process_index, None, shares)
        mine = [score(_share(queries, part), gallery, own_rows_Q=own_rows_Q[part])]
    order_Q = np.concatenate([np.arange(rank, len(own_rows_Q), shares) for rank in range(shares)])
    return join_scores(gather_object(mine)).select(np.argsort(order_Q))


def _share(queries: LabelledEmbeddings, part: slice | np.ndarray) -> LabelledEmbeddings:
    assert queries.groups_N is not None
    return LabelledEmbeddings(queries.embeddings_ND[part], queries.labels_N[part], queries.groups_N[part])


def _share_found(found_QK: np.ndarray, exact_QK: np.ndarray) -> float:
    """How many of the exact neighbours are among those found."""
    is_found_QK = (exact_QK[:, :, None] == found_QK[:, None, :]).any(axis=2)
    return float(is_found_QK[exact_QK != NOBODY].mean())
