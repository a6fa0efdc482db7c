"""Labels as the rows hold them: texts, numbers, lists or 0/1 columns, turned into class numbers.

Axes: N rows, C classes, M memberships (a row and one of its classes).
"""

import re
import unicodedata
from collections.abc import Collection, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import NoReturn

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hf_tasks.data.cleaning import places_without
from hf_tasks.data.columns import require_columns, require_free_names
from hf_tasks.data.problems import SHOWN, Findings, Problems
from hf_tasks.errors import DataError

PRESENT = pa.array(["1", "1.0", "true"])
ABSENT = pa.array(["0", "0.0", "false"])
# Differences between two names that the eye passes over.
UNSEEN = "spaces around them, '.0' or Unicode form (NFC, NFD)"


@dataclass(frozen=True)
class Memberships:
    """Which row is of which class; the class names in the order of their numbers."""

    rows_M: np.ndarray
    names_M: pa.Array
    class_names: tuple[str, ...]


def sort_class_names(names: Sequence[str]) -> tuple[str, ...]:
    """The distinct names: by value if all are whole numbers, else as text."""
    distinct = set(names)
    if all(re.fullmatch(r"[+-]?[0-9]{1,18}", name) for name in distinct):
        return tuple(sorted(distinct, key=lambda name: (int(name), name)))
    return tuple(sorted(distinct))


def read_label(
    rows: datasets.Dataset, column: str, *, where: str, problems: Problems | None = None
) -> Memberships:
    """One class per row, from a column of texts, whole numbers, true / false, or ClassLabel numbers.

    Texts stay as they are written, spaces included. Only classes that occur are listed.

    Args:
        rows: what load_rows returned.
        column: the column of classes.
        where: section and source, as `data.train (train.csv)`, for messages.
        problems: notes rows without a label, which are left out then; None raises.

    Raises:
        DataError: there is no such column, it holds something else, or rows have no label.
    """
    texts = label_texts(rows, column, where=where)
    empty = np.flatnonzero(pc.is_null(texts))
    labelled_M = np.flatnonzero(pc.is_valid(texts))
    if len(empty):
        kind = f"{where}: rows without a label in column '{column}'"
        with nullcontext() if problems is None else problems.noted():
            refuse_rows(rows, empty, kind=kind, advice="fill them in, or remove the rows")
        texts = texts.drop_null()
    return Memberships(labelled_M, texts, sort_class_names(pc.unique(texts).to_pylist()))


def label_texts(rows: datasets.Dataset, column: str, *, where: str) -> pa.Array:
    """The label of each row as text, null where there is none; the arguments are those of read_label.

    Raises:
        DataError: there is no such column, or it holds something else.
    """
    _require_labels({"data.columns.label": column}, rows, where=where)
    if isinstance(rows.features[column], datasets.List | datasets.LargeList):
        raise DataError(
            f"data.columns.label: column '{column}' of {where} holds lists; for several classes per picture "
            f"write `columns: {{labels: {column}}}`"
        )
    return _texts(_values(rows, column), rows.features[column], column=column, where=where)


def read_labels(rows: datasets.Dataset, columns: Sequence[str] | str, *, where: str) -> Memberships:
    """Any number of classes per row.

    Args:
        rows: what load_rows returned.
        columns: a list of 0/1 columns, each a class (0, 1, 0.0, 1.0, true and false are understood), or the
            one column of lists or of texts like `a|b`, where nothing stands for no class.
        where: section and source, as `data.train (train.csv)`, for messages.

    Raises:
        DataError: a column is not there or holds something else, or classes are named twice.
    """
    if isinstance(columns, str):
        _require_labels({"data.columns.labels": columns}, rows, where=where)
        return _from_lists(rows, columns, where=where)
    _require_labels({f"data.columns.labels[{i}]": name for i, name in enumerate(columns)}, rows, where=where)
    if not columns or len(set(columns)) < len(columns):
        raise DataError(f"data.columns.labels: {list(columns)}; wanted at least one column, and each once")
    class_names = sort_class_names(columns)
    present_CN = [_present(rows, name, where=where) for name in class_names]
    rows_M = np.concatenate([np.flatnonzero(present_N) for present_N in present_CN])
    classes_M = np.repeat(np.arange(len(class_names)), [present_N.sum() for present_N in present_CN])
    return Memberships(rows_M, pa.array(class_names).take(pa.array(classes_M)), class_names)


