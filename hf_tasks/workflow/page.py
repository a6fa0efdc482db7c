"""The page of a run, from the files that it left and its model's answers."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hf_tasks.artifacts import Artifacts, read_json
from hf_tasks.callbacks.checkpoints import last_complete_checkpoint
from hf_tasks.export.parity import read_records
from hf_tasks.recipe import Recipe
from hf_tasks.report.record import RunRecord
from hf_tasks.report.write import write_report


def write_run_report(
    artifacts: Artifacts, recipe: Recipe, answers: Any, history: Sequence[Mapping[str, Any]]
) -> None:
    """Write report.html of a run whose other files are written.

    Args:
        artifacts: of the run.
        recipe: of the run.
        answers: of Predictions.
        history: the Trainer's log.
    """
    record = RunRecord(
        name=artifacts.folder.resolve().name,
        task=recipe.task,
        metrics=read_json(artifacts.metrics),
        data=read_json(artifacts.data),
        environment=read_json(artifacts.environment),
        recipe=recipe.text,
        history=history,
        exports=read_records(artifacts.parity),
    )
    write_report(artifacts.report, record, answers, wrong_images=recipe.report.wrong_images)


def saved_history(checkpoints: Path) -> list[dict[str, Any]]:
    """The Trainer's log as the last checkpoint holds it; empty where there is none any more."""
    last = last_complete_checkpoint(checkpoints)
    if last is None:
        return []
    history: list[dict[str, Any]] = read_json(last / "trainer_state.json").get("log_history", [])
    return history
