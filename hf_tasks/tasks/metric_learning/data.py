"""The rows of a metric-learning run: training classes, and queries with the gallery they are looked for in.

Axes: N rows.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hf_tasks.data.columns import require_columns
from hf_tasks.data.inspect import require_pictures
from hf_tasks.data.labels import (
    Memberships,
    encode,
    read_label,
    read_labels,
    sort_class_names,
    unusable_labels,
)
from hf_tasks.data.load import load_rows
from hf_tasks.data.problems import Problems
from hf_tasks.data.skipping import without_bad_pictures
from hf_tasks.data.sources import FolderSource, Source, source_name
from hf_tasks.errors import DataError
from hf_tasks.images.decode import require_readable
from hf_tasks.metrics.retrieval import NOBODY, count_matches
from hf_tasks.tasks.metric_learning.own_pictures import (
    first_in_gallery,
    number_pictures,
    own_gallery_rows,
    require_one_class_each,
)
from hf_tasks.tasks.metric_learning.settings import Columns, Settings

NO_GROUP = -1
TRIAL_ROWS_AT_ONCE = 4


@dataclass(frozen=True)
class RetrievalSplits:
    """Rows to train on, and rows to look for and in; train is None where a saved model is only measured.

    Training rows have `image` (datasets.Image, not decoded), `path` (text for people), `row` (from 1, in
    their source) and `label` (int64, the place in `class_names`). Validation rows have the same, where
    `label` is the place in `validation_names`, and `is_query`, `is_gallery` (bool), `group` (int64, NO_GROUP
    for none) and `picture` (int64, the same for the same file). A picture is in the gallery once for a class
    and group.
    `facts` hold JSON values only.
    """

    train: datasets.Dataset | None
    validation: datasets.Dataset
    class_names: tuple[str, ...]
    validation_names: tuple[str, ...]
    facts: Mapping[str, Any]

    def head(self, rows: int) -> "RetrievalSplits":
        """A few rows of a few classes of both splits, for a trial; the facts stay those of all rows."""
        train = None if self.train is None else _few_of_each_class(self.train, rows, parts=())
        validation = _few_of_each_class(self.validation, rows, parts=("is_query", "is_gallery"))
        return replace(self, train=train, validation=validation)


@dataclass(frozen=True)
class _Part:
    """Rows of one source with their class names, and the sizes of the pictures in bytes."""

    rows: datasets.Dataset
    memberships: Memberships
    sizes_N: np.ndarray


def prepare_splits(settings: Settings) -> RetrievalSplits:
    """Both splits of a recipe, with every label and picture checked.

    Raises:
        DataError: rows, labels or pictures are not usable, or no query has a match in the gallery; pictures
            of all sources are told together.
    """
    data = settings.data
    sources = {"data.train": data.train, **_validation_sources(settings)}
    parts, skipped = _inspect(sources, settings)
    train = parts.pop("data.train")
    class_names = train.memberships.class_names
    if len(class_names) < 2:
        raise DataError(
            f"data.train ({source_name(data.train)}): '{class_names[0]}' is the only class; "
            "wanted at least two to tell apart"
        )
    validation, validation_names = _join_validation(parts, data.columns)
    train_rows = _labelled(train, class_names, where="data.train")
    facts = _facts(sources, train, parts, class_names=class_names, validation=validation)
    facts["skipped"] = skipped
    if settings.batches is not None:
        few = [
            name
            for name, rows in facts["train"]["rows_per_class"].items()
            if rows < settings.batches.pictures
        ]
        facts["classes_that_repeat_pictures_in_a_batch"] = few
    return RetrievalSplits(train_rows, validation, class_names, validation_names, facts)


def prepare_validation(settings: Settings, source: Source | None) -> RetrievalSplits:
    """Rows to measure a saved model on: those of the recipe, or one other set that serves as both sides.

    Raises:
        DataError: as prepare_splits.
    """
    sources = _validation_sources(settings) if source is None else {"data.validation": source}
    parts, _ = _inspect(sources, settings)
    validation, names = _join_validation(parts, settings.data.columns)
    return RetrievalSplits(None, validation, (), names, {})


def _validation_sources(settings: Settings) -> dict[str, Source]:
    data = settings.data
    found = {"data.gallery": data.gallery, "data.query": data.query, "data.validation": data.validation}
    return {key: source for key, source in found.items() if source is not None}


def _inspect(
    sources: Mapping[str, Source], settings: Settings
) -> tuple[dict[str, _Part], list[dict[str, Any]]]:
    """Rows of each source with labels and sizes, and those skipped; all problems are raised together."""
    columns, parts, problems, skipped = settings.data.columns, {}, Problems(), list[dict[str, Any]]()
    for key, source in sources.items():
        where = f"{key} ({source_name(source)})"
        # A class folder's name is its label, whatever the column is called in a table beside it.
        column = "label" if isinstance(source, FolderSource) else columns.label
        with problems.noted():
            rows = load_rows(
                source, key=key, image_column=columns.image, allow_outside=settings.data.allow_outside
            )
            if settings.on_bad_example == "skip":
                reasons = unusable_labels(rows, [], column, where=where)
                section = key.removeprefix("data.")
                rows, more = without_bad_pictures(rows, reasons, require_readable, section=section)
                skipped += more
            memberships = None
            with problems.noted():
                memberships = read_label(rows, column, where=where, problems=problems)
            sizes_N = require_pictures(rows, require_readable, where=where)
            if memberships is not None:
                parts[key] = _Part(rows, memberships, sizes_N)
    problems.raise_all()
    return parts, skipped


def _join_validation(
    parts: Mapping[str, _Part], columns: Columns
) -> tuple[datasets.Dataset, tuple[str, ...]]:
    """The rows of gallery and queries in one data set, and their classes."""
    names = sort_class_names([name for part in parts.values() for name in part.memberships.class_names])
    joined = []
    for key, part in parts.items():
        is_query_N, is_gallery_N = _sides(key, part, columns)
        groups = _groups(key, part, columns)
        rows = _labelled(part, names, where=key)
        rows = rows.add_column("is_query", pa.array(is_query_N))
        rows = rows.add_column("is_gallery", pa.array(is_gallery_N))
        joined.append(rows.add_column("group_name", groups))
    validation = _number_groups(datasets.concatenate_datasets(joined))
    validation = validation.add_column("picture", pa.array(number_pictures(validation)))
    require_one_class_each(validation, names)
    is_first_N = first_in_gallery(validation)
    validation = validation.remove_columns("is_gallery").add_column("is_gallery", pa.array(is_first_N))
    _require_matches(validation)
    return validation, names


def _labelled(part: _Part, class_names: Sequence[str], *, where: str) -> datasets.Dataset:
    classes_N = encode(part.memberships, part.rows, class_names, where=where)
    return part.rows.select_columns(["image", "path", "row"]).add_column("label", pa.array(classes_N))


def _sides(key: str, part: _Part, columns: Columns) -> tuple[np.ndarray, np.ndarray]:
    """Which rows are queries, and which are in the gallery."""
    everything_N, nothing_N = np.ones(len(part.rows), bool), np.zeros(len(part.rows), bool)
    if key == "data.gallery":
        return nothing_N, everything_N
    if key == "data.query":
        return everything_N, nothing_N
    named = {"is_query": columns.is_query, "is_gallery": columns.is_gallery}
    there = [name for name, column in named.items() if column in part.rows.column_names]
    if not there:
        return everything_N, everything_N
    if len(there) == 1:
        missing = next(name for name in named if name not in there)
        raise DataError(
            f"data.columns.{missing}: no column '{named[missing]}' in {key}, beside '{named[there[0]]}'; "
            "wanted both, or neither for one set that serves as both"
        )
    sides = []
    for column in named.values():
        flags = read_labels(part.rows, [column], where=key)
        flags_N = nothing_N.copy()
        flags_N[flags.rows_M] = True
        sides.append(flags_N)
    return sides[0], sides[1]


def _groups(key: str, part: _Part, columns: Columns) -> pa.Array:
    """Group of each row as text, null for none."""
    if columns.group is None:
        return pa.nulls(len(part.rows), pa.string())
    require_columns({"data.columns.group": columns.group}, part.rows.column_names, where=key)
    table = part.rows.select_columns([columns.group]).with_format("arrow")[:]
    names = table.column(columns.group).cast(pa.string())
    return pc.if_else(pc.equal(names, ""), pa.scalar(None, pa.string()), names).combine_chunks()


def _number_groups(validation: datasets.Dataset) -> datasets.Dataset:
    names = validation.with_format("arrow")[:].column("group_name").combine_chunks()
    names = names if isinstance(names, pa.Array) else pa.concat_arrays(names.chunks)
    numbers = names.dictionary_encode().indices.fill_null(NO_GROUP).cast(pa.int64())
    numbers = pa.concat_arrays(numbers.chunks) if isinstance(numbers, pa.ChunkedArray) else numbers
    return validation.remove_columns("group_name").add_column("group", numbers)


def _require_matches(validation: datasets.Dataset) -> None:
    labels_N = np.asarray(validation["label"][:])
    is_query_N, is_gallery_N = (np.asarray(validation[name][:]) for name in ("is_query", "is_gallery"))
    for name, is_in_N in (("query", is_query_N), ("gallery", is_gallery_N)):
        if not is_in_N.any():
            raise DataError(f"data.columns.is_{name}: no row is in the {name}; wanted at least one")
    groups_N = np.asarray(validation["group"][:])
    sides = {
        "has_own_row_Q": own_gallery_rows(validation)[is_query_N] != NOBODY,
        "groups_Q": groups_N[is_query_N],
        "groups_G": groups_N[is_gallery_N],
    }
    beyond = "in the gallery" if (groups_N == NO_GROUP).all() else "in the gallery beyond its own group"
    matches_Q = count_matches(labels_N[is_query_N], labels_N[is_gallery_N], **sides)
    if not matches_Q.any():
        raise DataError(
            f"data: no query has another picture of its class {beyond}, so nothing can be measured; "
            "wanted the same class names on both sides"
        )
    if len(np.unique(labels_N[is_gallery_N])) < 2:
        raise DataError("data: the gallery holds one class; wanted two at least, to tell apart")
    one_label_N = np.zeros_like(labels_N)
    rows_there_Q = count_matches(one_label_N[is_query_N], one_label_N[is_gallery_N], **sides)
    if (rows_there_Q == matches_Q).all():
        raise DataError(f"data: no query has a picture of another class {beyond}; wanted one, to tell apart")


def _few_of_each_class(rows: datasets.Dataset, count: int, *, parts: Sequence[str]) -> datasets.Dataset:
    """About `count` rows: four of each class and side, class by class, then four more of each, and so on."""
    labels_N = np.asarray(rows["label"][:])
    sides_N = np.zeros(len(rows), np.int64)
    for name in parts:
        sides_N = 2 * sides_N + np.asarray(rows[name][:])
    keys_N = labels_N * (sides_N.max() + 1) + sides_N
    order = np.argsort(keys_N, kind="stable")
    starts = np.r_[0, np.flatnonzero(np.diff(keys_N[order])) + 1]
    ranks_N = np.empty(len(rows), np.int64)
    ranks_N[order] = np.arange(len(rows)) - np.repeat(starts, np.diff(np.r_[starts, len(rows)]))
    sides_of_C = np.array([len(np.unique(sides_N[labels_N == label])) for label in range(labels_N.max() + 1)])
    # Classes that are on all sides come first, so that a trial has matches to measure.
    chosen = np.lexsort((keys_N, -sides_of_C[labels_N], ranks_N // TRIAL_ROWS_AT_ONCE))[:count]
    return rows.select(np.sort(chosen))


def _facts(
    sources: Mapping[str, Source],
    train: _Part,
    parts: Mapping[str, _Part],
    *,
    class_names: Sequence[str],
    validation: datasets.Dataset,
) -> dict[str, Any]:
    names_M = np.asarray(train.memberships.names_M.to_pylist())
    unseen = {name for part in parts.values() for name in part.memberships.class_names} - set(class_names)
    digest = hashlib.sha256()
    for part in (train, *parts.values()):
        digest.update("\n".join(part.memberships.names_M.to_pylist()).encode())
        digest.update(part.sizes_N.tobytes())
        digest.update("\n".join(part.rows["path"][:]).encode())
    return {
        "classes": list(class_names),
        "train": {
            "rows": len(train.rows),
            "rows_per_class": {name: int((names_M == name).sum()) for name in class_names},
        },
        "validation": {
            "rows": len(validation),
            "queries": int(np.sum(validation["is_query"][:])),
            "gallery": int(np.sum(validation["is_gallery"][:])),
            "classes": len(set(validation["label"][:])),
            "classes_not_in_training": sorted(unseen),
        },
        "sources": {key.removeprefix("data."): source.model_dump() for key, source in sources.items()},
        "fingerprint": digest.hexdigest(),
    }
