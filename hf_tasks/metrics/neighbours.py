"""Exact nearest neighbours by cosine, with ties broken by the order of the gallery.

Queries and gallery are compared in float32, and whatever rounding could have put into a wrong order is
compared again in float64. So the order is that of the float64 cosines of the float32 unit vectors, the
earlier gallery row first among equals, and depends neither on the size of the tiles nor on threads, process
counts or devices.

B queries of a block, Q queries, G gallery, C gallery rows of a tile, K neighbours, P pairs of a query and a
gallery row, W candidates held of each query, R rows of any kind.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hf_tasks.metrics.cosines import HELD, NOWHERE, TILE_CELLS, Block, LeftOut, cosine_blocks, unit_rows

# Cosines whose maximum is looked at before any of them.
GROUP = 64


def nearest_neighbours(
    queries_QD: Tensor | NDArray[np.floating],
    gallery_GD: Tensor | NDArray[np.floating] | None,
    *,
    count: int,
    device: torch.device | str = "cpu",
    block_cells: int = TILE_CELLS,
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
    own_Q = torch.arange(len(queries_QD), device=device)
    left_out = LeftOut(own_Q if gallery_GD is None else None)
    found = []
    for block in cosine_blocks(
        queries_QD, gallery, left_out=left_out, count=max(1, count), tile_cells=block_cells
    ):
        columns = ranked(block, max(1, count))[0][:, :count]
        rows = torch.arange(len(columns), device=columns.device)[:, None].expand_as(columns)
        cosines = block.exact(rows.flatten(), columns.flatten()).view(columns.shape)
        found.append((columns.cpu(), cosines.cpu()))
    columns_parts, cosines_parts = zip(*found, strict=True)
    return torch.cat(columns_parts).numpy(), torch.cat(cosines_parts).numpy()


def ranked(block: Block, count: int) -> tuple[Tensor, Tensor]:
    """The `count` nearest gallery rows of each query of a block, nearest first.

    Returns:
        Gallery rows, int64 (B, K), and cosines, float64 (B, K); NOWHERE behind the last pair that is not
        left out.
    """
    candidates = _Candidates(block, min(count, len(block.gallery_GD)))
    for start, cosines_BC in block.tiles():
        candidates.add(start, cosines_BC)
    return candidates.ranked()


def by_cosine_then_column(columns_BW: Tensor, cosines_BW: Tensor, count: int) -> Tensor:
    """Places of the `count` nearest, nearest first and the earlier gallery row first among equals."""
    by_column_BW = columns_BW.argsort(dim=1)
    by_cosine_BW = cosines_BW.gather(1, by_column_BW).argsort(dim=1, descending=True, stable=True)
    return by_column_BW.gather(1, by_cosine_BW)[:, :count]


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


class _Candidates:
    """The gallery rows that may be among the nearest `count` of each query, of those seen so far.

    A row is one if its cosine is above the query's floor: the `count`-th largest of some cosines seen, less
    what rounding may have done to both. So the true nearest are never lost, and few others are kept.
    """

    def __init__(self, block: Block, count: int) -> None:
        self.block = block
        self.count = count
        queries = len(block.queries_BD)
        self.floor_B1 = block.queries_BD.new_full((queries, 1), NOWHERE)
        self.held_B = torch.zeros(queries, dtype=torch.int64, device=block.queries_BD.device)
        self.values_BW = block.queries_BD.new_full((queries, 2 * count), NOWHERE)
        self.columns_BW = torch.zeros_like(self.values_BW, dtype=torch.int64)
        self.next_floor_at = 0

    def add(self, start: int, cosines_BC: Tensor) -> None:
        """Look at the next tile, whose first gallery row is `start`."""
        if start == 0:
            self._raise_floor(cosines_BC)
        columns = cosines_BC.shape[1]
        cells_P = _cells_above(cosines_BC, self.floor_B1)
        rows_P = cells_P // columns
        self._hold(rows_P, cells_P - rows_P * columns + start, cosines_BC.take(cells_P))
        if self.values_BW.shape[1] > HELD * self.count:
            self._keep_nearest()
        # A floor lasts until as many rows again are seen.
        if start + columns >= self.next_floor_at:
            self._raise_floor(self.values_BW)
            self.next_floor_at = 2 * (start + columns)

    def ranked(self) -> tuple[Tensor, Tensor]:
        """Columns and float64 cosines of the nearest, (B, K), as the function of this name."""
        columns_BK, _, cosines_BK = self._nearest()
        return columns_BK, cosines_BK

    def _nearest(self) -> tuple[Tensor, Tensor, Tensor]:
        """Columns, float32 and float64 cosines of the nearest, in their true order."""
        self._raise_floor(self.values_BW)
        width = max(self.count, int((self.values_BW > self.floor_B1).sum(dim=1).max()))
        values_BW, places_BW = self.values_BW.topk(width, dim=1)
        columns_BW = self.columns_BW.gather(1, places_BW)
        cosines_BW = _with_near_ones_exact(self.block, values_BW, columns_BW)
        order_BK = by_cosine_then_column(columns_BW, cosines_BW, self.count)
        return columns_BW.gather(1, order_BK), values_BW.gather(1, order_BK), cosines_BW.gather(1, order_BK)

    def _keep_nearest(self) -> None:
        """Drop the rest, so that a gallery of equals does not fill the memory."""
        self.columns_BW, self.values_BW, _ = self._nearest()
        self.held_B = (self.values_BW > NOWHERE).sum(dim=1)

    def _raise_floor(self, values_BW: Tensor) -> None:
        if values_BW.shape[1] < self.count:
            return
        border_B1 = _least_of_largest(values_BW, self.count)
        floor_B1 = torch.nextafter(border_B1 - self.block.tolerance, border_B1.new_tensor(NOWHERE))
        self.floor_B1 = torch.maximum(self.floor_B1, floor_B1)

    def _hold(self, rows_P: Tensor, columns_P: Tensor, values_P: Tensor) -> None:
        """Write pairs, sorted by row, behind those that their queries hold."""
        counts_B = torch.bincount(rows_P, minlength=len(self.held_B))
        ends_B = counts_B.cumsum(dim=0)
        shift_B = self.held_B - ends_B + counts_B
        self.held_B = self.held_B + counts_B
        missing = int(self.held_B.max()) - self.values_BW.shape[1]
        if missing > 0:
            room = (0, max(missing, self.count))
            self.values_BW = torch.nn.functional.pad(self.values_BW, room, value=NOWHERE)
            self.columns_BW = torch.nn.functional.pad(self.columns_BW, room)
        row_starts_B = torch.arange(len(shift_B), device=rows_P.device) * self.values_BW.shape[1]
        cells_P = torch.arange(len(rows_P), device=rows_P.device) + (shift_B + row_starts_B)[rows_P]
        self.values_BW.view(-1).scatter_(0, cells_P, values_P)
        self.columns_BW.view(-1).scatter_(0, cells_P, columns_P)


def _least_of_largest(values_BW: Tensor, count: int) -> Tensor:
    """The `count`-th largest value of each row, (B, 1)."""
    if values_BW.device.type == "cpu":
        place = values_BW.shape[1] - count
        # A fifth of the time that PyTorch takes.
        return torch.from_numpy(np.partition(values_BW.numpy(), place, axis=1)[:, place : place + 1].copy())
    return largest(values_BW, count)[0][:, -1:]


def _cells_above(cosines_BC: Tensor, floor_B1: Tensor) -> Tensor:
    """The cells of a tile, counted row by row, that are above their row's floor."""
    if cosines_BC.device.type != "cpu":
        return (cosines_BC > floor_B1).flatten().nonzero()[:, 0]
    # A third of the time that PyTorch takes.
    return torch.from_numpy(np.flatnonzero(cosines_BC.numpy() > floor_B1.numpy()))


def _with_near_ones_exact(block: Block, values_BW: Tensor, columns_BW: Tensor) -> Tensor:
    """Sorted values in float64; exact where a neighbour in the order is too near to be sure."""
    near_BV = (values_BW[:, :-1] - values_BW[:, 1:]) <= block.tolerance  # NOWHERE - NOWHERE is NaN: not near
    unsure_BW = torch.zeros_like(values_BW, dtype=torch.bool)
    unsure_BW[:, :-1] |= near_BV
    unsure_BW[:, 1:] |= near_BV
    cosines_BW = values_BW.double()
    rows_P, _ = unsure_BW.nonzero(as_tuple=True)
    if len(rows_P):
        cosines_BW[unsure_BW] = block.exact(rows_P, columns_BW[unsure_BW])
    return cosines_BW