def read_fit_labels(
    rows: datasets.Dataset, columns: Sequence[str] | str, *, where: str
) -> tuple[Memberships, dict[int, str]]:
    """As read_labels, without rows whose cell is neither 0 nor 1; those by place, from 0, with what it holds.

    Raises:
        DataError: there is no such column, or classes are named twice.
    """
    if isinstance(columns, str):
        return read_labels(rows, columns, where=where), {}
    _require_labels({f"data.columns.labels[{i}]": name for i, name in enumerate(columns)}, rows, where=where)
    unfit: dict[int, str] = {}
    for column in columns:
        texts = _texts(_values(rows, column), rows.features[column], column=column, where=where)
        is_fit = pc.is_in(pc.utf8_lower(texts), value_set=pa.concat_arrays([PRESENT, ABSENT]))
        for place in np.flatnonzero(~is_fit.to_numpy(zero_copy_only=False)).tolist():
            text = texts[place].as_py()
            unfit.setdefault(place, f"column '{column}': {'nothing' if text is None else repr(text)}")
    if not unfit:
        return read_labels(rows, columns, where=where), {}
    fit_N = np.array(places_without(len(rows), unfit), np.int64)
    found = read_labels(rows.select(fit_N), columns, where=where)
    return replace(found, rows_M=fit_N[found.rows_M]), unfit


def unusable_labels(
    rows: datasets.Dataset,
    columns: Sequence[str] | str,
    column: str,
    class_names: Collection[str] | None = None,
    *,
    where: str,
) -> dict[int, str]:
    """By place, from 0, why the label of a row cannot be used: it is missing, or of none of the classes.

    Args:
        rows: what load_rows returned.
        columns: as for read_labels; empty for one class per row.
        column: of the class, then.
        class_names: classes there are; None takes all that occur.
        where: section and source, for messages.

    Raises:
        DataError: as read_label and read_labels, but for rows without a label.
    """
    pairs: Iterable[tuple[int, str | None]]
    reasons: dict[int, str] = {}
    if columns:
        memberships, reasons = read_fit_labels(rows, columns, where=where)
        pairs = zip(memberships.rows_M.tolist(), memberships.names_M.to_pylist(), strict=True)
    else:
        pairs = enumerate(label_texts(rows, column, where=where).to_pylist())
    for place, name in pairs:
        if name is None:
            reasons[place] = "no label"
        elif class_names is not None and name not in class_names:
            reasons[place] = f"label {name!r}, which no training row has"
    return reasons


def require_distinct_names(class_names: Sequence[str], *, where: str) -> None:
    """Check that no class is written in two ways that look alike.

    Raises:
        DataError: names differ only in what UNSEEN names.
    """
    spellings: dict[str, list[str]] = {}
    for name in class_names:
        spellings.setdefault(bare_name(name), []).append(repr(name))
    alike = [" and ".join(names) for names in spellings.values() if len(names) > 1]
    if alike:
        raise DataError(
            f"{where}: classes that differ only in {UNSEEN}: {', '.join(alike[:SHOWN])}; write them alike"
        )


def bare_name(name: str) -> str:
    """The name in one Unicode form, without spaces around it, and without the `.0` that pandas adds."""
    return re.sub(r"^([+-]?[0-9]+)\.0+$", r"\1", unicodedata.normalize("NFC", name).strip())


def encode(
    memberships: Memberships, rows: datasets.Dataset, class_names: Sequence[str], *, where: str
) -> np.ndarray:
    """The class number of each membership, int64 (M,).

    Args:
        memberships: of these rows.
        rows: for messages.
        class_names: the classes of the training rows, in the order of their numbers.
        where: section and source, for messages.

    Raises:
        DataError: rows have a class that is not among the names.
    """
    classes_M = pc.index_in(memberships.names_M, value_set=pa.array(class_names))
    unknown = np.flatnonzero(pc.is_null(classes_M))
    if len(unknown):
        known = ", ".join(class_names[:SHOWN]) + (", ..." if len(class_names) > SHOWN else "")
        cores = {bare_name(name) for name in class_names}
        names = pc.unique(memberships.names_M.take(pa.array(unknown))).to_pylist()
        hint = f" (some differ from known ones only in {UNSEEN})" if cores & {*map(bare_name, names)} else ""
        refuse_rows(
            rows,
            memberships.rows_M[unknown],
            kind=f"{where}: labels that no training row has",
            advice=f"mend them{hint}, or add such rows to the training data; known are {known}",
            found=memberships.names_M.take(pa.array(unknown[:SHOWN])).to_pylist(),
        )
    return classes_M.to_numpy().astype(np.int64)


