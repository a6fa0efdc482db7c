"""Files are whole or not there."""

from pathlib import Path

import pytest

from hf_tasks.files import write_text, written_aside


def write_half(target: Path) -> None:
    with written_aside(target) as aside:
        aside.write_text("half")
        raise OSError("no room")


def test_a_file_is_replaced_only_when_the_new_one_is_whole(tmp_path):
    target = tmp_path / "new" / "answers.csv"
    write_text(target, "old")

    with pytest.raises(OSError, match="no room"):
        write_half(target)

    assert target.read_text() == "old"
    assert [path.name for path in target.parent.iterdir()] == ["answers.csv"]


def test_what_a_kill_left_aside_does_not_stand_in_the_way(tmp_path):
    (tmp_path / ".answers.csv.part").write_text("half")

    write_text(tmp_path / "answers.csv", "whole")

    assert [path.name for path in tmp_path.iterdir()] == ["answers.csv"]
    assert (tmp_path / "answers.csv").read_text() == "whole"
