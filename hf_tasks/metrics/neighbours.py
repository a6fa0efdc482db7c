"""Exact nearest neighbours by cosine, in blocks, with ties broken by the order of the gallery.

Queries and gallery are compared in float32, a block of queries at a time, and whatever rounding could have
put into a wrong order is compared again in float64. So the order is that of the float64 cosines of the
float32 unit vectors, the earlier gallery row first among equals, and depends neither on the size of the
blocks nor on threads, process counts or devices.

B queries of a block, Q queries, G gallery, D width, K neighbours, P pairs of a query and a gallery row,
R some queries of a block, W places looked at for them.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# 32 MiB of cosines at once, and less than that of anything else.
BLOCK_CELLS = 2**23
PAIR_CELLS = 2**17
# Cosines whose maximum is looked at before any of them.
GROUP = 64
# Neighbours looked at beyond those asked for, so that a tie at the border is seldom met.
SLACK = 8
NOWHERE = -torch.inf


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
class Block:
    """Some queries, and their cosines to the whole gallery; NOWHERE where a pair is left out."""

    start: int
    queries_BD: Tensor
    gallery_GD: Tensor
    cosines_BG: Tensor

    @property
    def tolerance(self) -> float:
        """Twice what float32 can miss of a cosine: pairs further apart are in their true order."""
        return self.queries_BD.shape[1] * 2.0**-23

    def ranked(self, count: int) -> tuple[Tensor, Tensor]:
        """The `count` nearest of each query, nearest first.

        Returns:
            Gallery rows, int64 (B, K), and cosines, float64 (B, K); NOWHERE behind the last pair that is not
            left out.
        """
        return self._ranked(torch.arange(len(self.queries_BD), device=self.cosines_BG.device), count, SLACK)

    def exact(self, rows_P: Tensor, columns_P: Tensor) -> Tensor:
        """Cosines of single pairs, float64 (P,); equal vectors give equal numbers."""
        size = max(1, PAIR_CELLS // self.queries_BD.shape[1])
        parts = [
            (self.queries_BD[rows].double() * self.gallery_GD[columns].double()).sum(dim=1)
            for rows, columns in zip(rows_P.split(size), columns_P.split(size), strict=True)
        ]
        return torch.cat(parts)

    def _ranked(self, rows_R: Tensor, count: int, slack: int) -> tuple[Tensor, Tensor]:
        width = min(self.cosines_BG.shape[1], count + slack)
        whole = len(rows_R) == len(self.cosines_BG)
        values_RW, columns_RW = largest(self.cosines_BG if whole else self.cosines_BG[rows_R], width)
        cosines_RW = self._with_near_ones_exact(rows_R, values_RW, columns_RW)
        columns_RK, cosines_RK = _by_cosine_then_column(columns_RW, cosines_RW, count)
        border_R = values_RW[:, min(count, width) - 1]
        open_R = values_RW[:, -1] >= border_R - self.tolerance
        open_R &= border_R > NOWHERE
        if width < self.cosines_BG.shape[1] and open_R.any():
            columns_RK[open_R], cosines_RK[open_R] = self._ranked(rows_R[open_R], count, 4 * slack)
        return columns_RK, cosines_RK

    def _with_near_ones_exact(self, rows_R: Tensor, values_RW: Tensor, columns_RW: Tensor) -> Tensor:
        """The values in float64; exact where a neighbour in the order is too near to be sure."""
        near_RV = (
            values_RW[:, :-1] - values_RW[:, 1:]
        ) <= self.tolerance  # NOWHERE - NOWHERE is NaN: not near
        unsure_RW = torch.zeros_like(values_RW, dtype=torch.bool)
        unsure_RW[:, :-1] |= near_RV
        unsure_RW[:, 1:] |= near_RV
        cosines_RW = values_RW.double()
        places_P, _ = unsure_RW.nonzero(as_tuple=True)
        if len(places_P):
            cosines_RW[unsure_RW] = self.exact(rows_R[places_P], columns_RW[unsure_RW])
        return cosines_RW


def largest(values_RG: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` largest values of each row, largest first, and their columns; any of equals at the border.

    In a wide row only the groups with the `count` largest maxima are looked at: the smallest of these is
    reached by `count` values of the row, and by no value outside.
    """
    groups = values_RG.shape[1] // GROUP
    if groups < 4 * count:
        return values_RG.topk(count, dim=1)
    whole = groups * GROUP
    grouped_RNM = values_RG[:, :whole].unflatten(1, (groups, GROUP))
    chosen_RW = grouped_RNM.amax(dim=2).topk(count, dim=1, sorted=False).indices
    kept_RV = grouped_RNM[torch.arange(len(values_RG), device=values_RG.device)[:, None], chosen_RW].flatten(
        1
    )
    # What is left over at the end is less than a group.
    values_RW, places_RW = torch.cat([kept_RV, values_RG[:, whole:]], dim=1).topk(count, dim=1)
    group_RW = chosen_RW.gather(1, (places_RW // GROUP).clamp(max=count - 1))
    is_left_over_RW = places_RW >= kept_RV.shape[1]
    left_over_RW = places_RW - kept_RV.shape[1] + whole
    return values_RW, torch.where(is_left_over_RW, left_over_RW, group_RW * GROUP + places_RW % GROUP)


def cosine_blocks(
    queries_QD: Tensor | NDArray[np.floating], gallery_GD: Tensor, *, block_cells: int = BLOCK_CELLS
) -> Iterator[Block]:
    """The cosines of all pairs, a block of queries at a time.

    A block's cosines may be written to, and are gone when the next block is drawn: all share one buffer.

    Args:
        queries_QD: any length and floating type.
        gallery_GD: unit rows, float32, on the device that computes.
        block_cells: cosines held at once; time does not depend on it much, memory does.

    Raises:
        ValueError: as unit_rows.
    """
    queries = max(1, len(queries_QD))  # none at all is for unit_rows to refuse
    size = min(queries, max(1, block_cells // len(gallery_GD)))
    buffer_BG = gallery_GD.new_empty(size, len(gallery_GD))
    for start in range(0, queries, size):
        queries_BD = unit_rows(queries_QD[start : start + size]).to(gallery_GD.device)
        cosines_BG = buffer_BG[: len(queries_BD)]
        _multiply(queries_BD, gallery_GD, out=cosines_BG)
        yield Block(start, queries_BD, gallery_GD, cosines_BG)


def nearest_neighbours(
    queries_QD: Tensor | NDArray[np.floating],
    gallery_GD: Tensor | NDArray[np.floating] | None,
    *,
    count: int,
    device: torch.device | str = "cpu",
    block_cells: int = BLOCK_CELLS,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The `count` gallery rows nearest to each query, and their cosines.

    Args:
        queries_QD: any length and floating type.
        gallery_GD: likewise, of the same width; None for the queries, of which none is its own neighbour.
        count: at least 1; no more are returned than there are.
        device: where to compute; needs float64.
        block_cells: cosines held at once.

    Returns:
        Rows, int64 (Q, K), nearest first and the earlier row first among equals; cosines, float64 (Q, K).

    Raises:
        ValueError: as unit_rows.
    """
    gallery = unit_rows(queries_QD if gallery_GD is None else gallery_GD).to(device)
    count = min(count, len(gallery) - (gallery_GD is None))
    found = []
    for block in cosine_blocks(queries_QD, gallery, block_cells=block_cells):
        if gallery_GD is None:
            block.cosines_BG[:, block.start :].fill_diagonal_(NOWHERE)
        rows, columns = _all_pairs(block.ranked(count)[0])
        cosines = block.exact(rows.flatten(), columns.flatten()).view(columns.shape)
        found.append((columns.cpu(), cosines.cpu()))
    columns_parts, cosines_parts = zip(*found, strict=True)
    return torch.cat(columns_parts).numpy(), torch.cat(cosines_parts).numpy()


def _all_pairs(columns_BK: Tensor) -> tuple[Tensor, Tensor]:
    rows_B1 = torch.arange(len(columns_BK), device=columns_BK.device)[:, None]
    return rows_B1.expand_as(columns_BK), columns_BK


def _by_cosine_then_column(columns_RW: Tensor, cosines_RW: Tensor, count: int) -> tuple[Tensor, Tensor]:
    columns_RW, order_RW = columns_RW.sort(dim=1)
    cosines_RW, order_RW = cosines_RW.gather(1, order_RW).sort(dim=1, descending=True, stable=True)
    return columns_RW.gather(1, order_RW)[:, :count], cosines_RW[:, :count]


def _multiply(queries_BD: Tensor, gallery_GD: Tensor, *, out: Tensor) -> None:
    """Matrix product in full float32: no TF32, no autocast."""
    if out.device.type == "cpu":
        # NumPy's OpenBLAS takes a tenth less time than PyTorch's MKL for so few rows by so many.
        np.matmul(queries_BD.numpy(), gallery_GD.numpy().T, out=out.numpy())
        return
    allowed = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        with torch.autocast(out.device.type, enabled=False):
            torch.mm(queries_BD, gallery_GD.T, out=out)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = allowed
