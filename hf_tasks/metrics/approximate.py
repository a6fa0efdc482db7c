"""Nearest neighbours with FAISS: faster in large galleries, with the share of true neighbours it finds.

Q queries, G gallery, D width, K neighbours.
"""

import importlib
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hf_tasks.errors import UserError
from hf_tasks.metrics.cosines import unit_rows
from hf_tasks.metrics.neighbours import nearest_neighbours

PROBED_SHARE = 8
"""One in so many cells of the gallery is looked through for a query."""
Neighbours = tuple[NDArray[np.int64], NDArray[np.float64]]


class ApproximateSearch:
    """A gallery in cells; only those nearest to a query are looked through."""

    def __init__(self, gallery_GD: NDArray[np.floating]) -> None:
        """Build the cells: about the square root of G.

        Raises:
            UserError: FAISS is not installed.
        """
        if find_spec("faiss") is None:
            raise UserError('--faiss: needs FAISS; pip install "hf_tasks[faiss]"')
        faiss: Any = importlib.import_module("faiss")
        self.gallery_GD = unit_rows(gallery_GD).numpy()
        cells = max(1, int(len(gallery_GD) ** 0.5))
        self.index = faiss.index_factory(
            self.gallery_GD.shape[1], f"IVF{cells},Flat", faiss.METRIC_INNER_PRODUCT
        )
        self.index.nprobe = -(-cells // PROBED_SHARE)
        self.index.train(self.gallery_GD)
        self.index.add(self.gallery_GD)

    def __call__(self, queries_QD: NDArray[np.floating], *, count: int) -> Neighbours:
        """As nearest_neighbours; queries whose cells hold fewer than `count` are searched exactly."""
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
