"""Planted duplicates, each told once."""

from hf_tasks.contract.examination import FoundRow
from hf_tasks.data.duplicate_findings import find_duplicates

ROWS = [FoundRow("train", number, f"t{number}") for number in range(1, 7)]
ROWS += [FoundRow("validation", number, f"v{number}") for number in range(1, 5)]


def test_rows_of_different_content_have_no_finding():
    assert find_duplicates(ROWS, list(range(10)), ["x"] * 10, what="pictures") == []


def test_nothing_is_equal_to_a_content_that_is_not_known():
    assert find_duplicates(ROWS, [None] * 10, what="pictures") == []


def test_a_row_without_a_label_is_in_no_dispute():
    assert find_duplicates(ROWS[:3], ["a", "a", "b"], [("cat",), None, ("dog",)], what="pictures") == []


def test_the_first_row_stays_of_a_repeated_content():
    [found] = find_duplicates(ROWS, ["a", "b", "a", "c", "a", "d", "e", "f", "g", "h"], what="texts")

    assert (found.severity, found.kind, found.count) == ("warning", "texts that stand there again", 2)
    assert found.first(2) == ["train row 3, t3 = train row 1, t1", "train row 5, t5 = train row 1, t1"]
    assert all(row.is_left_out for row in found.rows)


def test_training_rows_are_left_out_where_the_measure_has_the_same():
    contents = ["a", "b", "c", "d", "e", "a", "a", "a", "f", "g"]

    leak, again = find_duplicates(ROWS, contents, what="pictures")

    assert leak.kind == "the same pictures to train on and to measure on"
    assert [(row.section, row.number) for row in leak.rows] == [("train", 1), ("train", 6)]
    assert [(row.section, row.number) for row in again.rows] == [("validation", 2)]


def test_every_row_of_a_content_with_different_labels_is_left_out():
    contents = ["a", "a", "b", "c", "d", "e", "a", "f", "g", "h"]
    labels = [("cat",), ("dog",), *[("cat",)] * 8]

    [found] = find_duplicates(ROWS, contents, labels, what="pictures")

    assert found.kind == "the same pictures with different labels"
    assert found.first(1) == ["train row 1, t1 (cat) = train row 2, t2"]
    assert [(row.section, row.number) for row in found.rows] == [
        ("train", 1), ("train", 2), ("validation", 1)
    ]  # fmt: skip
