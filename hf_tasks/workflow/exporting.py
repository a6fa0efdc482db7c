"""Exports of a run: after training, before it as a trial, and later by command."""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from hf_tasks.artifacts import Artifacts
from hf_tasks.callbacks.checkpoints import checkpoint_folders, last_complete_checkpoint
from hf_tasks.contract.exports import ExportPlan
from hf_tasks.contract.task import Task
from hf_tasks.errors import ExportError, UserError
from hf_tasks.export.choose import Budget
from hf_tasks.export.files import require_formats
from hf_tasks.export.parity import parity_table
from hf_tasks.export.produce import ExportOptions, export_run, try_formats
from hf_tasks.export.torchscript import trace
from hf_tasks.recipe import Recipe, load_recipe
from hf_tasks.recipe.sections import Export
from hf_tasks.registry import load_task
from hf_tasks.workflow.folders import require_exportable
from hf_tasks.workflow.opening import explained_model


def export_trained(
    recipe: Recipe, task: Task, model: Any, splits: Any, *, console: Console, folder: Path, formats: Export
) -> None:
    """Export a trained model into the run's folder, prove it, and show the proof.

    Args:
        recipe: of the run.
        task: its task.
        model: trained.
        splits: the run's rows.
        console: where the table is shown.
        folder: where the formats go.
        formats: what is wanted.

    Raises:
        ExportError: a format cannot be made, a file is refused, or none fits the budget.
    """
    with console.status("exporting and proving"):
        parity = export_run(
            _plan(recipe, task, model, splits),
            _options(formats),
            folder,
            run_folder=recipe.output,
            facts={
                "task": recipe.task,
                "recipe_fingerprint": hashlib.sha256(recipe.text.encode()).hexdigest(),
            },
        )
    if parity.records:
        console.print(parity_table(parity))
    problems = list(parity.impossible)
    if parity.failures:
        artifacts = Artifacts(recipe.output)
        again = " ".join(("hf-tasks export", str(recipe.output), *formats.formats))
        if folder != artifacts.exports:
            again += f" --checkpoint {folder.name}"
        problems += [
            f"export: {len(parity.failures)} of {len(parity.records)} files do not answer as the "
            f"model does; they are in {folder}/rejected:",
            *(f"  {line}" for line in parity.failures),
            f"if you can live with that, set export.tolerance in {artifacts.recipe} and run `{again}`; "
            "otherwise leave the format out",
        ]
    if problems:
        raise ExportError("\n".join(problems))


def require_exports(recipe: Recipe, task: Task) -> None:
    """Check that the exports of a recipe can be made here, as far as that is known without its model.

    Raises:
        ExportError: the task has no exports, cannot keep a format, or a package is missing.
    """
    if recipe.export is None:
        return
    if task.plan_export is None:
        raise ExportError(f"export: {task.name} has no exports; leave the section out")
    require_formats(
        recipe.export.formats, refused=task.refused_formats(recipe.settings), backend=recipe.export.backend
    )


def try_export(recipe: Recipe, task: Task, model: Any, splits: Any, *, entirely: bool) -> None:
    """See of the untrained model that its formats are possible, so that training is not for nothing.

    Args:
        recipe: whose formats.
        task: its task.
        model: untrained.
        splits: the run's rows.
        entirely: export and prove all formats aside; else only trace the model if TorchScript is wanted, as
            that takes no file, and not every decoder can be traced.

    Raises:
        ExportError: a format cannot be made or does not answer as the model does.
    """
    if recipe.export is None:
        return
    if entirely:
        folder = Artifacts(recipe.output).exports
        try_formats(_plan(recipe, task, model, splits), _options(recipe.export), folder)
    elif "torchscript" in recipe.export.formats:
        trace(_plan(recipe, task, model, splits))


def export_saved(
    run_folder: Path, formats: list[str], *, checkpoint: str, backend: str | None, console: Console
) -> Path:
    """Export a finished run's model, or one of its checkpoints.

    Args:
        run_folder: a finished run.
        formats: names of formats; none takes those of the recipe.
        checkpoint: best, last, or the name of a folder in `checkpoints/`.
        backend: what writes ONNX; None keeps the recipe's choice.
        console: where the table is shown.

    Returns:
        The folder of the exports.

    Raises:
        UserError: no finished run, no such checkpoint, nothing to export, or a file is refused.
    """
    artifacts = Artifacts(run_folder)
    require_exportable(run_folder, formats, backend=backend)
    recipe = replace(load_recipe(artifacts.recipe), output=run_folder)
    section = recipe.export.model_dump() if recipe.export else {}
    section |= {"formats": formats} if formats else {}
    section |= {"backend": backend} if backend else {}
    if "formats" not in section:
        raise UserError("export: name formats, such as `onnx torchscript`; the recipe of this run names none")
    task = load_task(recipe.task)
    chosen = _checkpoint(artifacts, checkpoint)
    with explained_model(chosen):
        model = task.load_model(chosen)
    splits = task.prepare(recipe.settings)
    folder = artifacts.exports if checkpoint == "best" else artifacts.exports / checkpoint
    chosen_formats = Export.model_validate(section)
    export_trained(recipe, task, model, splits, console=console, folder=folder, formats=chosen_formats)
    return folder


def _checkpoint(artifacts: Artifacts, name: str) -> Path:
    if name == "best":
        return artifacts.model
    found = checkpoint_folders(artifacts.checkpoints)
    last = last_complete_checkpoint(artifacts.checkpoints)
    names = {"last": last, **{folder.name: folder for folder in found.values()}}
    folder = names.get(name)
    if folder is None:
        known = ["best", *(key for key, value in names.items() if value)]
        raise UserError(f"--checkpoint: found '{name}', wanted one of {', '.join(known)}")
    return folder


def _plan(recipe: Recipe, task: Task, model: Any, splits: Any) -> ExportPlan:
    if task.plan_export is None:
        raise ExportError(f"export: {task.name} has no exports; leave the section out")
    return task.plan_export(recipe.settings, model, splits)


def _options(section: Export) -> ExportOptions:
    budget = section.budget
    return ExportOptions(
        formats=tuple(section.formats),
        backend=section.backend,
        sample=None if section.sample == "all" else section.sample,
        has_free_size=section.image_size == "free",
        tolerance=section.tolerance.model_dump(exclude_none=True),
        budget=None if budget is None else Budget(budget.latency_ms, budget.max_metric_loss),
    )
