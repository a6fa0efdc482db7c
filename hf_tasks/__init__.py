"""From pictures or texts to a trained, measured and delivered model, with one readable recipe."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hf_tasks.errors import DataError, ModelError, RecipeError, UserError
    from hf_tasks.recipe import load_recipe
    from hf_tasks.tasks.image_classification.trainer import ImageClassificationTrainer
    from hf_tasks.tasks.metric_learning.trainer import MetricLearningTrainer
    from hf_tasks.workflow import run

_PUBLIC = {
    "DataError": "hf_tasks.errors",
    "ImageClassificationTrainer": "hf_tasks.tasks.image_classification.trainer",
    "MetricLearningTrainer": "hf_tasks.tasks.metric_learning.trainer",
    "ModelError": "hf_tasks.errors",
    "RecipeError": "hf_tasks.errors",
    "UserError": "hf_tasks.errors",
    "load_recipe": "hf_tasks.recipe",
    "run": "hf_tasks.workflow",
}

__all__ = [
    "DataError",
    "ImageClassificationTrainer",
    "MetricLearningTrainer",
    "ModelError",
    "RecipeError",
    "UserError",
    "load_recipe",
    "run",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used; torch takes seconds."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'hf_tasks' has no attribute '{name}'")
    return getattr(import_module(_PUBLIC[name]), name)
