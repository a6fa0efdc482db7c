"""How well queries find their class in a gallery: each query scored on its own, exactly, then averaged.

A query's ranking is that of metrics/neighbours.py: by cosine, the earlier gallery row first among equals.
Gallery rows that are the query's own picture, or of its group, are not there for it. A query whose class has
no other row in the gallery is unknown: it counts at a cut-off, but in no average.

B queries of a block, Q queries, G gallery, D width, K places of a ranking, T the `ks` asked for, P pairs.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hf_tasks.metrics.approximate import ApproximateSearch
from hf_tasks.metrics.cosines import NOBODY, NOWHERE, TILE_CELLS, Block, LeftOut, cosine_blocks, unit_rows
from hf_tasks.metrics.first_match import far_first_match
from hf_tasks.metrics.neighbours import ranked

KS = (1, 5, 10)
SHOWN_NEIGHBOURS = 5

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class LabelledEmbeddings:
    """Embeddings with what decides which pairs match, and which are left out."""

    embeddings_ND: Tensor | NDArray[np.floating]
    labels_N: Integers
    """Class numbers that queries and gallery share."""
    groups_N: Integers | None = None
    """Pairs of one group are left out; NOBODY stands for no group."""


@dataclass(frozen=True)
class QueryScores:
    """What is known of each query; rows may be cut apart and joined at will."""

    ks: tuple[int, ...]
    matches_Q: Integers
    """Gallery rows of its class, less those left out; 0 means an unknown class."""
    hits_QT: Integers
    """How many of the first k are of its class."""
    average_precision_at_r_Q: Floats
    r_precision_Q: Floats
    first_match_rank_Q: Integers
    """From 1; 0 where there is no match."""
    first_match_Q: Integers
    """Gallery row of the nearest match, or NOBODY."""
    first_match_cosine_Q: Floats
    other_class_cosine_Q: Floats
    """Cosine to the nearest row of another class; minus infinity where there is none."""
    neighbours_QK: Integers
    """Gallery rows of the nearest few, NOBODY where there are no more."""
    neighbour_cosines_QK: Floats

    def select(self, rows: Integers | NDArray[np.bool_]) -> "QueryScores":
        """The scores of some queries, in the order asked for."""
        arrays = [getattr(self, field.name)[rows] for field in fields(self)[1:]]
        return QueryScores(self.ks, *arrays)


def join_scores(parts: Sequence[QueryScores]) -> QueryScores:
    """The scores of several sets of queries as one, in their order."""
    names = [field.name for field in fields(QueryScores)[1:]]
    arrays = [np.concatenate([getattr(part, name) for part in parts]) for name in names]
    return QueryScores(parts[0].ks, *arrays)


def score_queries(
    queries: LabelledEmbeddings,
    gallery: LabelledEmbeddings,
    *,
    own_rows_Q: Integers | None = None,
    ks: Sequence[int] = KS,
    device: torch.device | str = "cpu",
    approximate: bool = False,
    block_cells: int = TILE_CELLS,
) -> QueryScores:
    """Rank the gallery for each query; memory for one tile of cosines, whatever the sizes.

    The scores of a query do not depend on the other queries, so processes may take a share each.

    Args:
        queries: what is looked for.
        gallery: where it is looked for.
        own_rows_Q: gallery row that is the query's own picture, NOBODY for none; left out: none is.
        ks: places to count hits at, each at least 1.
        device: where to compute; needs float64.
        approximate: rank what FAISS finds, not all.
        block_cells: cosines held at once.

    Raises:
        ValueError: shapes that do not fit, NaN or infinity, or a query whose own row has another label.
    """
    own_rows_Q = np.full(len(queries.labels_N), NOBODY) if own_rows_Q is None else own_rows_Q
    _require_fitting(queries, gallery, own_rows_Q, ks)
    matches_Q = count_matches(
        queries.labels_N,
        gallery.labels_N,
        has_own_row_Q=own_rows_Q != NOBODY,
        groups_Q=queries.groups_N,
        groups_G=gallery.groups_N,
    )
    task = _Ranking(queries, gallery, own_rows_Q, matches_Q, tuple(ks), torch.device(device))
    return task.scores(block_cells, approximate)


def average_scores(scores: QueryScores) -> dict[str, float]:
    """The figures over all queries of known classes.

    Returns:
        `cmc_at_k` (a share of queries with a match among the first k), `precision_at_k` (mean share of
        matches among the first k, at most R / k), `map_at_r`, `r_precision` and `mrr`; empty when no query
        is of a known class.

    Source: A Metric Learning Reality Check, arXiv:2003.08505, section 4.2 (R-precision, MAP@R).
    """
    known_Q = scores.matches_Q > 0
    if not known_Q.any():
        return {}
    known = scores.select(known_Q)
    figures = {f"cmc_at_{k}": (known.hits_QT[:, t] > 0).mean() for t, k in enumerate(scores.ks)}
    figures |= {f"precision_at_{k}": (known.hits_QT[:, t] / k).mean() for t, k in enumerate(scores.ks)}
    figures["map_at_r"] = known.average_precision_at_r_Q.mean()
    figures["r_precision"] = known.r_precision_Q.mean()
    figures["mrr"] = (1 / known.first_match_rank_Q).mean()
    return {name: float(value) for name, value in figures.items()}


def count_matches(
    labels_Q: Integers,
    labels_G: Integers,
    *,
    has_own_row_Q: NDArray[np.bool_],
    groups_Q: Integers | None = None,
    groups_G: Integers | None = None,
) -> Integers:
    """Gallery rows of each query's class, less its own row and those of its group.

    Args:
        labels_Q: class numbers of the queries.
        labels_G: those of the gallery.
        has_own_row_Q: whether a query's own picture is in the gallery.
        groups_Q: groups of the queries, NOBODY for none; left out like those of the gallery: no groups.
        groups_G: those of the gallery.
    """
    counts_Q = _occurrences(labels_G[:, None], labels_Q[:, None])
    counts_Q -= has_own_row_Q
    if groups_Q is None or groups_G is None:
        return counts_Q
    shared_Q = _occurrences(np.stack([labels_G, groups_G], axis=1), np.stack([labels_Q, groups_Q], axis=1))
    # A query's own row is of its group, and already taken off.
    shared_Q -= has_own_row_Q
    return counts_Q - np.where(groups_Q != NOBODY, shared_Q, 0)


@dataclass(frozen=True)
class _Ranking:
    queries: LabelledEmbeddings
    gallery: LabelledEmbeddings
    own_rows_Q: Integers
    matches_Q: Integers
    ks: tuple[int, ...]
    device: torch.device

    def scores(self, block_cells: int, approximate: bool) -> QueryScores:
        gallery_GD = unit_rows(self.gallery.embeddings_ND).to(self.device)
        # One place more than the matches of any query, so that a row of another class is always among them.
        count = int(max(self.matches_Q.max() + 1, *self.ks, SHOWN_NEIGHBOURS))
        blocks = partial(cosine_blocks, gallery_GD=gallery_GD, count=count, tile_cells=block_cells)
        left_out, queries_QD = self._left_out(), self.queries.embeddings_ND
        rank = ApproximateSearch(gallery_GD.cpu().numpy()).ranked if approximate else ranked
        found = ((block, *rank(block, count)) for block in blocks(queries_QD, left_out=left_out))
        scores = join_scores([self._block_scores(*ranking) for ranking in found])
        far_F = ((scores.first_match_rank_Q == 0) & (scores.matches_Q > 0)).nonzero()[0]
        if len(far_F):
            far_blocks = blocks(queries_QD[far_F], left_out=left_out.select(self._tensor(far_F)))
            self._add_far_matches(scores, far_F, far_blocks)
        return scores

    def _add_far_matches(self, scores: QueryScores, far_F: Integers, blocks: Iterator[Block]) -> None:
        """Write the nearest match of those queries whose nearest few hold none."""
        labels_F, labels_G = self._tensor(self.queries.labels_N[far_F]), self._tensor(self.gallery.labels_N)
        for block in blocks:
            part = slice(block.start, block.start + len(block.queries_BD))
            rank_B, first_B, cosines_B = far_first_match(block, labels_F[part], labels_G)
            scores.first_match_rank_Q[far_F[part]] = rank_B.cpu().numpy()
            scores.first_match_Q[far_F[part]] = first_B.cpu().numpy()
            scores.first_match_cosine_Q[far_F[part]] = cosines_B.cpu().numpy()

    def _block_scores(self, block: Block, columns_BK: Tensor, cosines_BK: Tensor) -> QueryScores:
        part = slice(block.start, block.start + len(block.queries_BD))
        labels_B = self._tensor(self.queries.labels_N[part])
        matches_B = self._tensor(self.matches_Q[part])
        is_there_BK = cosines_BK > NOWHERE
        labels_G = self._tensor(self.gallery.labels_N)
        is_match_BK = (labels_G[columns_BK] == labels_B[:, None]) & is_there_BK
        hits_BK = is_match_BK.cumsum(dim=1)
        rank_B, first_B = _first_true(is_match_BK, columns_BK)
        places_T = self._tensor(np.asarray(self.ks)).clamp(max=columns_BK.shape[1]) - 1
        # A view would keep all places of all blocks in memory.
        neighbours_BK = torch.where(is_there_BK, columns_BK, NOBODY)[:, :SHOWN_NEIGHBOURS].clone()
        _, other_B = _first_true(~is_match_BK & is_there_BK, columns_BK)
        arrays = (
            matches_B,
            hits_BK[:, places_T],
            _average_precision(is_match_BK, hits_BK, matches_B),
            _r_precision(hits_BK, matches_B),
            rank_B,
            first_B,
            _cosines_to(block, first_B),
            _cosines_to(block, other_B),
            neighbours_BK,
            _cosines_to(block, neighbours_BK),
        )
        return QueryScores(self.ks, *(values.cpu().numpy() for values in arrays))

    def _left_out(self) -> LeftOut:
        own_rows_Q = self._tensor(self.own_rows_Q) if (self.own_rows_Q != NOBODY).any() else None
        groups_Q, groups_G = self.queries.groups_N, self.gallery.groups_N
        if groups_Q is None or groups_G is None or (groups_Q == NOBODY).all():
            return LeftOut(own_rows_Q)
        return LeftOut(own_rows_Q, self._tensor(groups_Q), self._tensor(groups_G))

    def _tensor(self, values: Integers) -> Tensor:
        return torch.as_tensor(values, dtype=torch.int64, device=self.device)


def _first_true(is_wanted_BK: Tensor, columns_BK: Tensor) -> tuple[Tensor, Tensor]:
    """Rank from 1 of the first wanted place, 0 for none, and its gallery row, NOBODY for none."""
    found_B = is_wanted_BK.any(dim=1)
    place_B = is_wanted_BK.to(torch.uint8).argmax(dim=1)
    columns_B = columns_BK.gather(1, place_B[:, None])[:, 0]
    return torch.where(found_B, place_B + 1, 0), torch.where(found_B, columns_B, NOBODY)


def _average_precision(is_match_BK: Tensor, hits_BK: Tensor, matches_B: Tensor) -> Tensor:
    """Sum of the precision at each match among the first R, over R; 0 where R is 0."""
    ranks_K = torch.arange(1, is_match_BK.shape[1] + 1, device=is_match_BK.device)
    counted_BK = is_match_BK & (ranks_K <= matches_B[:, None])
    precision_BK = torch.where(counted_BK, hits_BK.double() / ranks_K, 0)
    return precision_BK.sum(dim=1) / matches_B.clamp(min=1)


def _r_precision(hits_BK: Tensor, matches_B: Tensor) -> Tensor:
    hits_at_r_B = hits_BK.gather(1, (matches_B - 1).clamp(min=0)[:, None])[:, 0]
    return torch.where(matches_B > 0, hits_at_r_B.double() / matches_B.clamp(min=1), 0)


def _cosines_to(block: Block, columns: Tensor) -> Tensor:
    """Exact cosines of each query to its column or columns, (B,) or (B, K); minus infinity to NOBODY."""
    is_there = columns != NOBODY
    rows_P = is_there.nonzero()[:, 0]
    cosines = torch.full(columns.shape, NOWHERE, dtype=torch.float64, device=columns.device)
    cosines[is_there] = block.exact(rows_P, columns[is_there])
    return cosines


def _occurrences(keys_GC: Integers, wanted_QC: Integers) -> Integers:
    """How often each wanted row of numbers stands among the keys."""
    _, inverse = np.unique(np.concatenate([keys_GC, wanted_QC]), axis=0, return_inverse=True)
    inverse = inverse.ravel()
    counts = np.bincount(inverse[: len(keys_GC)], minlength=inverse.max() + 1)
    return counts[inverse[len(keys_GC) :]]


def _require_fitting(
    queries: LabelledEmbeddings, gallery: LabelledEmbeddings, own_rows_Q: Integers, ks: Sequence[int]
) -> None:
    for name, part in (("queries", queries), ("gallery", gallery)):
        shape = (len(part.embeddings_ND),)
        if part.labels_N.shape != shape or (part.groups_N is not None and part.groups_N.shape != shape):
            raise ValueError(
                f"{name}: {shape[0]} embeddings with labels {part.labels_N.shape}; wanted one each"
            )
    if (queries.groups_N is None) != (gallery.groups_N is None):
        raise ValueError("groups: given for queries or gallery alone; wanted both or neither")
    if queries.embeddings_ND.shape[1] != gallery.embeddings_ND.shape[1]:
        raise ValueError("embeddings: queries and gallery differ in width; wanted those of one model")
    if not ks or min(ks) < 1:
        raise ValueError(f"ks: {tuple(ks)}; wanted numbers of at least 1")
    has_own_Q = own_rows_Q != NOBODY
    for name in ("labels_N", "groups_N"):
        ours, theirs = getattr(queries, name), getattr(gallery, name)
        if ours is not None and (ours[has_own_Q] != theirs[own_rows_Q[has_own_Q]]).any():
            raise ValueError(
                f"own_rows: a query and its own gallery row differ in {name[:-2]}; wanted the same"
            )
