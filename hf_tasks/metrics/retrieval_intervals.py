"""95 % intervals of the figures of a search, over its queries; the gallery stays as it is.

Q queries.
"""

import numpy as np

from hf_tasks.metrics.bootstrap import CountedFigures, Interval, bootstrap, joined, mean_figures
from hf_tasks.metrics.retrieval import QueryScores


def retrieval_intervals(scores: QueryScores, *, distance: float) -> dict[str, Interval]:
    """An interval for each figure of average_scores and figures_at_cutoff.

    Args:
        scores: of the queries.
        distance: the cut-off, which is not fitted again in a draw.
    """
    return bootstrap(joined(_ranked(scores), _at_cutoff(scores, distance)), len(scores.matches_Q))


def _ranked(scores: QueryScores) -> CountedFigures:
    is_known_Q = scores.matches_Q > 0
    if not is_known_Q.any():
        return lambda count_Q: {}
    # Queries without a match count in no average, so their rank may be anything.
    rank_Q = np.maximum(scores.first_match_rank_Q, 1)
    columns = {f"cmc_at_{k}": scores.hits_QT[:, t] > 0 for t, k in enumerate(scores.ks)}
    columns |= {f"precision_at_{k}": scores.hits_QT[:, t] / k for t, k in enumerate(scores.ks)}
    columns["map_at_r"] = scores.average_precision_at_r_Q
    columns["r_precision"] = scores.r_precision_Q
    columns["mrr"] = 1 / rank_Q
    return mean_figures({name: column.astype(np.float64) for name, column in columns.items()}, is_known_Q)


def _at_cutoff(scores: QueryScores, distance: float) -> CountedFigures:
    is_known_Q = scores.matches_Q > 0
    is_accepted_Q = 1 - scores.neighbour_cosines_QK[:, 0] <= distance
    is_right_Q = scores.first_match_rank_Q == 1
    shares = {"accepted": is_accepted_Q, "rejected": ~is_accepted_Q, "wrong": is_accepted_Q & ~is_right_Q}
    parts = [mean_figures({name: share_Q.astype(np.float64) for name, share_Q in shares.items()})]
    if is_known_Q.any():
        taken_Q = (is_accepted_Q & is_right_Q).astype(np.float64)
        parts.append(mean_figures({"true_accept_rate": taken_Q}, is_known_Q))
    if not is_known_Q.all():
        strangers_Q = is_accepted_Q.astype(np.float64)
        parts.append(mean_figures({"false_accept_rate": strangers_Q}, ~is_known_Q))
    return joined(*parts)
