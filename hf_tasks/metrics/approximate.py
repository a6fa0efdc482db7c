"""Nearest neighbours with FAISS: faster in large galleries, with the share of true neighbours it finds.

B queries of a block, Q queries, G gallery, D width, K neighbours.
"""

import importlib
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hf_tasks.errors import UserError
from hf_tasks.metrics.cosines import NOWHERE, Block, unit_rows
from hf_tasks.metrics.neighbours import by_cosine_then_column, nearest_neighbours

PROPOSED = 10
"""Rows that the codes propose for each neighbour asked for."""
LEAST_ROWS = 1000
"""Rows to learn codes from; a smaller gallery is looked through whole."""
NARROW = 64
SPARE = 32
"""Neighbours looked for beyond those asked for, as some may be left out."""
Neighbours = tuple[NDArray[np.int64], NDArray[np.float64]]


def require_faiss(asked_by: str) -> None:
    """Refuse what needs FAISS where it is not installed.

    Raises:
        UserError: naming the flag or recipe key that asked for it.
    """
    if find_spec("faiss") is None:
        raise UserError(f'{asked_by}: needs FAISS; pip install "hf_tasks[faiss]"')


class ApproximateSearch:
    """A gallery in short codes; what they find near is compared again by its cosines."""

    def __init__(self, gallery_GD: NDArray[np.float32]) -> None:
        """Learn the codes: 4 bits for two numbers of a row, or for one in a narrow row or one of odd width.

        Args:
            gallery_GD: unit rows.

        Raises:
            UserError: FAISS is not installed.

        Source: Quicker ADC, arXiv:1812.09162; `fs` in FAISS's names.
        """
        require_faiss("--faiss")
        faiss: Any = importlib.import_module("faiss")
        self.gallery_GD = gallery_GD
        rows, width = gallery_GD.shape
        parts = width if width % 2 or width < NARROW else width // 2
        kept = "Flat" if rows < LEAST_ROWS else f"PQ{parts}x4fs"
        self.index = faiss.index_factory(width, f"{kept},RFlat", faiss.METRIC_INNER_PRODUCT)
        self.index.k_factor = PROPOSED
        self.index.train(gallery_GD)
        self.index.add(gallery_GD)

    def __call__(self, queries_QD: NDArray[np.floating], *, count: int) -> Neighbours:
        """As nearest_neighbours, of what is found; queries alike to all codes are searched exactly."""
        count = min(count, len(self.gallery_GD))
        cosines_QK, places_QK = self.index.search(unit_rows(queries_QD).numpy(), count)
        cosines_QK = cosines_QK.astype(np.float64)
        short_Q = (places_QK < 0).any(axis=1)
        if short_Q.any():
            places_QK[short_Q], cosines_QK[short_Q] = nearest_neighbours(
                queries_QD[short_Q], self.gallery_GD, count=count
            )
        return places_QK, cosines_QK

    def recall(self, queries_QD: NDArray[np.floating], *, count: int) -> float:
        """Share of the true `count` nearest that are found, over all queries."""
        found_QK, _ = self(queries_QD, count=count)
        exact_QK, _ = nearest_neighbours(queries_QD, self.gallery_GD, count=count)
        return float((found_QK[:, :, None] == exact_QK[:, None, :]).any(axis=1).mean())

    def ranked(self, block: Block, count: int) -> tuple[Tensor, Tensor]:
        """As neighbours.ranked, of those neighbours that FAISS finds.

        Of a query with more than SPARE pictures left out, fewer than `count` may be there.
        """
        places_BK, _ = self(block.queries_BD.cpu().numpy(), count=count + SPARE)
        columns_BK = torch.as_tensor(places_BK, device=block.queries_BD.device)
        rows_BK = torch.arange(len(columns_BK), device=columns_BK.device)[:, None].expand_as(columns_BK)
        rows_P, columns_P = rows_BK.flatten(), columns_BK.flatten()
        cosines_P = block.exact(rows_P, columns_P)
        cosines_P[block.left_out.pairs(rows_P, columns_P)] = NOWHERE
        cosines_BK = cosines_P.view(columns_BK.shape)
        order_BK = by_cosine_then_column(columns_BK, cosines_BK, count)
        return columns_BK.gather(1, order_BK), cosines_BK.gather(1, order_BK)
