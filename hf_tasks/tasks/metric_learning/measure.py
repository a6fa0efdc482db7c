"""Embeddings of validation rows to figures: queries ranked by all processes together, and the cut-off.

N rows, Q queries, G gallery, D width.
"""

from collections.abc import Sequence
from dataclasses import dataclass
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
from hf_tasks.tasks.metric_learning.data import own_gallery_rows


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
) -> Retrieval:
    """Rank the gallery for each query and fit the cut-off, alike on every process.

    Args:
        rows: as RetrievalSplits.validation describes them.
        embeddings_ND: one a row.
        ks: places to count hits at.
        false_accept_rate: for fit_cutoff.
        cutoff_distance: of a model that has one; None fits it.
        device: where to compute.
    """
    query_rows_Q, gallery_rows_G = (
        np.flatnonzero(np.asarray(rows[name][:])) for name in ("is_query", "is_gallery")
    )
    own_rows_Q = _own_rows(rows, query_rows_Q, gallery_rows_G)
    scores = _score_together(
        _side(rows, embeddings_ND, query_rows_Q),
        _side(rows, embeddings_ND, gallery_rows_G),
        own_rows_Q=own_rows_Q,
        ks=ks,
        device=torch.device("cpu") if device.type == "mps" else device,  # no float64 there
    )
    if cutoff_distance is None:
        cutoff_distance = fit_cutoff(scores, false_accept_rate=false_accept_rate).distance
    figures = {
        **average_scores(scores),
        "cutoff_distance": cutoff_distance,
        **figures_at_cutoff(scores, cutoff_distance),
    }
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
    ks: Sequence[int],
    device: torch.device,
) -> QueryScores:
    """The scores of all queries on every process; each ranks a share."""
    state = PartialState()
    shares = min(state.num_processes, len(own_rows_Q))
    mine: list[QueryScores] = []
    if state.process_index < shares:
        part = slice(state.process_index, None, shares)
        assert queries.groups_N is not None
        share = LabelledEmbeddings(
            queries.embeddings_ND[part], queries.labels_N[part], queries.groups_N[part]
        )
        mine = [score_queries(share, gallery, own_rows_Q=own_rows_Q[part], ks=ks, device=device)]
    order_Q = np.concatenate([np.arange(rank, len(own_rows_Q), shares) for rank in range(shares)])
    return join_scores(gather_object(mine)).select(np.argsort(order_Q))
