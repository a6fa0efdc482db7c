"""A validation part of the training rows: stratified, and the same on every machine.

Axes: N rows, G groups of rows with one picture, C classes, S strata.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
import pandas as pd


def stratified_split(paths: Sequence[str], labels: np.ndarray, *, fraction: float, seed: int) -> np.ndarray:
    """Which rows are for validation, bool (N,).

    Rows are drawn by a hash of seed and path, so the order of the rows plays no part, a row that is added
    later moves hardly any other, and rows with the same path are on the same side. Strata are the classes;
    with several classes per row, their combinations, those that occur once put together. At least one row of
    each class stays for training.

    Args:
        paths: of the N pictures, as the table wrote them.
        labels: class numbers, int (N,), or 0 and 1 for each class, (N, C).
        fraction: part for validation, in (0, 1); kept as nearly as whole rows allow, but at least one row.
        seed: another seed draws other rows.

    Returns:
        All False when every row is the only one of its class.
    """
    groups_N, distinct = pd.factorize(np.asarray(paths, dtype=object))
    strata_G = _strata(_labels_of_groups(groups_N, labels))
    draws_G = np.array([_draw(seed, path) for path in distinct], np.uint64)
    counts_S = np.bincount(strata_G)
    order_G = np.lexsort((draws_G, strata_G))
    places_G = np.empty_like(order_G)
    places_G[order_G] = np.arange(len(order_G)) - np.repeat(np.cumsum(counts_S) - counts_S, counts_S)
    is_validation_N = (places_G < _shares(counts_S, fraction)[strata_G])[groups_N]
    return _keep_every_class(is_validation_N, groups_N, draws_G, labels)


def memberships_of(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows and classes, a pair for each class of each row; labels as for stratified_split."""
    if labels.ndim == 1:
        return np.arange(len(labels)), labels
    rows_M, classes_M = np.nonzero(labels)
    return rows_M, classes_M


def _draw(seed: int, path: str) -> int:
    return int.from_bytes(hashlib.blake2b(f"{seed}\0{path}".encode(), digest_size=8).digest(), "big")


def _labels_of_groups(groups_N: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Of rows with one picture, the first of their classes by number; or all of their classes."""
    rows_by_group = pd.DataFrame(labels).groupby(groups_N)
    if labels.ndim == 1:
        return rows_by_group.min().to_numpy()[:, 0]
    return rows_by_group.max().to_numpy()


def _strata(labels: np.ndarray) -> np.ndarray:
    if labels.ndim == 1:
        return np.unique(labels, return_inverse=True)[1]
    packed = np.packbits(labels.astype(bool), axis=1)
    strata, counts = np.unique(packed, axis=0, return_inverse=True, return_counts=True)[1:]
    rare = counts[strata.ravel()] == 1
    return np.unique(np.where(rare, -1, strata.ravel()), return_inverse=True)[1]


def _shares(counts_S: np.ndarray, fraction: float) -> np.ndarray:
    """Groups to take from each stratum: its quota rounded down, the rest to the largest remainders."""
    quotas_S = counts_S * fraction
    shares_S = quotas_S.astype(np.int64)
    wanted = max(1, int(counts_S.sum() * fraction + 0.5))
    can_give = np.flatnonzero(shares_S < counts_S - 1)
    by_remainder = can_give[np.argsort(-(quotas_S - shares_S)[can_give], kind="stable")]
    shares_S[by_remainder[: max(0, wanted - shares_S.sum())]] += 1
    return shares_S


def _keep_every_class(
    is_validation_N: np.ndarray, groups_N: np.ndarray, draws_G: np.ndarray, labels: np.ndarray
) -> np.ndarray:
    """Give back to training the first picture drawn of each class that would be left with none there."""
    rows_M, classes_M = memberships_of(labels)
    kept = is_validation_N.copy()
    for lost in np.setdiff1d(classes_M, classes_M[~is_validation_N[rows_M]]):
        groups = groups_N[rows_M[classes_M == lost]]
        kept[groups_N == groups[draws_G[groups].argmin()]] = False
    return kept
