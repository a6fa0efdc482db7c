"""The distance beyond which a query is refused as unknown: fitted on validation, and what it does.

A distance is 1 - cosine, in [0, 2]. A query is accepted when its nearest gallery row is within the cut-off.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hf_tasks.metrics.retrieval import QueryScores


@dataclass(frozen=True)
class Cutoff:
    """A distance, and what it was fitted on."""

    distance: float
    impostors: int
    """How many impostors it was fitted on; see impostor_distances."""
    from_unknown_queries: bool
    """Whether these were queries of unknown classes."""


def impostor_distances(scores: QueryScores) -> tuple[NDArray[np.float64], bool]:
    """Nearest distances of pictures that should be refused, and whether they are of unknown classes.

    These are the queries of unknown classes, if there are any. If not, each query stands in for one: its
    distance to the nearest row of another class is what it would be if its own were not in the gallery.
    Queries for which the gallery has no such row are not among them.
    """
    is_there_Q = np.isfinite(scores.other_class_cosine_Q)
    is_unknown_Q = is_there_Q & (scores.matches_Q == 0)
    chosen_Q = is_unknown_Q if is_unknown_Q.any() else is_there_Q
    return 1 - scores.other_class_cosine_Q[chosen_Q], bool(is_unknown_Q.any())


def fit_cutoff(scores: QueryScores, *, false_accept_rate: float | None = None) -> Cutoff:
    """The cut-off of best balanced accuracy, or the largest that keeps a false-accept rate.

    Balanced accuracy is the mean of the share of known queries that are accepted with their own class, and
    of the share of impostors that are refused. Candidates lie half-way between neighbouring distances; of
    equally good ones the smallest is taken.

    Args:
        scores: of the validation queries.
        false_accept_rate: highest share of impostors to accept, in [0, 1); None for balanced accuracy.

    Raises:
        ValueError: the gallery has a single class and there are no queries of others, so nothing to refuse.
    """
    impostors_I, from_unknown = impostor_distances(scores)
    impostors_I = np.sort(impostors_I)
    if len(impostors_I) == 0:
        raise ValueError("cut-off: no query could be taken for another class; wanted two classes at least")
    known_Q = scores.matches_Q > 0
    is_right_Q = known_Q & (scores.first_match_rank_Q == 1)
    right_R = np.sort(1 - scores.neighbour_cosines_QK[is_right_Q, 0])
    candidates_C = _candidates(np.concatenate([impostors_I, right_R]))
    false_accepts_C = np.searchsorted(impostors_I, candidates_C, side="right") / len(impostors_I)
    if false_accept_rate is not None:
        best = int(np.flatnonzero(false_accepts_C <= false_accept_rate)[-1])
    else:
        true_accepts_C = np.searchsorted(right_R, candidates_C, side="right") / max(1, known_Q.sum())
        best = int(np.argmax(true_accepts_C - false_accepts_C))
    return Cutoff(float(candidates_C[best]), len(impostors_I), from_unknown)


def figures_at_cutoff(scores: QueryScores, distance: float) -> dict[str, float]:
    """What a cut-off does to the queries.

    Returns:
        Shares of all queries: `accepted`, `rejected`, and `wrong` (accepted with a class that is not
        theirs). Where there are queries of known classes, `true_accept_rate`, the share of these that are
        accepted with their class; where there are others, `false_accept_rate`, the share that is accepted.
    """
    nearest_Q = 1 - scores.neighbour_cosines_QK[:, 0]
    is_accepted_Q = nearest_Q <= distance
    is_right_Q = scores.first_match_rank_Q == 1
    is_known_Q = scores.matches_Q > 0
    figures = {
        "accepted": is_accepted_Q.mean(),
        "rejected": (~is_accepted_Q).mean(),
        "wrong": (is_accepted_Q & ~is_right_Q).mean(),
    }
    if is_known_Q.any():
        figures["true_accept_rate"] = (is_accepted_Q & is_right_Q)[is_known_Q].mean()
    if not is_known_Q.all():
        figures["false_accept_rate"] = is_accepted_Q[~is_known_Q].mean()
    return {name: float(value) for name, value in figures.items()}


def _candidates(distances_N: NDArray[np.float64]) -> NDArray[np.float64]:
    """Below all, half-way between neighbouring ones, and the largest itself; in rising order."""
    distinct = np.unique(distances_N)
    lowest = np.nextafter(distinct[0], -np.inf)
    # Half-way between two neighbouring floats rounds to one of them; the lower one separates them as well.
    halves = np.minimum((distinct[:-1] + distinct[1:]) / 2, np.nextafter(distinct[1:], -np.inf))
    return np.concatenate([[lowest], halves, [distinct[-1]]])
