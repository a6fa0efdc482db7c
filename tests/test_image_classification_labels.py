"""Labels of every spelling, and the classes that come of them."""

import datasets
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_tasks.data.labels import (
    encode,
    read_label,
    read_labels,
    require_distinct_names,
    sort_class_names,
)
from hf_tasks.errors import DataError

WHERE = "data.train (a.csv)"
SEVERAL = [["a", "b"], [], ["b"], ["c"], ["a", "b", "c"]]


def rows_with(features=None, **columns):
    """Rows of pictures with these further columns."""
    count = len(next(iter(columns.values())))
    paths = [f"{row}.png" for row in range(count)]
    kinds = {"path": datasets.Value("string"), "row": datasets.Value("int64"), **(features or {})}
    rows = {"path": paths, "row": list(range(1, count + 1)), **columns}
    if features is not None:
        return datasets.Dataset.from_dict(rows, datasets.Features(kinds))
    return datasets.Dataset(pa.table(rows))


def read_one(features=None, **columns) -> tuple[tuple[str, ...], list[str]]:
    memberships = read_label(rows_with(features, **columns), "label", where=WHERE)
    assert memberships.rows_M.tolist() == list(range(len(columns["label"])))
    return memberships.class_names, memberships.names_M.to_pylist()


def read_several(columns, rows) -> tuple[tuple[str, ...], np.ndarray]:
    """Class names, and 0 or 1 for each row and class."""
    memberships = read_labels(rows, columns, where=WHERE)
    labels_NC = np.zeros((len(rows), len(memberships.class_names)), int)
    labels_NC[memberships.rows_M, encode(memberships, rows, memberships.class_names, where=WHERE)] = 1
    return memberships.class_names, labels_NC


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["b", "a", "b"], ("a", "b")),
        (["10", "9", "-1", "+3"], ("-1", "+3", "9", "10")),
        (["7", "007", "10"], ("007", "7", "10")),
        (["10", "9", "x"], ("10", "9", "x")),
        (["1.0", "10.0", "2.0"], ("1.0", "10.0", "2.0")),
        (["ё", "я", "Я", "z"], ("z", "Я", "я", "ё")),
        (["²", "1"], ("1", "²")),
    ],
)
def test_whole_numbers_are_sorted_by_value_and_all_else_as_text(names, expected):
    assert sort_class_names(names) == expected


@settings(deadline=None)
@given(st.lists(st.text(max_size=4) | st.integers(-999, 999).map(str), min_size=1))
def test_sorting_depends_neither_on_order_nor_on_repetition(names):
    expected = sort_class_names(names)

    assert sort_class_names(names[::-1] * 2) == expected
    assert set(expected) == set(names)
    assert len(expected) == len(set(names))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["b", " a", "b"], ["b", " a", "b"]),
        (["1.0", "2.0"], ["1.0", "2.0"]),
        ([10, 9, 10], ["10", "9", "10"]),
        ([1.0, 2.0, 10.0], ["1", "2", "10"]),
        ([1e16, 3.0], ["10000000000000000", "3"]),
        ([0.5, 2.0], ["0.5", "2"]),
        ([True, False], ["true", "false"]),
    ],
)
def test_one_class_a_row_is_read_from_texts_numbers_and_claims(values, expected):
    class_names, names = read_one(label=values)

    assert names == expected
    assert class_names == sort_class_names(expected)


def test_class_numbers_of_a_data_set_become_its_names():
    feature = datasets.ClassLabel(names=["unused", "tulip", "rose"])

    class_names, names = read_one({"label": feature}, label=[2, 1, 2])

    assert (class_names, names) == (("rose", "tulip"), ["rose", "tulip", "rose"])


