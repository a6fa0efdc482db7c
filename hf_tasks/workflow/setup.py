"""What training and measuring a run have in common: its task, arguments, callbacks and tables."""

import os
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import torch
from huggingface_hub.utils import are_progress_bars_disabled, enable_progress_bars
from rich.console import Console
from transformers import PrinterCallback, ProgressCallback, Trainer, TrainingArguments
from transformers.utils.logging import disable_progress_bar

from hf_tasks.artifacts import Artifacts, read_json, write_json
from hf_tasks.callbacks.best_metric import RequireBestMetric
from hf_tasks.callbacks.checkpoints import KeepCheckpoints
from hf_tasks.callbacks.history import LogBeforePauses
from hf_tasks.callbacks.predictions import save_table
from hf_tasks.callbacks.progress import ShowProgress
from hf_tasks.callbacks.pruning import Prune
from hf_tasks.callbacks.stopping import StopEarly
from hf_tasks.contract.answers import Predictions
from hf_tasks.contract.task import Task
from hf_tasks.errors import UserError
from hf_tasks.recipe import Recipe
from hf_tasks.recipe.arguments import build_arguments
from hf_tasks.registry import load_task
from hf_tasks.workflow.feasible import require_integrations


def task_and_arguments(recipe: Recipe) -> tuple[Task, TrainingArguments]:
    """The task of a recipe, and the arguments of its Trainer on this machine.

    Raises:
        RecipeError: TrainingArguments refuse a value, or it names a tracker that is not installed.
        UserError: several GPUs for one process.
    """
    task = load_task(recipe.task)
    # The filter would hide from the log a loss that is not finite, and asks the device about each step.
    defaults = {
        "logging_nan_inf_filter": False,
        **_device_defaults(),
        **task.training_defaults(recipe.settings),
    }
    if recipe.pruning is not None and recipe.pruning.at == "epoch":
        # An earlier epoch is less sparse than asked for.
        defaults["load_best_model_at_end"] = False
    arguments = build_arguments(recipe, arguments_class=task.arguments_class, defaults=defaults)
    require_integrations(recipe, arguments)
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


def add_callbacks(trainer: Trainer, recipe: Recipe, task: Task, console: Console) -> ShowProgress:
    """Put our progress, checkpoints and stopping in place of the Trainer's, and what the recipe asks for.

    Returns:
        The progress, to be closed when training fails.
    """
    _silence_bars_of_transformers()
    trainer.remove_callback(ProgressCallback)
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(RequireBestMetric)
    trainer.add_callback(LogBeforePauses)
    trainer.add_callback(KeepCheckpoints(recipe.checkpoints.keep_best))
    progress = ShowProgress(console, task.shown_metrics)
    trainer.add_callback(progress)
    if recipe.pruning is not None:
        trainer.add_callback(Prune(**recipe.pruning.model_dump()))
    if recipe.early_stopping is not None:
        stopping = recipe.early_stopping
        trainer.add_callback(StopEarly(stopping.patience, stopping.threshold))
    return progress


def _silence_bars_of_transformers() -> None:
    """Its bar while it saves would tear ours; those of the Hub's client, for uploads, stay as they are."""
    were_shown = not are_progress_bars_disabled()
    disable_progress_bar()
    if were_shown:
        enable_progress_bars()


def write_predictions(artifacts: Artifacts, predictions: Predictions, further: Mapping[str, Any]) -> None:
    """Write metrics.json, with further entries, and the tables."""
    write_json(artifacts.metrics, {**predictions.metrics, **further})
    save_table(predictions.table, artifacts.predictions)
    for name, table in predictions.further_tables.items():
        save_table(table, artifacts.folder / f"{name}.csv")


def show_skipped(artifacts: Artifacts, say: Callable[[str], None]) -> None:
    """Say how many rows a run did without, and where each stands with its reason."""
    skipped = read_json(artifacts.data).get("skipped", [])
    if skipped and os.environ.get("RANK", "0") == "0":
        counts = Counter(row["section"] for row in skipped)
        parts = " and ".join(f"{count} of data.{section}" for section, count in counts.items())
        say(f"skipped: {parts}, which cannot be used; {artifacts.data} lists them with the reasons")
