"""How two classifiers differ on the same validation examples, from their tables of predictions.

Legend of axes: N examples, C classes.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from hf_tasks.contract.answers import Comparison, FigureDifference
from hf_tasks.data.labels import sort_class_names
from hf_tasks.data.load import load_rows
from hf_tasks.errors import DataError
from hf_tasks.images.decode import load_rgb
from hf_tasks.metrics.intervals import Answers, paired_intervals
from hf_tasks.tasks.image_classification.settings import Settings

PREFIX = "probability_"


def compare_tables(first: pa.Table, second: pa.Table) -> Comparison:
    """Differences of all figures that both tables allow, and which examples were and are right.

    Rankings (top 5, average precision, ROC-AUC) need a column for each class, which tables of more than 20
    classes lack.

    Args:
        first: what compute_predictions gave as table, or the same read from predictions.csv.
        second: of another model, on the same examples in the same order.
    """
    is_multilabel = "probability" not in first.column_names
    tables = (first, second)
    class_names = _class_names(tables, is_multilabel=is_multilabel)
    labels = _encode(first.column("true").to_pylist(), class_names, is_multilabel=is_multilabel)
    before, after = (_answers(table, class_names, is_multilabel=is_multilabel) for table in tables)
    found = paired_intervals(before, after, labels, classes=len(class_names))
    f1 = found.pop("f1")
    rows = zip(f1.first.tolist(), f1.second.tolist(), f1.low.tolist(), f1.high.tolist(), strict=True)
    was_right, is_right = (
        (answers.decisions == labels).reshape(len(labels), -1).all(axis=1) for answers in (before, after)
    )
    figures = {
        name: FigureDifference(*map(float, (value.first, value.second, value.low, value.high)))
        for name, value in found.items()
        if not np.isnan(value.low)
    }
    per_class = {name: FigureDifference(*row) for name, row in zip(class_names, rows, strict=True)}
    return Comparison(figures, per_class, was_right, is_right)


def find_pictures(settings: Settings) -> Callable[[str], Image.Image]:
    """Open the rows that validation examples come from; pictures are then loaded by the path in the table.

    Raises:
        DataError: the rows cannot be read any more; a picture cannot.
    """
    data = settings.data
    source, key = data.validation, "data.validation"
    if isinstance(source, float):
        source, key = data.train, "data.train"
    rows = load_rows(source, key=key, image_column=data.columns.image, allow_outside=data.allow_outside)
    places = {path: place for place, path in enumerate(rows["path"])}

    def load_picture(path: str) -> Image.Image:
        if path not in places:
            raise DataError(f"{key}: no row of {path} any more; it was there when the run was trained")
        return load_rgb(rows[places[path]]["image"])

    return load_picture


def _class_names(tables: Sequence[pa.Table], *, is_multilabel: bool) -> tuple[str, ...]:
    names: set[str] = set()
    for table in tables:
        names |= {name.removeprefix(PREFIX) for name in _probability_columns(table)}
        for column in ("true", "predicted"):
            for text in table.column(column).unique().to_pylist():
                names |= set(_split(text, is_multilabel=is_multilabel))
    return sort_class_names(list(names))


def _probability_columns(table: pa.Table) -> list[str]:
    """A column for each class; none in a table that has only the highest five."""
    if "class_1" in table.column_names:
        return []
    return [name for name in table.column_names if name.startswith(PREFIX)]


def _split(text: str, *, is_multilabel: bool) -> list[str]:
    return [name for name in text.split("|") if name] if is_multilabel else [text]


def _encode(texts: Sequence[str], class_names: Sequence[str], *, is_multilabel: bool) -> np.ndarray:
    numbers = {name: number for number, name in enumerate(class_names)}
    if not is_multilabel:
        return np.array([numbers[text] for text in texts])
    encoded_NC = np.zeros((len(texts), len(class_names)), np.int64)
    for row, text in enumerate(texts):
        for name in _split(text, is_multilabel=True):
            encoded_NC[row, numbers[name]] = 1
    return encoded_NC


def _answers(table: pa.Table, class_names: Sequence[str], *, is_multilabel: bool) -> Answers:
    decisions = _encode(table.column("predicted").to_pylist(), class_names, is_multilabel=is_multilabel)
    names = [PREFIX + name for name in class_names]
    probabilities_NC: Any = None
    if set(names) == set(_probability_columns(table)):
        probabilities_NC = np.stack([table.column(name).to_numpy() for name in names], axis=1)
    return Answers(decisions, table.column("loss").to_numpy(), probabilities_NC)