@pytest.mark.parametrize(
    ("feature", "values"),
    [
        (None, ["a", "", None, " \t", "b"]),
        (None, [1.0, float("nan"), None, 2.0]),
        (None, [1, None, None, 2]),
        (datasets.ClassLabel(names=["a", "b"]), [0, -1, None, 1]),
        (datasets.Value("null"), [None] * 4),
    ],
)
def test_rows_without_a_label_are_told(feature, values):
    rows = rows_with(feature and {"label": feature}, label=values)

    with pytest.raises(DataError, match="rows without a label in column 'label': ") as refused:
        read_label(rows, "label", where=WHERE)

    first, *shown = str(refused.value).split("\n  ")
    empty = [
        row for row, value in enumerate(values, start=1) if value in ("", " \t", -1, None) or value != value
    ]
    assert (
        first
        == f"{WHERE}: rows without a label in column 'label': {len(empty)}; fill them in, or remove the rows"
    )
    assert shown == [f"row {row}, {row - 1}.png" for row in empty]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([["a"], ["b"]], r"holds lists; for several classes per picture write `columns: \{labels: label\}`"),
        ([b"a", b"b"], "holds binary; wanted texts or numbers"),
        ([{"name": "a"}], "holds struct<name: string>; wanted texts or numbers"),
    ],
)
def test_a_label_of_another_kind_is_refused(values, expected):
    with pytest.raises(DataError, match=expected):
        read_label(rows_with(label=values), "label", where=WHERE)


def test_a_missing_label_column_is_told_without_the_columns_that_every_row_has():
    with pytest.raises(
        DataError, match=r"no column 'label' in data\.train \(a\.csv\) \(it has lable\); did you"
    ):
        read_label(rows_with(lable=["a"]), "label", where=WHERE)


@pytest.mark.parametrize("name", ["path", "row"])
def test_labels_are_not_looked_for_in_columns_that_every_row_has(name):
    with pytest.raises(DataError, match=f"a column called '{name}' cannot hold labels"):
        read_label(rows_with(label=["a"]), name, where=WHERE)


SPELLINGS = {
    "whole": lambda flags: [int(flag) for flag in flags],
    "real": lambda flags: [float(flag) for flag in flags],
    "claims": lambda flags: [bool(flag) for flag in flags],
    "texts": lambda flags: [str(int(flag)) for flag in flags],
    "texts of reals": lambda flags: [str(float(flag)) for flag in flags],
    "words": lambda flags: [("FALSE", "True")[int(flag)] for flag in flags],
}


@pytest.mark.parametrize("spell", SPELLINGS.values(), ids=SPELLINGS)
def test_columns_of_zeros_and_ones_lists_and_joined_texts_say_the_same(spell):
    columns = {name: spell([name in row for row in SEVERAL]) for name in "cab"}
    rows = rows_with(**columns, tags=SEVERAL, text=["|".join(row) for row in SEVERAL])

    class_names, labels_NC = read_several(["c", "a", "b"], rows)

    assert class_names == ("a", "b", "c")
    assert labels_NC.tolist() == [[1, 1, 0], [0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]]
    for column in ("tags", "text"):
        other_names, other_NC = read_several(column, rows)
        assert (other_names, other_NC.tolist()) == (class_names, labels_NC.tolist())


def test_lists_of_numbers_of_classes_and_of_class_labels_are_understood():
    features = {"tags": datasets.List(datasets.ClassLabel(names=["rose", "tulip"])),
                "numbers": datasets.List(datasets.Value("int8"))}  # fmt: skip
    rows = rows_with(features, tags=[[1], [0, 1], None], numbers=[[10, 9], [9], []])

    assert read_several("tags", rows)[0] == ("rose", "tulip")
    assert read_several("tags", rows)[1].tolist() == [[0, 1], [1, 1], [0, 0]]
    assert read_several("numbers", rows)[0] == ("9", "10")
    assert read_several("numbers", rows)[1].tolist() == [[1, 1], [1, 0], [0, 0]]


def test_empty_parts_and_repetitions_of_joined_texts_are_nothing():
    rows = rows_with(text=["a|a", "|b|", None, "", "a||b"])

    class_names, labels_NC = read_several("text", rows)

    assert class_names == ("a", "b")
    assert labels_NC.tolist() == [[1, 0], [0, 1], [0, 0], [0, 0], [1, 1]]


