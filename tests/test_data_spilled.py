"""Numbers on disk hold what an array in memory would, and rows chosen by them are those of `select`."""

import datasets
import numpy as np
import pytest

from hf_tasks.data.spilled import Spilled, parts_of, select_rows, sorted_numbers

pytestmark = pytest.mark.usefixtures("own_cache")


def spilled(*parts, dtype=np.uint64):
    numbers = Spilled(dtype)
    for part in parts:
        numbers.add(np.array(part))
    return numbers.mapped()


def test_parts_stand_one_after_the_other():
    numbers = spilled([3, 1], [], [2**63 + 1])

    assert numbers.tolist() == [3, 1, 2**63 + 1]
    assert isinstance(numbers, np.memmap)


def test_no_numbers_are_an_empty_array():
    assert spilled([]).tolist() == []


def test_sorting_leaves_the_numbers_as_they_are():
    numbers = spilled([5, 2], [9, 2])

    ascending = sorted_numbers(numbers)

    assert ascending.tolist() == [2, 2, 5, 9]
    assert numbers.tolist() == [5, 2, 9, 2]


def test_parts_are_the_whole():
    parts = parts_of(np.arange(10), size=4)

    assert [part.tolist() for part in parts] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_selected_rows_are_those_of_select():
    rows = datasets.Dataset.from_dict({"text": [f"text {number}" for number in range(50)]})
    numbers = np.array([3, 49, 0, 17], np.uint64)

    selected = select_rows(rows, numbers)

    assert selected["text"][:] == rows.select([3, 49, 0, 17])["text"][:]
    assert selected.select([1, 2])["text"][:] == ["text 49", "text 0"]
    assert [batch["text"] for batch in selected.iter(3)] == [["text 3", "text 49", "text 0"], ["text 17"]]


def test_other_rows_have_another_fingerprint():
    rows = datasets.Dataset.from_dict({"text": ["a", "b", "c"]})

    first, second = (select_rows(rows, np.array(chosen, np.uint64)) for chosen in ([0, 1], [0, 2]))

    assert first._fingerprint != second._fingerprint


def test_rows_of_a_selection_are_counted_within_it():
    rows = datasets.Dataset.from_dict({"text": [*"abcdef"]}).select([5, 0, 3, 4])

    assert select_rows(rows, np.array([3, 1, 0], np.uint64))["text"][:] == ["e", "a", "f"]
