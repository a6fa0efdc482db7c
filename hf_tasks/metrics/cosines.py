"""The cosines of queries to a gallery, a tile at a time: some queries by some rows of the gallery.

A tile fits the cache of a processor, so the product runs at full speed and whoever looks at the cosines
finds them there; memory does not grow with the gallery.

B queries of a block, Q queries, G gallery, C gallery rows of a tile, D width, P pairs of a query and a
gallery row.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import isqrt

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

TILE_CELLS = 1024**2
"""4 MiB of cosines."""
LEAST_COLUMNS = 64
"""However small a tile is asked for: less would be all overhead."""
PAIR_CELLS = 2**16
HELD = 8
"""Candidates that are held at most for each neighbour asked for, until the nearest of them are kept."""
NOWHERE = -torch.inf
NOBODY = -1


def unit_rows(embeddings_ND: Tensor | NDArray[np.floating]) -> Tensor:
    """The rows scaled to length 1, float32; a row of zeros stays one, at cosine 0 to everything.

    Raises:
        ValueError: no matrix, no rows, or NaN or infinity in a row.
    """
    rows_ND = torch.as_tensor(embeddings_ND)
    if rows_ND.ndim != 2 or rows_ND.numel() == 0:
        raise ValueError(f"embeddings: shape {tuple(rows_ND.shape)}; wanted (rows, width), both at least 1")
    units_ND = torch.empty(rows_ND.shape, dtype=torch.float32, device=rows_ND.device)
    size = max(1, PAIR_CELLS // rows_ND.shape[1])
    for rows_BD, units_BD in zip(rows_ND.split(size), units_ND.split(size), strict=True):
        exact_BD = rows_BD.double()
        lengths_B1 = exact_BD.norm(dim=1, keepdim=True)
        if not lengths_B1.isfinite().all():
            raise ValueError("embeddings: NaN or infinity; the model has diverged, lower the learning rate")
        units_BD.copy_(exact_BD.div_(lengths_B1.clamp(min=torch.finfo(torch.float64).tiny)))
    return units_ND


@dataclass(frozen=True)
class LeftOut:
    """The pairs that are not there: a query with its own picture, or with one of its group."""

    own_rows_Q: Tensor | None = None
    """Gallery row that is the query's own picture, NOBODY for none."""
    groups_Q: Tensor | None = None
    groups_G: Tensor | None = None
    """NOBODY stands for no group."""

    def select(self, rows: slice | Tensor) -> "LeftOut":
        """What is left out for some of the queries."""
        own_rows_Q = None if self.own_rows_Q is None else self.own_rows_Q[rows]
        groups_Q = None if self.groups_Q is None else self.groups_Q[rows]
        return replace(self, own_rows_Q=own_rows_Q, groups_Q=groups_Q)

    def pairs(self, rows_P: Tensor, columns_P: Tensor) -> Tensor:
        """Which pairs are left out, bool (P,)."""
        is_out_P = torch.zeros_like(rows_P, dtype=torch.bool)
        if self.own_rows_Q is not None:
            is_out_P |= columns_P == self.own_rows_Q[rows_P]
        if self.groups_Q is not None and self.groups_G is not None:
            groups_P = self.groups_Q[rows_P]
            is_out_P |= (groups_P == self.groups_G[columns_P]) & (groups_P != NOBODY)
        return is_out_P

    def mark(self, cosines_BC: Tensor, start: int) -> None:
        """Write NOWHERE into a tile of all the queries by the gallery rows from `start`."""
        columns = cosines_BC.shape[1]
        if self.own_rows_Q is not None:
            own_B = self.own_rows_Q - start
            rows_P = ((own_B >= 0) & (own_B < columns)).nonzero()[:, 0]
            cosines_BC[rows_P, own_B[rows_P]] = NOWHERE
        if self.groups_Q is not None and self.groups_G is not None:
            groups_B1 = self.groups_Q[:, None]
            same_BC = groups_B1 == self.groups_G[start : start + columns]
            cosines_BC.masked_fill_(same_BC & (groups_B1 != NOBODY), NOWHERE)


@dataclass(frozen=True)
class Block:
    """Some queries with the whole gallery."""

    start: int
    """Place of the first query among all."""
    queries_BD: Tensor
    gallery_GD: Tensor
    left_out: LeftOut
    buffer: Tensor
    """Room for a tile, which all blocks share."""

    @property
    def tolerance(self) -> float:
        """Twice what float32 can miss of a cosine: pairs further apart are in their true order."""
        return self.queries_BD.shape[1] * 2.0**-23

    def tiles(self) -> Iterator[tuple[int, Tensor]]:
        """The first gallery row of each tile, and its cosines, float32 (B, C), NOWHERE where left out.

        The cosines of a tile are gone when the next is drawn.
        """
        size = len(self.buffer) // len(self.queries_BD)
        for start in range(0, len(self.gallery_GD), size):
            rows_CD = self.gallery_GD[start : start + size]
            cosines_BC = self.buffer[: len(self.queries_BD) * len(rows_CD)].view(-1, len(rows_CD))
            _multiply(self.queries_BD, rows_CD, out=cosines_BC)
            self.left_out.mark(cosines_BC, start)
            yield start, cosines_BC

    def exact(self, rows_P: Tensor, columns_P: Tensor) -> Tensor:
        """Cosines of single pairs, float64 (P,); equal vectors give equal numbers."""
        size = max(1, PAIR_CELLS // self.queries_BD.shape[1])
        parts = [
            self.queries_BD.index_select(0, rows)
            .double()
            .mul_(self.gallery_GD.index_select(0, columns))
            .sum(dim=1)
            for rows, columns in zip(rows_P.split(size), columns_P.split(size), strict=True)
        ]
        return torch.cat(parts)


def cosine_blocks(
    queries_QD: Tensor | NDArray[np.floating],
    gallery_GD: Tensor,
    *,
    left_out: LeftOut,
    count: int,
    tile_cells: int = TILE_CELLS,
) -> Iterator[Block]:
    """All queries, a block at a time.

    Args:
        queries_QD: any length and floating type.
        gallery_GD: unit rows, float32, on the device that computes.
        left_out: the pairs that are not there.
        count: neighbours that will be kept of each query: a block has no more candidates than cosines.
        tile_cells: cosines held at once; memory depends on it.

    Raises:
        ValueError: as unit_rows.
    """
    queries, gallery = max(1, len(queries_QD)), len(gallery_GD)  # none at all is for unit_rows to refuse
    size = min(max(isqrt(tile_cells), tile_cells // gallery), tile_cells // min(gallery, HELD * count))
    size = min(queries, max(1, size))
    columns = min(gallery, max(LEAST_COLUMNS, tile_cells // size))
    buffer = gallery_GD.new_empty(size * columns)
    for start in range(0, queries, size):
        queries_BD = unit_rows(queries_QD[start : start + size]).to(gallery_GD.device)
        part = slice(start, start + len(queries_BD))
        yield Block(start, queries_BD, gallery_GD, left_out.select(part), buffer)


def _multiply(queries_BD: Tensor, rows_CD: Tensor, *, out: Tensor) -> None:
    """Matrix product in full float32: no TF32, no autocast."""
    allowed = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        with torch.autocast(out.device.type, enabled=False):
            torch.mm(queries_BD, rows_CD.T, out=out)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = allowed
