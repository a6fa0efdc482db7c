"""How two models differ on the same labelled pairs, from their tables of predictions.

Axes: N pairs.
"""

import numpy as np
import pyarrow as pa

from hf_tasks.contract.answers import Comparison, FigureDifference
from hf_tasks.errors import DataError
from hf_tasks.metrics.bootstrap import CountedFigures, joined, paired_bootstrap, ranking_figures
from hf_tasks.metrics.pair_intervals import decided_pair_figures
from hf_tasks.tasks.siamese.labels import is_binary


def compare_tables(first: pa.Table, second: pa.Table) -> Comparison:
    """Differences of accuracy, precision, recall, F1, rankings; which pairs were and are called rightly.

    Args:
        first: what compute_predictions gave as table, or the same read from predictions.csv.
        second: of another model, on the same pairs in the same order.

    Raises:
        DataError: pairs without labels, or with scores as labels, for which nothing is right or wrong.
    """
    if "label" not in first.column_names:
        raise DataError("pairs without labels cannot be compared; wanted labels of 0 and 1")
    labels_N = _numbers(first, "label")
    if not is_binary(labels_N):
        raise DataError("labels that are scores cannot be compared; wanted labels of 0 and 1")
    called = [_numbers(table, "predicted") for table in (first, second)]
    before, after = (
        _figures(labels_N, called_N, _numbers(table, "score"))
        for called_N, table in zip(called, (first, second), strict=True)
    )
    found = paired_bootstrap(before, after, len(labels_N))
    figures = {
        name: FigureDifference(*map(float, (value.first, value.second, value.low, value.high)))
        for name, value in found.items()
    }
    was_right_N, is_right_N = (called_N == labels_N for called_N in called)
    return Comparison(figures, {}, was_right_N, is_right_N)


def _figures(labels_N: np.ndarray, called_N: np.ndarray, scores_N: np.ndarray) -> CountedFigures:
    return joined(
        decided_pair_figures(labels_N > 0, called_N > 0),
        ranking_figures(scores_N[:, None], labels_N[:, None]),
    )


def _numbers(table: pa.Table, name: str) -> np.ndarray:
    return table.column(name).cast(pa.float64()).to_numpy()
