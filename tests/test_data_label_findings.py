"""Planted faults of labels, each found and told by hand-made findings."""

import pytest

from hf_tasks.contract.examination import Finding, FoundRow
from hf_tasks.data.label_findings import LabelledRows, find_alike, find_label_faults, find_nothing, find_rare


def part(section: str, labels: list[str | None]) -> LabelledRows:
    rows = [FoundRow(section, number, f"{number}.png") for number in range(1, len(labels) + 1)]
    return LabelledRows(rows, [None if label is None else (label,) for label in labels])


def told(findings: list[Finding]) -> dict[str, list[str]]:
    return {finding.kind: finding.first(100) for finding in findings}


def test_labels_without_a_fault_have_no_finding():
    clean = part("train", ["a"] * 5 + ["b"] * 6)

    assert find_label_faults(clean, [part("validation", ["a", "b"])]) == []


def test_missing_labels_are_left_out():
    found = find_label_faults(part("train", ["a"] * 5 + [None] + ["b"] * 5))

    assert [(finding.severity, finding.kind) for finding in found] == [("error", "rows without a label")]
    assert found[0].rows == (FoundRow("train", 6, "6.png", is_left_out=True),)


def test_classes_that_read_as_no_label_are_told_and_kept():
    train = part("train", ["a"] * 5 + ["NaN"] * 5 + ["None of them"] * 5 + ["nana"] * 5)

    [found] = find_label_faults(train, [part("validation", ["a", "None of them", "nana", "NaN"])])

    assert (found.severity, found.kind) == ("warning", "labels that read as if there were none")
    assert [(row.section, row.number) for row in found.rows] == [
        *(("train", number) for number in range(6, 11)),
        ("validation", 4),
    ]
    assert not any(row.is_left_out or row.label for row in found.rows)
    assert found.rows[0].text == "6.png: 'NaN'"


@pytest.mark.parametrize("name", ["NA", "N/A", "#N/A", "<NA>", "None", "NULL", "null", "nan", " nan"])
def test_each_way_to_write_nothing_is_known(name):
    assert [finding.count for finding in find_nothing([part("train", ["a", name])])] == [1]


def test_spellings_that_look_alike_become_the_commonest_without_spaces():
    train = part("train", ["é"] * 5 + ["e\u0301"] + ["7.0"] + ["7"] * 5 + ["b "] * 6 + ["b"])

    found = find_label_faults(train)

    assert len(found) == 1
    assert found[0].severity == "error"
    changed = {(row.number, row.label, row.is_left_out) for row in found[0].rows}
    assert changed == {(6, "é", False), (7, "7", False), *((number, "b", False) for number in range(13, 19))}


def test_a_spelling_of_validation_becomes_that_of_training():
    found = find_label_faults(part("train", ["a"] * 5 + ["b"] * 5), [part("validation", ["a", "b", " b"])])

    assert [(finding.severity, len(finding.rows)) for finding in found] == [("error", 1)]
    assert (found[0].rows[0].section, found[0].rows[0].label) == ("validation", "b")


def test_spaces_around_a_label_that_has_no_twin_are_a_warning():
    [found] = find_label_faults(part("train", ["a"] * 5 + [" b"] * 5))

    assert (found.severity, found.kind) == ("warning", "labels with spaces around them")
    assert {row.label for row in found.rows} == {"b"}


def test_labels_of_validation_alone_are_left_out():
    [found] = find_label_faults(part("train", ["a"] * 5 + ["b"] * 5), [part("validation", ["a", "b", "cat"])])

    assert (found.severity, found.kind) == ("error", "labels that no training row has")
    assert found.rows == (FoundRow("validation", 3, "3.png: 'cat'", is_left_out=True),)


def test_a_case_twin_with_a_space_is_told_too():
    found = find_alike({"cat": 15, "Cat ": 14, "dog": 9})

    assert told(found) == {"classes that differ only in upper and lower case": ["'Cat ' and 'cat'"]}


def test_case_twins_and_slips_of_the_pen_are_told_with_their_counts():
    counts = {
        "Daisy": 6,
        "daisy": 20,
        "dasiy": 1,
        "rose": 9,
        "roses": 8,
        "class_1": 1,
        "class_2": 50,
        "tulp": 1,
    }

    found = told(find_alike(counts))

    assert found == {
        "classes that differ only in upper and lower case": ["'Daisy' and 'daisy'"],
        "rare classes a letter away from another": ["'dasiy' (1 rows) and 'daisy' (20)"],
    }


def test_few_rows_and_imbalance_are_told():
    found = told(find_rare({"a": 50, "b": 4, "c": 30}))

    assert found == {
        "classes with fewer than 5 training rows": ["b: 4"],
        "largest class 12 times the smallest": ["a: 50, b: 4"],
    }


def test_a_single_class_is_an_error():
    [found] = find_rare({"a": 50})

    assert (found.severity, found.kind, found.examples) == ("error", "fewer than two classes", ("a",))


def test_a_class_that_is_never_measured_is_a_note():
    [found] = find_label_faults(part("train", ["a"] * 5 + ["b"] * 5), [part("validation", ["a"])])

    assert (found.severity, found.examples) == ("note", ("b",))


def test_a_row_of_several_classes_keeps_the_others_where_one_is_renamed():
    rows = [FoundRow("train", number, str(number)) for number in range(1, 12)]
    labels = [("a",)] * 5 + [("b",)] * 5 + [("a ", "b")]

    [found] = find_label_faults(LabelledRows(rows, labels))

    assert [(row.number, row.is_left_out, row.label) for row in found.rows] == [(11, False, "a|b")]
