"""Decodes the pictures of a recipe into the cache, so that training with `cache: true` starts at once."""

from hf_tasks.data.inspect import slow_progress
from hf_tasks.errors import UserError
from hf_tasks.recipe import Recipe
from hf_tasks.registry import load_task


def prepare(recipe: Recipe) -> list[str]:
    """Fill the cache of a recipe, and mend what is damaged in it; a sentence for each split.

    Raises:
        UserError: the task has no pictures, or rows, pictures or weights are not usable.
    """
    task = load_task(recipe.task)
    if task.prepare_pictures is None:
        raise UserError(f"task: {recipe.task} has no pictures to decode; nothing is to be prepared")
    weights, splits = task.open_weights(recipe.settings), task.prepare(recipe.settings)
    model = task.build_model(recipe.settings, weights, splits)
    done = task.prepare_pictures(recipe.settings, model, splits, slow_progress)
    return [
        f"{split}: {packed.pictures} pictures, {packed.decoded} of them decoded now; "
        f"the cache they share holds {packed.bytes / 1e6:,.1f} MB in {packed.folder}"
        for split, packed in done.items()
    ]
