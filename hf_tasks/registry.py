"""The only list of tasks: name to module, resolved when asked for."""

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING

from pydantic import BaseModel

if TYPE_CHECKING:
    from hf_tasks.contract.task import Task

TASKS = {
    "image-classification": "hf_tasks.tasks.image_classification",
    "metric-learning": "hf_tasks.tasks.metric_learning",
    "siamese": "hf_tasks.tasks.siamese",
    "language-model": "hf_tasks.tasks.language_model",
}


def task_settings(name: str) -> type[BaseModel]:
    """The settings model of a task; imports neither torch nor transformers."""
    settings: type[BaseModel] = import_module(f"{TASKS[name]}.settings").Settings
    return settings


def arguments_library(name: str) -> str:
    """The library whose TrainingArguments a task takes; its settings say so where it is not transformers."""
    return getattr(task_settings(name), "arguments_library", "transformers")


def unused_arguments(name: str) -> Mapping[str, str]:
    """Fields of TrainingArguments that would do nothing in a task, or break it, and what to do instead."""
    return getattr(task_settings(name), "unused_arguments", {})


def load_task(name: str) -> "Task":
    """The task itself, with all it needs imported."""
    task: Task = import_module(f"{TASKS[name]}.task").TASK
    return task
