"""How two language models differ on the same blocks of text, from their tables of predictions.

Axes: N blocks.
"""

import numpy as np
import pyarrow as pa

from hf_tasks.contract.answers import Comparison, FigureDifference
from hf_tasks.errors import DataError
from hf_tasks.metrics.bootstrap import mean_figures, paired_bootstrap


def compare_tables(first: pa.Table, second: pa.Table) -> Comparison:
    """The difference of the loss a token, and which blocks each model foresees better.

    Args:
        first: what compute_predictions gave as table, or the same read from predictions.csv.
        second: of another model, on the same blocks in the same order.

    Raises:
        DataError: other tokens were predicted, as by another tokenizer.
    """
    tokens_N = first.column("tokens").to_numpy()
    if not np.array_equal(tokens_N, second.column("tokens").to_numpy()):
        raise DataError(
            "the runs predicted other tokens of the same text, so their losses cannot be compared block by "
            "block; compare bits_per_byte in metrics.json"
        )
    losses = [table.column("loss").cast(pa.float64()).to_numpy() for table in (first, second)]
    before, after = (mean_figures({"loss": losses_N}, tokens_N) for losses_N in losses)
    [found] = paired_bootstrap(before, after, len(tokens_N)).values()
    figure = FigureDifference(*map(float, (found.first, found.second, found.low, found.high)))
    before_N, after_N = losses
    return Comparison(
        {"loss": figure},
        {},
        was_right_N=before_N <= after_N,
        is_right_N=after_N <= before_N,
        outcomes=("better", "worse"),
        gain_N=before_N - after_N,
    )
