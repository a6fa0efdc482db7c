"""The samples of texts: true pairs and false ones, nothing of the test part in the training part."""

import csv

import pytest

from hf_tasks.data import text_samples
from hf_tasks.data.docstrings import Docstring, Pair, docstring_pairs, is_held_out, read_docstrings
from hf_tasks.errors import UserError

LONG = "tells a story that is long enough to be kept, and then goes on for quite a while to say more of it"


def _docstring(module, number):
    return Docstring(module, f"Summary of the function {number}", f"Number {number} {LONG}")


@pytest.fixture
def few_docstrings(monkeypatch):
    """In place of those of the whole library: sixty functions of three modules."""
    docstrings = [_docstring(f"module{number % 3}", number) for number in range(60)]
    monkeypatch.setattr(text_samples, "read_docstrings", lambda: docstrings)
    return docstrings


def test_a_function_has_a_true_and_a_false_body_of_its_module():
    docstrings = [_docstring("one", 1), _docstring("one", 2), _docstring("two", 3), _docstring("two", 4)]

    pairs, none = docstring_pairs(docstrings, held_out=0)

    bodies = {docstring.summary: docstring.body for docstring in docstrings}
    first, second = docstrings[:2]
    assert pairs[:4] == [
        Pair(first.summary, first.body, 1),
        Pair(first.summary, second.body, 0),
        Pair(second.summary, second.body, 1),
        Pair(second.summary, first.body, 0),
    ]
    assert all((bodies[pair.text_1] == pair.text_2) == bool(pair.label) for pair in pairs)
    assert none == []


def test_texts_that_stand_twice_or_are_short_are_left_out():
    twice = _docstring("one", 1)
    short = Docstring("one", "Summary of something", "short")

    pairs, _ = docstring_pairs([twice, twice, short, _docstring("one", 2)], held_out=0)

    assert {pair.text_1 for pair in pairs} == {twice.summary, "Summary of the function 2"}
    assert len(pairs) == 4


def test_no_text_of_the_test_table_is_in_the_training_table(few_docstrings, tmp_path):
    text_samples.write_text_pairs(tmp_path / "pairs")

    tables = []
    for name in ("train", "test"):
        with (tmp_path / f"pairs/{name}.csv").open(encoding="utf-8", newline="") as file:
            tables.append(list(csv.DictReader(file)))
    train, test = ({row[name] for row in table for name in ("text_1", "text_2")} for table in tables)
    assert train
    assert test
    assert train.isdisjoint(test)
    assert {row["label"] for row in tables[1]} == {"0", "1"}


def test_a_tenth_of_the_text_is_held_out_and_nothing_is_lost(few_docstrings, tmp_path):
    text_samples.write_text(tmp_path / "text")
    before = (tmp_path / "text/train.txt").read_bytes()
    text_samples.write_text(tmp_path / "text")

    train, test = ((tmp_path / f"text/{name}.txt").read_text().splitlines() for name in ("train", "test"))
    assert sorted([*train, *test]) == sorted(f"{part.summary} {part.body}" for part in few_docstrings)
    assert all(is_held_out(line, 0.1) for line in test)
    assert not any(is_held_out(line, 0.1) for line in train)
    assert before == (tmp_path / "text/train.txt").read_bytes()


def test_a_folder_with_other_files_is_left_alone(tmp_path):
    (tmp_path / "train.txt").write_text("mine")

    with pytest.raises(UserError, match="not written by `hf-tasks sample text`"):
        text_samples.write_text(tmp_path)


@pytest.mark.slow
def test_this_machine_has_thousands_of_docstrings():
    train, test = docstring_pairs(read_docstrings(), held_out=0.2)

    assert len(train) > 10_000
    assert len(test) / (len(train) + len(test)) == pytest.approx(0.2, abs=0.03)
