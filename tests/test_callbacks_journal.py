import itertools
import json
import math
import resource

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_tasks.callbacks.journal import Bookmark, Journal, json_number, read_events
from hf_tasks.callbacks.names import original_text, tracked_name


def test_events_are_read_back_numbered_and_at_different_times(tmp_path):
    journal = Journal(tmp_path / "journal.jsonl")

    for step in range(50):
        journal.append("metrics", {"step": step})

    events = list(read_events(tmp_path / "journal.jsonl"))
    assert [event.number for event in events] == list(range(50))
    assert [event.content["step"] for event in events] == list(range(50))
    assert all(first.time < second.time for first, second in itertools.pairwise(events))


def test_a_journal_goes_on_where_it_ended(tmp_path):
    path = tmp_path / "journal.jsonl"
    for step in range(2):
        journal = Journal(path)
        journal.append("metrics", {"step": step})
        journal.close()

    events = list(read_events(path))

    assert [(event.number, event.content["step"]) for event in events] == [(0, 0), (1, 1)]
    assert list(read_events(path, events[0].end)) == events[1:]


def test_what_a_full_disk_does_not_take_goes_with_a_later_event(tmp_path):
    path = tmp_path / "journal.jsonl"
    journal = Journal(path)
    journal.append("metrics", {"step": 0})
    _, hard_limit = resource.getrlimit(resource.RLIMIT_FSIZE)

    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 20, hard_limit))
    try:
        journal.append("metrics", {"step": 1})
        journal.append("metrics", {"step": 2})
        journal.sync()
        during = [event.content["step"] for event in read_events(path)]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard_limit, hard_limit))
    journal.append("metrics", {"step": 3})

    assert during == [0]
    assert [event.content["step"] for event in read_events(path)] == [0, 1, 2, 3]
    assert journal.close() == 0


@pytest.mark.parametrize("rest", [b'{"number": 1, "ti', b"\0\0\0\n"])
def test_half_a_line_is_not_read_and_is_cut_off_when_the_journal_goes_on(tmp_path, rest):
    path = tmp_path / "journal.jsonl"
    Journal(path).append("start", {"name": "ж"})
    with path.open("ab") as file:
        file.write(rest)

    before = [event.kind for event in read_events(path)]
    Journal(path).append("status", {})

    assert before == ["start"]
    assert [event.kind for event in read_events(path)] == ["start", "status"]
    assert path.read_bytes().count(b"\n") == 2


def test_a_bookmark_remembers_what_was_tried_and_what_was_confirmed(tmp_path):
    bookmark = Bookmark.load(tmp_path / "sent.json")
    bookmark.begin(100)
    bookmark.begin(40)
    bookmark.acknowledge(40)

    loaded = Bookmark.load(tmp_path / "sent.json")

    assert (loaded.acknowledged, loaded.tried) == (40, 100)


def test_numbers_that_json_lacks_survive_it():
    values = [1.5, math.inf, -math.inf, math.nan]

    loaded = [float(value) for value in json.loads(json.dumps([json_number(value) for value in values]))]

    assert loaded[:3] == values[:3]
    assert math.isnan(loaded[3])


@given(st.text(max_size=12), st.text(max_size=12))
def test_names_are_unique_and_readable_back(first, second):
    names = tracked_name(first), tracked_name(second)

    assert [original_text(name) for name in names] == [first, second]
    assert (first == second) == (names[0] == names[1])


@given(st.lists(st.sampled_from(["_", "x", "5", "f", "_x5f_", "<", ".", "/"]), max_size=8).map("".join))
def test_texts_that_look_escaped_are_readable_back(text):
    name = tracked_name(text)

    assert original_text(name) == text
    assert name.strip(".")
    assert "/" not in name


def test_long_names_are_cut_and_stay_apart():
    names = {tracked_name("a" * 300 + str(number)) for number in range(20)}

    assert len(names) == 20
    assert {len(name) for name in names} == {100}
