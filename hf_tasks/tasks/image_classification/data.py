"""The rows of an image classification run: loaded, labelled, looked at, split.

Axes: N rows, C classes, M memberships (a row and one of its classes).
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa

from hf_tasks.data.folders import list_class_folders
from hf_tasks.data.inspect import require_pictures
from hf_tasks.data.labels import Memberships, encode, read_label, read_labels, require_distinct_names
from hf_tasks.data.load import load_rows
from hf_tasks.data.sources import FolderSource, Source, source_name
from hf_tasks.errors import DataError
from hf_tasks.images.decode import require_readable
from hf_tasks.tasks.image_classification.settings import Columns, Settings
from hf_tasks.tasks.image_classification.split import memberships_of, stratified_split


@dataclass(frozen=True)
class ClassificationSplits:
    """Rows to train on and to validate with; train is None where a saved model is only measured.

    The rows have `image` (datasets.Image, not decoded), `path` (text for people), `row` (from 1, in their
    source), and `label` (int64 class number), or `labels` (C float32, each 0 or 1) for several classes.
    `facts` hold JSON values only.
    """

    train: datasets.Dataset | None
    validation: datasets.Dataset
    class_names: tuple[str, ...]
    is_multilabel: bool
    facts: dict[str, Any]

    def head(self, rows: int) -> "ClassificationSplits":
        """The first rows of both splits, for a trial; the facts stay those of all rows."""
        train, validation = (
            None if split is None else split.select(range(min(rows, len(split))))
            for split in (self.train, self.validation)
        )
        return replace(self, train=train, validation=validation)

    def labels(self, rows: datasets.Dataset) -> np.ndarray:
        """The labels of one of the splits: int64 class numbers (N,), or float32 0 and 1 (N, C)."""
        name = "labels" if self.is_multilabel else "label"
        column = rows.select_columns([name]).with_format("arrow")[:].column(name)
        if not self.is_multilabel:
            return column.to_numpy()
        parts = [chunk.flatten().to_numpy().reshape(-1, len(self.class_names)) for chunk in column.chunks]
        return np.concatenate(parts)


@dataclass(frozen=True)
class _Labelled:
    """Rows with their label column, the same labels as an array, and the pictures' sizes in bytes."""

    rows: datasets.Dataset
    labels: np.ndarray
    sizes_N: np.ndarray

    def part(self, is_in_N: np.ndarray) -> "_Labelled":
        indices = np.flatnonzero(is_in_N)
        return _Labelled(self.rows.select(indices), self.labels[indices], self.sizes_N[indices])


def prepare_splits(settings: Settings) -> ClassificationSplits:
    """Both splits of a recipe, with every label and picture checked.

    The classes are those of the training rows, in the order of sort_class_names; names that a Hub data set
    declares but no training row has are none. A fraction is split off as stratified_split says.

    Raises:
        DataError: rows, labels or pictures are not usable; pictures of both splits are told together.
    """
    data, is_multilabel = settings.data, settings.data.columns.labels is not None
    rows, memberships = _read(data.train, data.columns, key="data.train")
    where = _where(data.train, "data.train")
    class_names = memberships.class_names
    _require_learnable(memberships, is_multilabel=is_multilabel, where=where)
    labelled = {where: _label(rows, memberships, class_names, is_multilabel=is_multilabel, where=where)}
    if not isinstance(data.validation, float):
        where = _where(data.validation, "data.validation")
        rows, memberships = _read(data.validation, data.columns, key="data.validation")
        labelled[where] = _label(rows, memberships, class_names, is_multilabel=is_multilabel, where=where)
    train, *others = _inspect(labelled)
    if isinstance(data.validation, float):
        is_validation_N = _draw_validation(train, data.validation, data.split_seed)
        train, validation = train.part(~is_validation_N), train.part(is_validation_N)
    else:
        [validation] = others
    facts = _facts(settings, train, validation, class_names)
    return ClassificationSplits(train.rows, validation.rows, class_names, is_multilabel, facts)


def prepare_rows(
    source: Source, columns: Columns, *, class_names: Sequence[str], is_multilabel: bool, key: str = "data"
) -> datasets.Dataset:
    """Rows of another source, labelled with the classes of a model that is trained already.

    Args:
        source: where the rows come from.
        columns: as for training; `labels` must be set just when the model is for several classes.
        class_names: the model's classes, in the order of their numbers.
        is_multilabel: whether the model is for several classes per picture.
        key: recipe section of the source, for messages.

    Returns:
        Rows with the columns that ClassificationSplits describes.

    Raises:
        DataError: rows, labels or pictures are not usable, or the columns do not fit the model.
    """
    if is_multilabel != (columns.labels is not None):
        wanted = "labels" if is_multilabel else "label"
        raise DataError(f"data.columns: the model was trained with `{wanted}`; name the column as `{wanted}`")
    rows, memberships = _read(source, columns, key=key)
    where = _where(source, key)
    labelled = _label(rows, memberships, class_names, is_multilabel=is_multilabel, where=where)
    return _inspect({where: labelled})[0].rows


