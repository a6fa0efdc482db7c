"""The whole way from a recipe to a trained, measured and saved model, top to bottom."""

import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from transformers import (
    PreTrainedModel,
    PrinterCallback,
    ProgressCallback,
    Trainer,
    TrainerState,
    TrainingArguments,
    set_seed,
)

from hf_tasks.artifacts import Artifacts, write_json
from hf_tasks.callbacks.checkpoints import (
    STATE_FILE,
    KeepCheckpoints,
    last_complete_checkpoint,
    remove_incomplete_checkpoints,
    settle_checkpoints,
    step_of,
)
from hf_tasks.callbacks.history import LogBeforePauses, mean_training_loss
from hf_tasks.callbacks.predictions import save_table
from hf_tasks.callbacks.progress import ShowProgress
from hf_tasks.callbacks.pruning import Prune, compute_sparsity
from hf_tasks.callbacks.stopping import StopEarly, training_has_ended
from hf_tasks.contract import Predictions, Task
from hf_tasks.data.sources import Source
from hf_tasks.environment import describe_environment
from hf_tasks.errors import RecipeError, UserError
from hf_tasks.exporting import export_trained, try_export
from hf_tasks.publishing import push, write_run_card
from hf_tasks.recipe import Recipe, load_recipe
from hf_tasks.recipe.arguments import build_arguments
from hf_tasks.registry import load_task
from hf_tasks.run_report import saved_history, write_run_report
from hf_tasks.tracking import Trackers, require_trackers

TWO_STEPS = {
    "max_steps": 2,
    "eval_strategy": "steps",
    "eval_steps": 2,
    "save_strategy": "steps",
    "save_steps": 2,
    "logging_steps": 1,
}


def run(
    recipe: Recipe,
    *,
    resume: bool = False,
    overwrite: bool = False,
    trust_remote_code: bool = False,
    console: Console | None = None,
) -> Artifacts:
    """Train, measure and save what a recipe describes.

    Args:
        recipe: what load_recipe returned.
        resume: continue from the last whole checkpoint, if the output folder has one.
        overwrite: replace an earlier run in the output folder.
        trust_remote_code: allow the recipe's `metrics` to fetch and run code of the Hub.
        console: where progress is shown.

    Raises:
        RecipeError: the output folder holds a run, or TrainingArguments refuse a value.
        DataError: rows or pictures are not usable.
        ModelError: weights cannot be had.
    """
    require_trackers(recipe)
    task, arguments = _task_and_arguments(recipe)
    artifacts = Artifacts(recipe.output)
    console = console or Console()
    with arguments.main_process_first(local=False):
        if arguments.process_index == 0:
            _open_output(recipe, artifacts, resume=resume, overwrite=overwrite)
    with Trackers(artifacts, recipe, say=partial(console.print, markup=False)) as trackers:
        _fit(
            recipe,
            task,
            arguments,
            trust_remote_code=trust_remote_code,
            console=console,
            trackers=trackers,
        )
    if recipe.hub is not None and arguments.process_index == 0:
        console.print(f"uploaded: {push(artifacts.folder, recipe.hub.repo)}", markup=False, soft_wrap=True)
    return artifacts


