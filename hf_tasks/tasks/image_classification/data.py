"""The rows of an image classification run: loaded, labelled, looked at, split.

Axes: N rows, C classes, M memberships (a row and one of its classes).
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa

from hf_tasks.data.folders import list_class_folders
from hf_tasks.data.inspect import require_pictures
from hf_tasks.data.labels import (
    Memberships,
    encode,
    read_label,
    read_labels,
    require_distinct_names,
    unusable_labels,
)
from hf_tasks.data.load import load_rows
from hf_tasks.data.problems import Problems
from hf_tasks.data.skipping import without_bad_pictures
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
class _Part:
    """Rows of one source with their classes, and the pictures' sizes in bytes, empty if some are unusable."""

    where: str
    rows: datasets.Dataset
    memberships: Memberships
    sizes_N: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))


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
        DataError: rows, labels or pictures are not usable; all problems of both splits together.
    """
    data, is_multilabel = settings.data, settings.data.columns.labels is not None
    problems = Problems()
    skipped = list[dict[str, Any]]() if settings.on_bad_example == "skip" else None
    read_part = partial(
        _read, columns=data.columns, problems=problems, skipped=skipped, allow_outside=data.allow_outside
    )
    read = [read_part(data.train, key="data.train")]
    if not isinstance(data.validation, float):
        known = None if read[0] is None else read[0].memberships.class_names
        read.append(read_part(data.validation, key="data.validation", class_names=known))
    parts = [part for part in read if part is not None]
    class_names: tuple[str, ...] = ()
    # Without the training rows nothing can be said of the classes of others.
    if read[0] is not None:
        class_names = read[0].memberships.class_names
        with problems.noted():
            _require_learnable(read[0].memberships, is_multilabel=is_multilabel, where=read[0].where)
        _note_unknown(parts, class_names, problems)
    problems.raise_all()
    train, *others = [_label(part, class_names, is_multilabel=is_multilabel) for part in parts]
    if isinstance(data.validation, float):
        is_validation_N = _draw_validation(train, data.validation, data.split_seed)
        train, validation = train.part(~is_validation_N), train.part(is_validation_N)
    else:
        [validation] = others
    facts = {**_facts(settings, train, validation, class_names), "skipped": skipped or []}
    return ClassificationSplits(train.rows, validation.rows, class_names, is_multilabel, facts)


def prepare_rows(
    source: Source,
    columns: Columns,
    *,
    class_names: Sequence[str],
    is_multilabel: bool,
    key: str = "data",
    skips: bool = False,
    allow_outside: bool = False,
) -> datasets.Dataset:
    """Rows of another source, labelled with the classes of a model that is trained already.

    Args:
        source: where the rows come from.
        columns: as for training; `labels` must be set just when the model is for several classes.
        class_names: the model's classes, in the order of their numbers.
        is_multilabel: whether the model is for several classes per picture.
        key: recipe section of the source, for messages.
        skips: leave out rows that cannot be used.
        allow_outside: take pictures that lie outside the folder that the source names.

    Returns:
        Rows with the columns that ClassificationSplits describes.

    Raises:
        DataError: rows, labels or pictures are not usable, or the columns do not fit the model.
    """
    if is_multilabel != (columns.labels is not None):
        wanted = "labels" if is_multilabel else "label"
        raise DataError(f"data.columns: the model was trained with `{wanted}`; name the column as `{wanted}`")
    problems = Problems()
    skipped = list[dict[str, Any]]() if skips else None
    part = _read(
        source,
        columns,
        key=key,
        problems=problems,
        skipped=skipped,
        allow_outside=allow_outside,
        class_names=class_names,
    )
    _note_unknown([] if part is None else [part], class_names, problems)
    problems.raise_all()
    assert part is not None
    return _label(part, class_names, is_multilabel=is_multilabel).rows


def _read(
    source: Source,
    columns: Columns,
    *,
    key: str,
    problems: Problems,
    skipped: list[dict[str, Any]] | None,
    allow_outside: bool,
    class_names: Sequence[str] | None = None,
) -> _Part | None:
    """The rows of a source with classes and sizes; None where its problems leave no rows or classes.

    Rows that cannot be used, such as those of other classes than the ones given, are put into `skipped`
    where it is a list, instead of being problems.
    """
    where, part = f"{key} ({source_name(source)})", None
    with problems.noted():
        rows = load_rows(source, key=key, image_column=columns.image, allow_outside=allow_outside)
        if skipped is not None:
            column = _label_column(source, columns)
            reasons = unusable_labels(rows, columns.labels or [], column, class_names, where=where)
            section = key.removeprefix("data.")
            rows, more = without_bad_pictures(rows, reasons, require_readable, section=section)
            skipped += more
        with problems.noted():
            part = _Part(where, rows, _memberships(rows, source, columns, where=where, problems=problems))
        sizes_N = require_pictures(rows, require_readable, where=where)
        part = part and replace(part, sizes_N=sizes_N)
    return part


def _memberships(
    rows: datasets.Dataset, source: Source, columns: Columns, *, where: str, problems: Problems
) -> Memberships:
    if columns.labels is not None:
        return read_labels(rows, columns.labels, where=where)
    return read_label(rows, _label_column(source, columns), where=where, problems=problems)


def _label_column(source: Source, columns: Columns) -> str:
    """A class folder's name is its label, whatever the column is called in a table beside it."""
    return "label" if isinstance(source, FolderSource) else columns.label


def _note_unknown(parts: Sequence[_Part], class_names: Sequence[str], problems: Problems) -> None:
    for part in parts:
        with problems.noted():
            encode(part.memberships, part.rows, class_names, where=part.where)


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


def _label(part: _Part, class_names: Sequence[str], *, is_multilabel: bool) -> _Labelled:
    memberships = part.memberships
    classes_M = encode(memberships, part.rows, class_names, where=part.where)
    rows, sizes_N = part.rows.select_columns(["image", "path", "row"]), part.sizes_N
    if not is_multilabel:
        return _Labelled(rows.add_column("label", pa.array(classes_M)), classes_M, sizes_N)
    labels_NC = np.zeros((len(rows), len(class_names)), np.float32)
    labels_NC[memberships.rows_M, classes_M] = 1
    column = pa.FixedSizeListArray.from_arrays(pa.array(labels_NC.ravel()), len(class_names))
    return _Labelled(rows.add_column("labels", column), labels_NC, sizes_N)


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
