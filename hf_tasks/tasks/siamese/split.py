"""A validation part of text pairs in which no text of the training part stands.

Axes: N rows, K texts a row, G groups of rows that hang together by shared texts, S strata.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from hf_tasks.errors import DataError


def grouped_split(
    texts_NK: Sequence[Sequence[str]], strata_N: np.ndarray, *, fraction: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Which rows are for validation, and which group each row belongs to.

    Rows that share a text, directly or through others, are one group and stay on one side. Groups are
    tried in the order of a hash of seed and text, so the order of the rows plays no part; one is taken when
    it brings the counts of the strata nearer to the fraction without passing it. Where each passes it, the
    smallest is taken.

    Args:
        texts_NK: the texts of each row.
        strata_N: stratum of each row, int in [0, S); each keeps its share on both sides, as far as groups
            allow.
        fraction: part for validation, in (0, 1).
        seed: another seed draws other groups.

    Returns:
        bool (N,) and int (N,).

    Raises:
        DataError: no group can be taken: the rows hang together.
    """
    groups_N = text_groups(texts_NK)
    count = int(groups_N.max()) + 1
    counts_GS = np.zeros((count, int(strata_N.max()) + 1), np.int64)
    np.add.at(counts_GS, (groups_N, strata_N), 1)
    missing_S = counts_GS.sum(axis=0) * fraction
    is_taken_G = np.zeros(count, bool)
    for group in _drawn_order(texts_NK, groups_N, seed):
        after_S = missing_S - counts_GS[group]
        if after_S.sum() >= 0 and np.abs(after_S).sum() < np.abs(missing_S).sum():
            is_taken_G[group], missing_S = True, after_S
    if not is_taken_G.any():
        is_taken_G[counts_GS.sum(axis=1).argmin()] = True
    if is_taken_G.all():
        largest = int(counts_GS.sum(axis=1).max())
        raise DataError(
            f"data.validation: no {fraction:g} of {len(groups_N)} rows can be split off without a text on "
            f"both sides: {largest} rows hang together by shared texts; name a source for validation"
        )
    return is_taken_G[groups_N], groups_N


def text_groups(texts_NK: Sequence[Sequence[str]]) -> np.ndarray:
    """The group of each row, int (N,) in [0, G): rows with a text in common are in the same one."""
    numbers: dict[str, int] = {}
    nodes = [[numbers.setdefault(text, len(numbers)) for text in texts] for texts in texts_NK]
    rows, texts = len(nodes), len(numbers)
    row_of_edge = np.repeat(np.arange(rows), [len(row) for row in nodes])
    text_of_edge = np.concatenate([np.asarray(row) for row in nodes]) + rows
    edges = coo_array((np.ones(len(row_of_edge), bool), (row_of_edge, text_of_edge)), (rows + texts,) * 2)
    return np.unique(connected_components(edges, directed=False)[1][:rows], return_inverse=True)[1]


def _drawn_order(texts_NK: Sequence[Sequence[str]], groups_N: np.ndarray, seed: int) -> np.ndarray:
    """Groups by the smallest hash of their texts."""
    drawn_G = np.full(int(groups_N.max()) + 1, np.iinfo(np.uint64).max, np.uint64)
    hashes_N = np.array([min(_draw(seed, text) for text in texts) for texts in texts_NK], np.uint64)
    np.minimum.at(drawn_G, groups_N, hashes_N)
    return np.argsort(drawn_G, kind="stable")


def _draw(seed: int, text: str) -> int:
    return int.from_bytes(hashlib.blake2b(f"{seed}\0{text}".encode(), digest_size=8).digest(), "big")