def check(recipe: Recipe, *, trust_remote_code: bool = False, console: Console | None = None) -> None:
    """Two steps of everything that run does, in a folder of its own that is removed.

    Raises:
        UserError: what run would raise.
    """
    require_trackers(recipe)
    aside = recipe.output.with_name(f".{recipe.output.name}.check")
    short = replace(recipe, output=aside, training={**recipe.training, **TWO_STEPS})
    task, arguments = _task_and_arguments(short)
    try:
        _fit(
            short,
            task,
            arguments,
            trust_remote_code=trust_remote_code,
            console=console or Console(),
            rows=2 * arguments.train_batch_size,
            is_trial=True,
        )
    finally:
        if arguments.process_index == 0:
            shutil.rmtree(aside, ignore_errors=True)


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
        UserError: the folder holds no finished run, or the rows are not usable.
    """
    if Artifacts(out).recipe.exists():
        raise UserError(f"--out: {out} holds a run, whose figures stay; name another folder")
    recipe = replace(_finished_recipe(run_folder), output=out)
    predictions, is_first_process = _measure(
        run_folder, recipe, source, trust_remote_code=trust_remote_code, console=console or Console()
    )
    if is_first_process:
        _write_predictions(Artifacts(out), predictions, {})
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
    if not artifacts.recipe.is_file() or not artifacts.model.is_dir():
        raise UserError(f"{run_folder}: no finished run; wanted a folder that `hf-tasks train` has written")
    return load_recipe(artifacts.recipe)


def _measure(
    run_folder: Path, recipe: Recipe, source: Source | None, *, trust_remote_code: bool, console: Console
) -> tuple[Predictions, bool]:
    """What a saved model says of rows, and whether this process is the one that writes."""
    task, arguments = _task_and_arguments(recipe)
    model = task.load_model(Artifacts(run_folder).model)
    rows = task.prepare_rows(recipe.settings, source, model)
    trainer = task.build_trainer(recipe.settings, model, rows, arguments, trust_remote_code)
    _add_callbacks(trainer, recipe, task, console)
    return task.compute_predictions(trainer, rows), arguments.process_index == 0


def _task_and_arguments(recipe: Recipe) -> tuple[Task, TrainingArguments]:
    task = load_task(recipe.task)
    defaults = {**_device_defaults(), **task.training_defaults(recipe.settings)}
    if recipe.pruning is not None and recipe.pruning.at == "epoch":
        # An earlier epoch is less sparse than asked for.
        defaults["load_best_model_at_end"] = False
    arguments = build_arguments(recipe, arguments_class=task.arguments_class, defaults=defaults)
    if arguments.n_gpu > 1:
        raise UserError(
            f"{arguments.n_gpu} GPUs are visible to one process; start one process a GPU with "
            "`accelerate launch -m hf_tasks train RECIPE`, or show one GPU: CUDA_VISIBLE_DEVICES=0"
        )
    return task, arguments


def _device_defaults() -> dict[str, Any]:
    """What a group of processes needs to be told where there is no accelerator."""
    if torch.accelerator.is_available():
        return {}
    # accelerate would say cpu:0, a name under which PyTorch loads no checkpoint.
    os.environ.setdefault("ACCELERATE_TORCH_DEVICE", "cpu")
    # Left out, the processes do not know of each other, and each trains alone.
    return {"use_cpu": True}


def _open_output(recipe: Recipe, artifacts: Artifacts, *, resume: bool, overwrite: bool) -> None:
    if artifacts.recipe.is_file():
        if overwrite:
            shutil.rmtree(artifacts.folder)
        elif not resume:
            raise RecipeError(
                [
                    f"output: {artifacts.folder} already holds a run; continue it with --resume, replace it "
                    "with --overwrite, or name another folder: output=runs/NAME"
                ]
            )
    elif artifacts.folder.is_dir() and any(artifacts.folder.iterdir()):
        raise RecipeError([f"output: {artifacts.folder} is not empty and holds no run; name another folder"])
    remove_incomplete_checkpoints(artifacts.checkpoints)


def _fit(
    recipe: Recipe,
    task: Task,
    arguments: TrainingArguments,
    *,
    trust_remote_code: bool,
    console: Console,
    rows: int | None = None,
    trackers: Trackers | None = None,
    is_trial: bool = False,
) -> None:
    """Train and leave all artifacts; `rows` limits both splits; a trial exports before it trains."""
    artifacts = Artifacts(recipe.output)
    with arguments.main_process_first(local=False):
        weights = task.open_weights(recipe.settings)
        splits = task.prepare(recipe.settings)
    if rows is not None:
        splits = splits.head(rows)
    set_seed(arguments.seed)
    model = task.build_model(recipe.settings, weights, splits)
    if is_trial and recipe.export is not None and arguments.process_index == 0:
        try_export(recipe, task, model, splits, formats=recipe.export)
    trainer = task.build_trainer(recipe.settings, model, splits, arguments, trust_remote_code)
    _add_callbacks(trainer, recipe, task, console)
    if arguments.process_index == 0:
        _write_start(artifacts, recipe, arguments, splits.facts)
    checkpoint = last_complete_checkpoint(artifacts.checkpoints)
    if trackers is not None:
        defaults = task.training_defaults(recipe.settings)
        trackers.follow(trainer, training_defaults=defaults, checkpoint=checkpoint)
    facts = _train(trainer, checkpoint, recipe)
    _save_model(trainer, artifacts.model)
    predictions = task.compute_predictions(trainer, splits)
    if arguments.process_index == 0:
        _keep_fitted(model, predictions.fitted, artifacts.model)
        further: dict[str, Any] = {"training": facts}
        if recipe.pruning is not None:
            further["sparsity"] = compute_sparsity(trainer.model, recipe.pruning.layers)
        _write_predictions(artifacts, predictions, further)
        try:
            if recipe.export is not None and not is_trial:
                export_trained(
                    recipe,
                    task,
                    trainer.model,
                    splits,
                    console=console,
                    folder=artifacts.exports,
                    formats=recipe.export,
                )
        finally:  # a refused export leaves a report that says so
            write_run_report(artifacts, recipe, predictions.answers, trainer.state.log_history)
            write_run_card(recipe, artifacts)
            if trackers is not None:
                trackers.log_results(predictions, step=facts["best_step"])


def _train(trainer: Trainer, checkpoint: Path | None, recipe: Recipe) -> dict[str, Any]:
    """Train, from a checkpoint on if there is one, and leave the best weights in the trainer's model."""
    start, resumed, speed = TrainerState(), None, {}
    if checkpoint is not None:
        start, resumed = TrainerState.load_from_json(str(checkpoint / STATE_FILE)), str(checkpoint)
    stopping = recipe.early_stopping
    patience, threshold = (None, 0.0) if stopping is None else (stopping.patience, stopping.threshold)
    if resumed is not None and training_has_ended(
        start, trainer.args, patience=patience, threshold=threshold
    ):
        _restore(trainer, start, resumed, keep_best=recipe.checkpoints.keep_best)
    else:
        trained = trainer.train(resume_from_checkpoint=resumed)
        speed = _speed(trained.metrics, trainer.state, first_step=start.global_step)
    state = trainer.state
    best = state.best_model_checkpoint if trainer.args.load_best_model_at_end else None
    return {
        "epochs": state.epoch,
        "steps": state.global_step,
        "best_step": state.global_step if best is None else step_of(Path(best)),
        "loss": mean_training_loss(state),
        **speed,
    }