def _where(source: Source, key: str) -> str:
    return f"{key} ({source_name(source)})"


def _read(source: Source, columns: Columns, *, key: str) -> tuple[datasets.Dataset, Memberships]:
    rows = load_rows(source, key=key, image_column=columns.image)
    where = _where(source, key)
    if columns.labels is not None:
        return rows, read_labels(rows, columns.labels, where=where)
    # A class folder's name is its label, whatever the column is called in a table beside it.
    column = "label" if isinstance(source, FolderSource) else columns.label
    return rows, read_label(rows, column, where=where)


def _require_learnable(memberships: Memberships, *, is_multilabel: bool, where: str) -> None:
    class_names = memberships.class_names
    require_distinct_names(class_names, where=where)
    if not is_multilabel and len(class_names) < 2:
        raise DataError(f"{where}: '{class_names[0]}' is the only class; wanted at least two to tell apart")
    occurring = set(memberships.names_M.unique().to_pylist())
    absent = [name for name in class_names if name not in occurring]
    if absent or not class_names:
        raise DataError(
            f"{where}: classes without a positive row: {', '.join(absent) or 'all'}; "
            "add rows of them, or leave them out"
        )


def _label(
    rows: datasets.Dataset,
    memberships: Memberships,
    class_names: Sequence[str],
    *,
    is_multilabel: bool,
    where: str,
) -> _Labelled:
    classes_M = encode(memberships, rows, class_names, where=where)
    rows = rows.select_columns(["image", "path", "row"])
    sizes_N = np.zeros(len(rows), np.int64)
    if not is_multilabel:
        return _Labelled(rows.add_column("label", pa.array(classes_M)), classes_M, sizes_N)
    labels_NC = np.zeros((len(rows), len(class_names)), np.float32)
    labels_NC[memberships.rows_M, classes_M] = 1
    column = pa.FixedSizeListArray.from_arrays(pa.array(labels_NC.ravel()), len(class_names))
    return _Labelled(rows.add_column("labels", column), labels_NC, sizes_N)


def _inspect(labelled: dict[str, _Labelled]) -> list[_Labelled]:
    """The parts, each by where it comes from, with their pictures' sizes; all problems raised together."""
    inspected, problems = [], []
    for where, part in labelled.items():
        try:
            sizes_N = require_pictures(part.rows, require_readable, where=where)
        except DataError as error:
            problems.append(str(error))
        else:
            inspected.append(replace(part, sizes_N=sizes_N))
    if problems:
        raise DataError("\n".join(problems))
    return inspected


def _draw_validation(whole: _Labelled, fraction: float, seed: int) -> np.ndarray:
    is_validation_N = stratified_split(whole.rows["path"][:], whole.labels, fraction=fraction, seed=seed)
    if not is_validation_N.any():
        raise DataError(
            f"data.validation: no row of {len(whole.rows)} can be split off: one picture a class; "
            "add pictures, or name a source for validation"
        )
    return is_validation_N


def _facts(
    settings: Settings, train: _Labelled, validation: _Labelled, class_names: Sequence[str]
) -> dict[str, Any]:
    data = settings.data
    parts: dict[str, dict[str, Any]] = {
        name: {"rows": len(part.rows), "rows_per_class": _rows_per_class(part, class_names)}
        for name, part in (("train", train), ("validation", validation))
    }
    per_class = parts["validation"]["rows_per_class"]
    sources = {"train": data.train, "validation": data.validation}
    return {
        "classes": list(class_names),
        **parts,
        "classes_not_in_validation": [name for name, count in per_class.items() if count == 0],
        "classes_with_one_training_row": [
            name for name, count in parts["train"]["rows_per_class"].items() if count == 1
        ],
        "sources": {
            name: {"fraction": source, "split_seed": data.split_seed}
            if isinstance(source, float)
            else source.model_dump()
            for name, source in sources.items()
        },
        "ignored_files": {
            name: list_class_folders(Path(source.folder).expanduser(), key=f"data.{name}").ignored
            for name, source in sources.items()
            if isinstance(source, FolderSource)
        },
        "skipped": [],
        "fingerprint": _fingerprint((train, validation), class_names),
    }


def _rows_per_class(part: _Labelled, class_names: Sequence[str]) -> dict[str, int]:
    counts_C = np.bincount(memberships_of(part.labels)[1], minlength=len(class_names))
    return dict(zip(class_names, counts_C.tolist(), strict=True))


def _fingerprint(parts: Sequence[_Labelled], class_names: Sequence[str]) -> str:
    """A hash over path texts, classes and file sizes in the order of the rows, alike on every machine."""
    digest = hashlib.sha256("\n".join(class_names).encode())
    for part in parts:
        digest.update(b"\n")
        digest.update(part.labels.tobytes())
        digest.update(part.sizes_N.tobytes())
        digest.update("\n".join(part.rows["path"][:]).encode())
    return digest.hexdigest()
