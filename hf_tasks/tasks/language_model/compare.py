"""How two language models differ on the same blocks of text, from their tables of predictions.

Axes: N blocks, G documents or blocks that are drawn.
"""

import math

import numpy as np
import pyarrow as pa

from hf_tasks.contract.answers import Comparison, FigureDifference
from hf_tasks.errors import DataError
from hf_tasks.metrics.bootstrap import mean_figures, paired_bootstrap


def compare_tables(first: pa.Table, second: pa.Table) -> Comparison:
    """The difference of the loss a token, and which blocks each model foresees better.

    Its interval is over documents, as in language_intervals; of a single one there is none.

    Args:
        first: what compute_predictions gave as table, or the same read from predictions.csv.
        second: of another model, on the same blocks in the same order.

    Raises:
        DataError: other tokens were predicted, as by another tokenizer; or a table names no documents.
    """
    if "document" not in first.column_names:
        raise DataError(
            "predictions.csv of the first run has no column 'document', which runs of earlier versions lack; "
            "train it again"
        )
    tokens_N = first.column("tokens").to_numpy()
    if not np.array_equal(tokens_N, second.column("tokens").to_numpy()):
        raise DataError(
            "the runs predicted other tokens of the same text, so their losses cannot be compared block by "
            "block; compare bits_per_byte in metrics.json"
        )
    before_N, after_N = (table.column("loss").cast(pa.float64()).to_numpy() for table in (first, second))
    return Comparison(
        {"loss": _difference(before_N, after_N, tokens_N, first.column("document").to_numpy())},
        {},
        was_right_N=before_N <= after_N,
        is_right_N=after_N <= before_N,
        outcomes=("better", "worse"),
        gain_N=before_N - after_N,
    )


def _difference(
    before_N: np.ndarray, after_N: np.ndarray, tokens_N: np.ndarray, documents_N: np.ndarray
) -> FigureDifference:
    group_N = np.unique(documents_N, return_inverse=True)[1]
    tokens_G = np.bincount(group_N, tokens_N).astype(np.float64)
    before, after = (
        mean_figures({"loss": np.bincount(group_N, losses_N * tokens_N) / np.maximum(tokens_G, 1)}, tokens_G)
        for losses_N in (before_N, after_N)
    )
    [found] = paired_bootstrap(before, after, len(tokens_G)).values()
    ends = (found.low, found.high) if len(tokens_G) > 1 else (math.nan, math.nan)
    return FigureDifference(*map(float, (found.first, found.second, *ends)))