def _restore(trainer: Trainer, state: TrainerState, checkpoint: str, *, keep_best: int) -> None:
    """Take up training at its end; the Trainer would go one step further where that is inside an epoch."""
    state.is_local_process_zero = trainer.is_local_process_zero()
    state.is_world_process_zero = trainer.is_world_process_zero()
    trainer.state = state
    settle_checkpoints(state, trainer.args, keep_best=keep_best)
    best = state.best_model_checkpoint if trainer.args.load_best_model_at_end else None
    trainer._load_from_checkpoint(best or checkpoint)
    trainer.callback_handler.on_train_end(trainer.args, state, trainer.control)


def _add_callbacks(trainer: Trainer, recipe: Recipe, task: Task, console: Console) -> None:
    trainer.remove_callback(ProgressCallback)
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(LogBeforePauses)
    trainer.add_callback(KeepCheckpoints(recipe.checkpoints.keep_best))
    trainer.add_callback(ShowProgress(console, task.shown_metrics))
    if recipe.pruning is not None:
        trainer.add_callback(Prune(**recipe.pruning.model_dump()))
    if recipe.early_stopping is not None:
        stopping = recipe.early_stopping
        trainer.add_callback(StopEarly(stopping.patience, stopping.threshold))


def _write_start(
    artifacts: Artifacts, recipe: Recipe, arguments: TrainingArguments, facts: Mapping[str, Any]
) -> None:
    artifacts.folder.mkdir(parents=True, exist_ok=True)
    artifacts.recipe.write_text(recipe.text, encoding="utf-8")
    write_json(artifacts.data, facts)
    environment = describe_environment(device=str(arguments.device), processes=arguments.world_size)
    write_json(artifacts.environment, environment)


def _save_model(trainer: Trainer, folder: Path) -> None:
    trainer.save_model(str(folder))
    if trainer.args.process_index == 0:
        # A pickle of ours has no place in a model that others load.
        (folder / "training_args.bin").unlink(missing_ok=True)


def _keep_fitted(model: PreTrainedModel, fitted: Mapping[str, Any], folder: Path) -> None:
    """Weights are on disk before anything is measured, so the config is written a second time."""
    if fitted:
        model.config.update(fitted)
        model.config.save_pretrained(folder)


def _speed(metrics: Mapping[str, float], state: TrainerState, *, first_step: int) -> dict[str, float]:
    """Of the steps since the start or the resume; the Trainer's figure counts all that were planned."""
    share = (state.global_step - first_step) / max(state.max_steps, 1)
    return {
        "seconds": metrics["train_runtime"],
        "examples_per_second": round(metrics["train_samples_per_second"] * share, 3),
    }


def _write_predictions(artifacts: Artifacts, predictions: Predictions, further: Mapping[str, Any]) -> None:
    write_json(artifacts.metrics, {**predictions.metrics, **further})
    save_table(predictions.table, artifacts.predictions)
    for name, table in predictions.further_tables.items():
        save_table(table, artifacts.folder / f"{name}.csv")
