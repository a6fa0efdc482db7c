"""Measures a finished run again: on its own validation rows or on others, for figures or for its page."""

from dataclasses import replace
from pathlib import Path

from rich.console import Console

from hf_tasks.artifacts import Artifacts
from hf_tasks.contract.answers import Predictions
from hf_tasks.data.sources import FolderSource, Source
from hf_tasks.errors import UserError
from hf_tasks.recipe import Recipe, load_recipe
from hf_tasks.workflow.folders import require_finished, require_writable
from hf_tasks.workflow.opening import explained_model
from hf_tasks.workflow.page import saved_history, write_run_report
from hf_tasks.workflow.setup import add_callbacks, task_and_arguments, write_predictions


def evaluate(
    run_folder: Path,
    source: Source | None = None,
    *,
    out: Path,
    trust_remote_code: bool = False,
    console: Console | None = None,
) -> Artifacts:
    """Measure a run's model again, on its validation rows or on others.

    Args:
        run_folder: what run returned, on disk.
        source: rows to measure on; None takes the recipe's validation rows.
        out: folder for metrics.json and predictions.csv.
        trust_remote_code: allow the recipe's `metrics` to fetch and run code of the Hub.
        console: where progress is shown.

    Raises:
        UserError: the folder holds no finished run, the rows are not usable, or nothing can be written.
    """
    require_writable(out, key="--out")
    if Artifacts(out).recipe.exists():
        raise UserError(f"--out: {out} holds a run, whose figures stay; name another folder")
    recipe = replace(_finished_recipe(run_folder), output=out)
    predictions, is_first_process = _measure(
        run_folder, recipe, source, trust_remote_code=trust_remote_code, console=console or Console()
    )
    if is_first_process:
        write_predictions(Artifacts(out), predictions, {})
        Artifacts(out).checkpoints.rmdir()  # the Trainer made it, nothing was trained
    return Artifacts(out)


def report(run_folder: Path, *, trust_remote_code: bool = False, console: Console | None = None) -> Artifacts:
    """Draw the page of a finished run again, with its model's answers to the recipe's validation rows.

    Args:
        run_folder: what run returned, on disk.
        trust_remote_code: allow the recipe's `metrics` to fetch and run code of the Hub.
        console: where progress is shown.

    Raises:
        UserError: the folder holds no finished run, or the rows are not usable any more.
    """
    recipe = replace(_finished_recipe(run_folder), output=run_folder)
    predictions, is_first_process = _measure(
        run_folder, recipe, None, trust_remote_code=trust_remote_code, console=console or Console()
    )
    artifacts = Artifacts(run_folder)
    if is_first_process:
        write_run_report(artifacts, recipe, predictions.answers, saved_history(artifacts.checkpoints))
    return artifacts


def _finished_recipe(run_folder: Path) -> Recipe:
    artifacts = Artifacts(run_folder)
    require_finished(run_folder)
    return load_recipe(artifacts.recipe)


def _measure(
    run_folder: Path, recipe: Recipe, source: Source | None, *, trust_remote_code: bool, console: Console
) -> tuple[Predictions, bool]:
    """What a saved model says of rows, and whether this process is the one that writes."""
    task, arguments = task_and_arguments(recipe)
    if isinstance(source, FolderSource) and task.prepare_pictures is None:
        raise UserError(
            f"--data: {source.folder} holds no data set, and {task.name} has no class folders; wanted a file "
            "or a saved data set, with --split if its files do not tell"
        )
    folder = Artifacts(run_folder).model
    with explained_model(folder):
        model = task.load_model(folder)
    rows = task.prepare_rows(recipe.settings, source, model)
    trainer = task.build_trainer(recipe.settings, model, rows, arguments, trust_remote_code)
    add_callbacks(trainer, recipe, task, console)
    return task.compute_predictions(trainer, rows), arguments.process_index == 0
