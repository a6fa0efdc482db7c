"""The nearest gallery row of a query's own class, for queries whose nearest few hold none.

B queries of a block, G gallery, C gallery rows of a tile, P pairs of a query and a gallery row.
"""

import torch
from torch import Tensor

from hf_tasks.metrics.cosines import NOWHERE, Block


def far_first_match(block: Block, labels_B: Tensor, labels_G: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The nearest match of queries that have one, however far: its place found by counting, not by sorting.

    Args:
        block: the queries, with the gallery.
        labels_B: their class numbers.
        labels_G: those of the gallery.

    Returns:
        Rank from 1, gallery row (the earlier among equals), and exact cosine, each (B,).
    """
    rows_P, columns_P = _pairs_of_equals(labels_B, labels_G)
    is_there_P = ~block.left_out.pairs(rows_P, columns_P)
    rows_P, columns_P = rows_P[is_there_P], columns_P[is_there_P]
    cosines_P = block.exact(rows_P, columns_P)
    best_B = cosines_P.new_full(labels_B.shape, NOWHERE).scatter_reduce(0, rows_P, cosines_P, "amax")
    is_best_P = cosines_P == best_B[rows_P]
    first_B = torch.full_like(labels_B, len(labels_G)).scatter_reduce(
        0, rows_P[is_best_P], columns_P[is_best_P], "amin"
    )
    return _count_ahead(block, best_B, first_B) + 1, first_B, best_B


def _pairs_of_equals(labels_B: Tensor, labels_G: Tensor) -> tuple[Tensor, Tensor]:
    """Rows and columns of all pairs with one label."""
    sorted_G, columns_G = labels_G.sort(stable=True)
    starts_B = torch.searchsorted(sorted_G, labels_B)
    counts_B = torch.searchsorted(sorted_G, labels_B, right=True) - starts_B
    rows_P = torch.repeat_interleave(counts_B)
    shift_B = starts_B - counts_B.cumsum(dim=0) + counts_B
    return rows_P, columns_G[torch.arange(len(rows_P), device=rows_P.device) + shift_B[rows_P]]


def _count_ahead(block: Block, cosines_B: Tensor, columns_B: Tensor) -> Tensor:
    """How many gallery rows rank before a certain one of each query, of this exact cosine and column."""
    ahead_B = torch.zeros_like(columns_B)
    wanted_B1 = cosines_B[:, None].float()
    for start, cosines_BC in block.tiles():
        # Rounding the wanted one is a small part of what the product may miss.
        ahead_B += (cosines_BC > wanted_B1 + block.tolerance).sum(dim=1)
        rows_P, places_P = ((cosines_BC - wanted_B1).abs() <= block.tolerance).nonzero(as_tuple=True)
        exact_P, wanted_P = block.exact(rows_P, places_P + start), cosines_B[rows_P]
        is_earlier_P = (exact_P == wanted_P) & (places_P + start < columns_B[rows_P])
        ahead_B += torch.bincount(rows_P[(exact_P > wanted_P) | is_earlier_P], minlength=len(ahead_B))
    return ahead_B