def test_zeros_and_ones_must_be_nothing_else():
    values = ["1", "0", "2", "", "yes", None] + ["x"] * 9

    with pytest.raises(DataError, match="neither 0 nor 1: 13; mend them") as refused:
        read_labels(rows_with(a=values), ["a"], where=WHERE)

    lines = str(refused.value).split("\n  ")
    assert lines[1:5] == [
        "row 3, 2.png: '2'",
        "row 4, 3.png: nothing",
        "row 5, 4.png: 'yes'",
        "row 6, 5.png: nothing",
    ]
    assert (len(lines), lines[-1]) == (12, "and 3 more")


@pytest.mark.parametrize("values", [["0", "1", "1"], ["1.0", "0.0", "1.0"], ["true", "false", "TRUE"]])
def test_one_column_of_zeros_and_ones_is_to_be_named_in_a_list(values):
    with pytest.raises(
        DataError, match=r"holds only 0 and 1; for a class of that name write a list: `labels: \[a\]`"
    ):
        read_labels(rows_with(a=values), "a", where=WHERE)


@pytest.mark.parametrize("columns", [[], ["a", "a"]])
def test_label_columns_are_at_least_one_and_each_once(columns):
    with pytest.raises(DataError, match="wanted at least one column, and each once"):
        read_labels(rows_with(a=["1"]), columns, where=WHERE)


def test_every_missing_label_column_is_told():
    with pytest.raises(DataError, match="no column") as refused:
        read_labels(rows_with(class_0=["1"]), ["class_0", "class_1", "clas_0"], where=WHERE)

    assert [line.split(" in ")[0] for line in str(refused.value).splitlines()] == [
        "data.columns.labels[1]: no column 'class_1'",
        "data.columns.labels[2]: no column 'clas_0'",
    ]


def test_classes_are_numbered_by_the_training_rows_and_unknown_ones_are_told_with_their_rows():
    rows = rows_with(label=["b", "x", "a", *"yyyyyyyyyyy"])
    memberships = read_label(rows, "label", where="data.validation (b.csv)")

    known = encode(read_label(rows.select([0, 2]), "label", where=WHERE), rows, ("a", "b", "c"), where=WHERE)
    with pytest.raises(
        DataError, match=r"labels that no training row has: 12; .*; known are a, b, c"
    ) as refused:
        encode(memberships, rows, ("a", "b", "c"), where="data.validation (b.csv)")

    assert known.tolist() == [1, 0]
    lines = str(refused.value).split("\n  ")
    assert lines[1:3] == ["row 2, 1.png: 'x'", "row 4, 3.png: 'y'"]
    assert (len(lines), lines[-1]) == (12, "and 2 more")


@pytest.mark.parametrize(
    "names",
    [["a", "a "], ["\ta", "a"], ["1", "1.0"], ["-2.00", "-2"], [" 3.0", "3"], ["\u0438\u0306", "\u0439"]],
)
def test_classes_that_only_look_alike_are_told(names):
    with pytest.raises(DataError, match="write them alike") as refused:
        require_distinct_names([*names, "other"], where=WHERE)

    assert f"{names[0]!r} and {names[1]!r};" in str(refused.value)


def test_unknown_labels_that_only_look_like_known_ones_are_told_so():
    rows = rows_with(label=["a", "a "])

    with pytest.raises(
        DataError, match=r"mend them \(some differ from known ones only in spaces .*\), or add"
    ):
        encode(read_label(rows, "label", where=WHERE), rows, ("a", "b"), where=WHERE)


@pytest.mark.parametrize("names", [["a", "A"], ["1", "01"], ["1.0", "1.5"], ["v1.0", "v1"], ["a b", "ab"]])
def test_classes_that_may_be_meant_to_differ_are_taken(names):
    require_distinct_names(names, where=WHERE)
