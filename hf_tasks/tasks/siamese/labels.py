"""Labels of pairs: 0 and 1, or scores between them."""

import datasets
import numpy as np

from hf_tasks.data.problems import Findings
from hf_tasks.data.texts import shown_text
from hf_tasks.errors import DataError

WORDS = {"true": 1.0, "false": 0.0, "yes": 1.0, "no": 0.0}


def read_labels(rows: datasets.Dataset, column: str, *, where: str) -> np.ndarray:
    """The labels, float32 (N,) in [0, 1]; texts such as `1`, `0.8`, `true` and `yes` are understood.

    Args:
        rows: what load_columns returned.
        column: the column of labels.
        where: section and source, as `data.train (train.csv)`, for messages.

    Raises:
        DataError: rows with another label, or with none.
    """
    kind = rows.features[column]
    if isinstance(kind, datasets.ClassLabel) and len(kind.names) > 2:
        raise DataError(
            f"data.columns.label: column '{column}' of {where} holds {len(kind.names)} classes "
            f"({', '.join(kind.names[:5])}); wanted 0 and 1, or scores in [0, 1]"
        )
    unfit = Findings(
        f"{where}: labels in column '{column}' that are neither 0, 1 nor a score between them",
        "write 1 where the texts belong together, else 0, or remove the rows; "
        "divide scores of another range by the highest",
    )
    labels = np.zeros(len(rows), np.float32)
    for row, value in enumerate(rows[column]):
        label = label_of(value)
        if label is None:
            unfit.add(f"row {row + 1}: {'nothing' if value is None else shown_text(str(value))}")
        else:
            labels[row] = label
    if unfit.count:
        raise DataError(str(unfit))
    return labels


def is_binary(labels_N: np.ndarray) -> bool:
    """Whether all labels are 0 or 1."""
    return bool(np.isin(labels_N, (0.0, 1.0)).all())


def label_of(value: object) -> float | None:
    """The label that a cell holds; None where it is neither 0, 1 nor a score between them."""
    try:
        label = WORDS.get(value.strip().lower()) if isinstance(value, str) else None
        label = float(value) if label is None else label  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return label if 0 <= label <= 1 else None