def refuse_rows(
    rows: datasets.Dataset, indices: np.ndarray, *, kind: str, advice: str, found: Sequence[str | None] = ()
) -> NoReturn:
    """Raise a DataError that counts these rows and shows the first ten, with what was found in each."""
    shown = rows.select_columns(["row", "path"]).select(indices[:SHOWN])
    texts = [repr(text) if text is not None else "nothing" for text in found] or [""] * len(shown)
    lines = [
        f"row {row['row']}, {row['path']}" + (f": {text}" if text else "")
        for row, text in zip(shown, texts, strict=False)
    ]
    raise DataError(str(Findings(kind, advice, count=len(indices), first=lines)))


def _require_labels(wanted: dict[str, str], rows: datasets.Dataset, *, where: str) -> None:
    require_free_names(wanted, where=where)
    others = [name for name in rows.column_names if name not in ("image", "path", "row")]
    require_columns(wanted, others, where=where)


def _values(rows: datasets.Dataset, column: str) -> pa.Array:
    table = rows.select_columns([column]).with_format("arrow")[:]
    values = table.column(column).combine_chunks()
    return pa.concat_arrays(values.chunks) if isinstance(values, pa.ChunkedArray) else values


def _texts(values: pa.Array, feature: object, *, column: str, where: str) -> pa.Array:
    """Labels as text, null where there is none but white space."""
    kind = values.type
    if isinstance(feature, datasets.ClassLabel):
        # datasets writes -1 where a test set hides its labels.
        numbers = pc.if_else(pc.greater_equal(values, 0), values, pa.scalar(None, kind))
        return pa.array(feature.names, pa.string()).take(numbers)
    if pa.types.is_floating(kind):
        values = _whole_if_all_are(pc.if_else(pc.is_nan(values), pa.scalar(None, kind), values))
    elif not (_is_textual(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind)):
        raise DataError(f"data.columns: column '{column}' of {where} holds {kind}; wanted texts or numbers")
    texts = values.cast(pa.string())
    return pc.if_else(pc.equal(pc.utf8_trim_whitespace(texts), ""), pa.scalar(None, pa.string()), texts)


def _is_textual(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind)


def _whole_if_all_are(values: pa.Array) -> pa.Array:
    """Floats as integers where nothing is lost: pandas writes 1.0 for 1 once a column has a gap."""
    try:
        return values.cast(pa.int64())
    except pa.ArrowInvalid:
        return values


def _present(rows: datasets.Dataset, column: str, *, where: str) -> np.ndarray:
    texts = _texts(_values(rows, column), rows.features[column], column=column, where=where)
    lower = pc.utf8_lower(texts)
    present = pc.is_in(lower, value_set=PRESENT).to_numpy(zero_copy_only=False)
    absent = pc.is_in(lower, value_set=ABSENT).to_numpy(zero_copy_only=False)
    wrong = np.flatnonzero(~(present | absent))
    if len(wrong):
        refuse_rows(
            rows,
            wrong,
            kind=f"{where}: rows whose column '{column}' is neither 0 nor 1",
            advice="mend them",
            found=texts.take(pa.array(wrong[:SHOWN])).to_pylist(),
        )
    return present


def _from_lists(rows: datasets.Dataset, column: str, *, where: str) -> Memberships:
    values, feature = _values(rows, column), rows.features[column]
    if isinstance(feature, datasets.List | datasets.LargeList):
        feature = feature.feature
    elif _is_textual(values.type):
        texts = values.cast(pa.string())
        if pc.all(pc.is_in(pc.utf8_lower(texts), value_set=pa.concat_arrays([PRESENT, ABSENT]))).as_py():
            raise DataError(
                f"data.columns.labels: column '{column}' of {where} holds only 0 and 1; for a class of that "
                f"name write a list: `labels: [{column}]`"
            )
        values = pc.split_pattern(texts, "|")
    else:
        raise DataError(
            f"data.columns.labels: column '{column}' of {where} holds {values.type}; wanted lists of classes "
            "or texts like 'a|b', or name a list of 0/1 columns"
        )
    names_M = _texts(pc.list_flatten(values), feature, column=column, where=where)
    rows_M = pc.list_parent_indices(values).to_numpy()
    named = pc.is_valid(names_M)
    names_M, rows_M = names_M.filter(named), rows_M[named.to_numpy(zero_copy_only=False)]
    return Memberships(rows_M, names_M, sort_class_names(pc.unique(names_M).to_pylist()))
