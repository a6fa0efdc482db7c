"""The TrainingArguments of a checked recipe: the second stage of the check, with transformers imported."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hf_tasks.errors import RecipeError
from hf_tasks.recipe.load import Recipe

if TYPE_CHECKING:
    from transformers import TrainingArguments


def build_arguments(
    recipe: Recipe, *, arguments_class: "type[TrainingArguments]", defaults: Mapping[str, Any]
) -> "TrainingArguments":
    """The arguments of the run: the task's defaults under what the recipe says, checkpoints below its output.

    Raises:
        RecipeError: fields that do not go together, or that this machine cannot do.
    """
    fields = {**defaults, **recipe.training}
    try:
        return arguments_class(output_dir=str(recipe.output / "checkpoints"), **fields)
    except (ValueError, TypeError, ImportError, OSError, NotImplementedError) as error:
        raise RecipeError([f"{recipe.path}: training: {' '.join(str(error).split())}"]) from error
