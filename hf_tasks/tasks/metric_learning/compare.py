"""How two embedding networks differ on the same queries, from their tables of predictions.

Axes: Q queries.
"""

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from hf_tasks.contract.answers import Comparison, FigureDifference
from hf_tasks.errors import DataError
from hf_tasks.images.decode import load_rgb
from hf_tasks.metrics.bootstrap import CountedFigures, joined, mean_figures, paired_bootstrap
from hf_tasks.tasks.metric_learning.data import prepare_validation
from hf_tasks.tasks.metric_learning.settings import Settings


def compare_tables(first: pa.Table, second: pa.Table) -> Comparison:
    """Differences of `cmc_at_1`, `mrr` and `accuracy`, and which queries were and are answered rightly.

    A query is answered rightly when it is accepted with its own class, or refused where the gallery has none
    of its class; `accuracy` is the share of these.

    Args:
        first: what compute_predictions gave as table, or the same read from predictions.csv.
        second: of another network, on the same queries in the same order.

    Raises:
        DataError: the galleries hold other classes.
    """
    is_known_Q = first.column("is_known").to_numpy()
    if not np.array_equal(is_known_Q, second.column("is_known").to_numpy()):
        raise DataError("the galleries of the two runs hold other classes; wanted the same data.gallery")
    was_right_Q, is_right_Q = (_is_right(table, is_known_Q) for table in (first, second))
    before = _figures(first, was_right_Q, is_known_Q)
    after = _figures(second, is_right_Q, is_known_Q)
    figures = {
        name: FigureDifference(*map(float, (found.first, found.second, found.low, found.high)))
        for name, found in paired_bootstrap(before, after, len(is_known_Q)).items()
        if not np.isnan(found.low)
    }
    return Comparison(figures, {}, was_right_Q, is_right_Q)


def find_pictures(settings: Settings) -> Callable[[str], Image.Image]:
    """Open the validation rows; pictures of queries are then loaded by the path in the table.

    Raises:
        DataError: the rows cannot be read any more; a picture cannot.
    """
    rows = prepare_validation(settings, None).validation
    places = {path: place for place, path in enumerate(rows["path"])}

    def load_picture(path: str) -> Image.Image:
        if path not in places:
            raise DataError(f"{path}: no such query any more; it was there when the run was trained")
        return load_rgb(rows[places[path]]["image"])

    return load_picture


def _is_right(table: pa.Table, is_known_Q: np.ndarray) -> np.ndarray:
    is_own_Q = pc.fill_null(pc.equal(table.column("predicted"), table.column("true")), False).to_numpy()
    is_accepted_Q = table.column("is_accepted").to_numpy()
    return np.where(is_known_Q, is_own_Q & is_accepted_Q, ~is_accepted_Q)


def _figures(table: pa.Table, right_Q: np.ndarray, is_known_Q: np.ndarray) -> CountedFigures:
    rank_Q = pc.fill_null(table.column("match_rank").cast(pa.float64()), np.inf).to_numpy()
    ranked = {"cmc_at_1": (rank_Q == 1).astype(np.float64), "mrr": 1 / rank_Q}
    return joined(mean_figures({"accuracy": right_Q.astype(np.float64)}), mean_figures(ranked, is_known_Q))
