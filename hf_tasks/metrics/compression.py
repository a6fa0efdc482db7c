"""What smaller embeddings would cost: Recall@1 with fewer dimensions, and with fewer bits a number.

N rows, D width, W fewer dimensions, Q queries, G gallery.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hf_tasks.metrics.cosines import unit_rows
from hf_tasks.metrics.retrieval import (
    NOBODY,
    Integers,
    LabelledEmbeddings,
    average_scores,
    score_queries,
)

SMALLEST_WIDTH = 32
PRECISIONS = ("fp32", "fp16", "int8", "binary")
BITS = {"fp32": 32, "fp16": 16, "int8": 8, "binary": 1}
QUERIES = 2_000

Floats = NDArray[np.floating]


def compression_table(
    queries: LabelledEmbeddings,
    gallery: LabelledEmbeddings,
    *,
    own_rows_Q: Integers | None = None,
    device: torch.device | str = "cpu",
    limit: int = QUERIES,
) -> list[dict[str, Any]]:
    """Recall@1 of the same search in smaller embeddings, a row each; the full one is first.

    Principal components and the range of int8 are those of the gallery alone: queries come later.

    Args:
        queries: what is looked for; of more than `limit`, evenly spaced ones stand for all.
        gallery: where it is looked for.
        own_rows_Q: as score_queries.
        device: where to compute.
        limit: most queries that are looked for.

    Returns:
        Rows of `dimensions`, `precision`, `bytes` of an embedding, `recall_at_1`, and the `queries` of known
        classes that were counted; empty where there are none.
    """
    own_rows_Q = np.full(len(queries.labels_N), NOBODY) if own_rows_Q is None else own_rows_Q
    chosen = np.linspace(0, len(own_rows_Q) - 1, min(limit, len(own_rows_Q))).astype(np.int64)
    groups_N = None if queries.groups_N is None else queries.groups_N[chosen]
    queries_QD, gallery_GD = (unit_rows(part.embeddings_ND).cpu().numpy() for part in (queries, gallery))
    queries_QD = queries_QD[chosen]
    sides = (LabelledEmbeddings(queries_QD, queries.labels_N[chosen], groups_N), gallery)

    def row(dimensions: int, precision: str, ours: Floats, theirs: Floats) -> dict[str, Any]:
        small = [replace(side, embeddings_ND=part) for side, part in zip(sides, (ours, theirs), strict=True)]
        scores = score_queries(*small, own_rows_Q=own_rows_Q[chosen], ks=(1,), device=device)
        figures = average_scores(scores)
        return {
            "dimensions": dimensions,
            "precision": precision,
            "bytes": -(-dimensions * BITS[precision] // 8),
            "recall_at_1": figures.get("cmc_at_1"),
            "queries": int((scores.matches_Q > 0).sum()),
        }

    width = queries_QD.shape[1]
    table = [row(width, "fp32", queries_QD, gallery_GD)]
    if not table[0]["queries"]:
        return []
    components_DD = principal_components(gallery_GD)
    for kept in smaller_widths(width):
        turn_DW = components_DD[:, :kept]
        table.append(row(kept, "fp32", queries_QD @ turn_DW, gallery_GD @ turn_DW))
    for precision in PRECISIONS[1:]:
        largest = float(np.abs(gallery_GD).max())
        ours, theirs = (quantise(rows, precision, largest=largest) for rows in (queries_QD, gallery_GD))
        table.append(row(width, precision, ours, theirs))
    return table


def smaller_widths(width: int) -> Sequence[int]:
    """Powers of two from 32 on, below the full width."""
    return [2**power for power in range(SMALLEST_WIDTH.bit_length() - 1, 31) if 2**power < width]


def principal_components(rows_ND: Floats) -> NDArray[np.float32]:
    """The axes of the rows, largest first, about the origin: cosines are about it as well; float32 (D, D)."""
    moments_DD = np.zeros((rows_ND.shape[1],) * 2)
    for start in range(0, len(rows_ND), 2**14):
        part = rows_ND[start : start + 2**14].astype(np.float64)
        moments_DD += part.T @ part
    return np.linalg.eigh(moments_DD)[1][:, ::-1].astype(np.float32)


def quantise(rows_ND: Floats, precision: str, *, largest: float) -> NDArray[np.float32]:
    """What is left of the numbers in a precision, as float32.

    Args:
        rows_ND: unit rows.
        precision: of PRECISIONS; int8 has one step size for all, and binary keeps signs.
        largest: magnitude that int8 writes as 127; larger ones are cut off there.
    """
    if precision == "fp16":
        return rows_ND.astype(np.float16).astype(np.float32)
    if precision == "int8":
        return np.clip(np.round(rows_ND * (127 / largest)), -127, 127).astype(np.float32)
    if precision == "binary":
        return np.where(rows_ND >= 0, np.float32(1), np.float32(-1))
    return rows_ND.astype(np.float32)
