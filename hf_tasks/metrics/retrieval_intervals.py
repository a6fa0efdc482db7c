"""95 % intervals of the figures of a search, over its queries; the gallery stays as it is.

They are for other queries of the same classes: queries of one class are alike, so with other classes the
figures would differ by more. Q queries.
"""

import numpy as np
from numpy.typing import NDArray

from hf_tasks.metrics.bootstrap import CountedFigures, Interval, bootstrap, joined, mean_figures
from hf_tasks.metrics.retrieval import QueryScores

Floats = NDArray[np.float64]


def retrieval_intervals(scores: QueryScores, *, distance: float) -> dict[str, Interval]:
    """An interval for each figure of average_scores and figures_at_cutoff.

    Args:
        scores: of the queries.
        distance: the cut-off, which is not fitted again in a draw.
    """
    return bootstrap(joined(_ranked(scores), _at_cutoff(scores, distance)), len(scores.matches_Q))


def _ranked(scores: QueryScores) -> CountedFigures:
    known_Q = (scores.matches_Q > 0).astype(np.float64)
    if not known_Q.any():
        return lambda count_Q: {}
    figures: dict[str, Floats] = {}
    for t, k in enumerate(scores.ks):
        hits_Q = scores.hits_QT[:, t]
        figures |= {f"cmc_at_{k}": (hits_Q > 0).astype(np.float64), f"precision_at_{k}": hits_Q / k}
    figures["map_at_r"] = scores.average_precision_at_r_Q
    figures["r_precision"] = scores.r_precision_Q
    # Queries without a match count in no average, so their rank may be anything.
    figures["mrr"] = 1 / np.maximum(scores.first_match_rank_Q, 1)
    return mean_figures(figures, known_Q)


def _at_cutoff(scores: QueryScores, distance: float) -> CountedFigures:
    known_Q = (scores.matches_Q > 0).astype(np.float64)
    is_accepted_Q = 1 - scores.neighbour_cosines_QK[:, 0] <= distance
    is_right_Q = scores.first_match_rank_Q == 1
    accepted_Q = is_accepted_Q.astype(np.float64)
    taken_Q = (is_accepted_Q & is_right_Q).astype(np.float64)
    parts = [
        mean_figures({"accepted": accepted_Q, "rejected": 1 - accepted_Q, "wrong": accepted_Q - taken_Q})
    ]
    if known_Q.any():
        parts.append(mean_figures({"true_accept_rate": taken_Q}, known_Q))
    if not known_Q.all():
        parts.append(mean_figures({"false_accept_rate": accepted_Q}, 1 - known_Q))
    return joined(*parts)
