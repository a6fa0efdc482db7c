"""The folder of a run while a training holds it: what it replaces is kept till then, links too."""

import pytest
from transformers import TrainingArguments

from hf_tasks.artifacts import Artifacts
from hf_tasks.callbacks.checkpoints import COMPLETE_MARK
from hf_tasks.workflow.output import held_output


@pytest.fixture
def arguments(tmp_path) -> TrainingArguments:
    return TrainingArguments(output_dir=str(tmp_path / "unused"), use_cpu=True, report_to="none")


@pytest.fixture
def linked(tmp_path):
    """A link, as to a larger disk, to the folder of a finished run."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk/run").mkdir()
    (tmp_path / "disk/run/old.txt").write_text("of the run before")
    (tmp_path / "run").symlink_to("disk/run")
    return tmp_path / "run"


def replace(folder, arguments, *, fails: bool = False, checkpoint: str = "") -> None:
    with held_output(Artifacts(folder), arguments, overwrite=True):
        (folder / "new.txt").write_text("of this run")
        if checkpoint:
            (folder / "checkpoints" / checkpoint).mkdir(parents=True)
            (folder / "checkpoints" / checkpoint / COMPLETE_MARK).touch()
        if fails:
            raise ValueError("in training")


def test_a_run_that_a_link_leads_to_is_replaced_where_it_lies(linked, arguments):
    replace(linked, arguments)
    replace(linked, arguments)

    assert linked.is_symlink()
    assert [path.name for path in linked.iterdir()] == ["new.txt"]
    assert {path.name for path in linked.parent.iterdir()} == {"disk", "run"}
    assert [path.name for path in (linked.parent / "disk").iterdir()] == ["run"]


def test_a_run_that_fails_before_a_checkpoint_gives_back_what_it_replaced(linked, arguments):
    with pytest.raises(ValueError, match="in training"):
        replace(linked, arguments, fails=True)

    assert [path.name for path in linked.iterdir()] == ["old.txt"]


def test_a_run_that_fails_after_a_checkpoint_stays(linked, arguments):
    with pytest.raises(ValueError, match="in training"):
        replace(linked, arguments, fails=True, checkpoint="checkpoint-1")

    assert {path.name for path in linked.iterdir()} == {"new.txt", "checkpoints"}
    assert [path.name for path in (linked.parent / "disk").iterdir()] == ["run"]
