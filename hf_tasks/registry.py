"""The only list of tasks: name to module, resolved when asked for."""

from importlib import import_module
from typing import TYPE_CHECKING

from pydantic import BaseModel

if TYPE_CHECKING:
    from hf_tasks.contract import Task

TASKS = {
    "image-classification": "hf_tasks.tasks.image_classification",
    "metric-learning": "hf_tasks.tasks.metric_learning",
}


def task_settings(name: str) -> type[BaseModel]:
    """The settings model of a task; imports neither torch nor transformers."""
    settings: type[BaseModel] = import_module(f"{TASKS[name]}.settings").Settings
    return settings


def load_task(name: str) -> "Task":
    """The task itself, with all it needs imported."""
    task: Task = import_module(f"{TASKS[name]}.task").TASK
    return task
